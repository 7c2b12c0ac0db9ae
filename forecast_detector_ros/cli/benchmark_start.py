# SPDX-License-Identifier: Apache-2.0
"""Measure a node from its start until it is active, and the memory that it has then."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import os
from pathlib import Path
import selectors
from statistics import median
import sys
import tempfile
from time import perf_counter
from typing import Any

from .demo_graph import DemoOptions, environment, NODES
from .graph_processes import Child, ChildError

LONGEST_S = 300.0
"""For one start, seconds."""

ACTIVE = b'active: '
"""What the node's log says once it listens."""

COLD, WARM = 'cold', 'warm'


def measure_start(detector: Mapping[str, str], starts: int,
                  progress: Callable[[str], object] = lambda _: None) -> list[dict[str, Any]]:
    """
    Start the node over and over: once with empty caches, then with what that start left there.

    The caches are the detector's own and OpenVINO's. Files are in the system's memory each time
    if they were before.

    Parameters
    ----------
    detector:
        Parameters of the node, name -> value as in `-p name:=value`.
    starts:
        Starts with full caches, at least 1; their medians count.
    progress:
        Called with what is measured next.

    Returns
    -------
    list
        One row for `cache` ``cold`` and one for ``warm``: `seconds` until active, `cpu_seconds`
        of all threads by then, `memory_mb` (resident, 10^6 bytes), `starts`.

    Raises
    ------
    ChildError
        If the node does not become active.

    """
    with tempfile.TemporaryDirectory(prefix='benchmark_start_') as folder:
        variables = {**environment(DemoOptions(''), Path(folder)),
                     'XDG_CACHE_HOME': str(Path(folder) / 'cache'),
                     'RCUTILS_LOGGING_USE_STDOUT': '1',
                     'RCUTILS_CONSOLE_OUTPUT_FORMAT': '{message}'}
        rows = []
        for cache, count in ((COLD, 1), (WARM, starts)):
            found = []
            for number in range(count):
                progress(f'{cache} start {number + 1} of {count}')
                found.append(_start(detector, variables, Path(folder) / 'node.log'))
            rows.append({'cache': cache, 'starts': count, **{
                key: median(one[key] for one in found) for key in found[0]}})
        return rows


def _start(detector: Mapping[str, str], variables: Mapping[str, str], log: Path
           ) -> dict[str, float]:
    command: list[str] = [sys.executable, '-m', f'{NODES}.detector_node', '--ros-args']
    for key, value in {'autostart': 'true', **detector}.items():
        command += ['-p', f'{key}:={value}']
    start = perf_counter()
    child = Child('detector', command, log, variables, piped=True)
    try:
        said = _read_until(child, ACTIVE, start + LONGEST_S)
        seconds = perf_counter() - start
        if ACTIVE not in said:
            lines = said.decode(errors='replace').strip().splitlines()
            raise ChildError('the detector did not become active: '
                             + (lines[-1] if lines else child.last_words()))
        return {'seconds': seconds, 'cpu_seconds': _cpu_seconds(child.pid),
                'memory_mb': _resident_bytes(child.pid) / 1e6}
    finally:
        child.end()


def _read_until(child: Child, words: bytes, until: float) -> bytes:
    """Return the output up to the words, or what there was at its end or when time was over."""
    read = b''
    with selectors.DefaultSelector() as selector:
        selector.register(child.output, selectors.EVENT_READ)
        while words not in read:
            if not selector.select(max(0.0, until - perf_counter())):
                break
            if not (data := os.read(child.output.fileno(), 2**16)):
                break
            read += data
    return read


def _cpu_seconds(pid: int) -> float:
    """Give the user and system time of a process (proc(5), fields 14 and 15 of stat)."""
    fields: Sequence[str] = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _resident_bytes(pid: int) -> int:
    """Give the resident set of a process (proc(5), field 2 of statm)."""
    return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')
