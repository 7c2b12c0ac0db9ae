# SPDX-License-Identifier: Apache-2.0
"""The end-to-end half of `benchmark`: camera process, DDS, node and back; and the node's start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import json
import os
from pathlib import Path
import selectors
from statistics import median
import subprocess
import sys
import tempfile
from time import perf_counter
from typing import Any

from .graph import Child, ChildError, DemoOptions, environment, NODES
from ..benchmark.steps import SIZES

POLICIES = ('always_read', 'alternate(1)', 'forecast')  #: `forecast` reads the first frame alone

LONGEST_S = 400.0  #: For one measurement, the start of the detector included


@dataclass(frozen=True)
class GraphOptions:
    """The settings of the measurement end to end."""

    source: Path  #: Video that the pictures are from

    #: Parameters of the detector, name -> value as in `-p name:=value`.
    detector: Mapping[str, str]
    sizes: Sequence[str] = tuple(SIZES)
    transports: Sequence[str] = ('raw', 'compressed')
    frames: int = 240  #: Pictures that count, of each measurement
    warm_up: int = 60  #: Pictures before them
    rate: float = 30.0


def measure_graph(options: GraphOptions, folder: Path,
                  progress: Callable[[str], object] = lambda _: None) -> list[dict[str, Any]]:
    """
    Measure the detector, and a subscriber that does nothing, for every transport and size.

    :param folder: for the logs of the processes; exists
    :param progress: called with what is measured next
    :returns: one row a measurement: what it was (`node`, `transport`, `size`, `policy`) and what
        `benchmark_camera` found
    :raises ChildError: if a process fails
    """
    rows = []
    variables = environment(DemoOptions(str(options.source)), folder)
    for transport in options.transports:
        for node, module, parameters, policies in (
                ('detector', 'detector_node', {'autostart': 'true', **options.detector}, POLICIES),
                ('bare', 'bare_subscriber', {}, ('none',))):
            command = [sys.executable, '-m', f'{NODES}.{module}', '--ros-args']
            for key, value in {'image_transport': transport, **parameters}.items():
                command += ['-p', f'{key}:={value}']
            child = Child(node, command, folder / f'{node}_{transport}.log', variables)
            try:
                for size in options.sizes:
                    for policy in policies:
                        progress(f'{node}, {size}, {transport}, {policy}')
                        figures = _camera(options, child, transport, size, policy, variables)
                        child.check()
                        rows.append({'node': node, 'transport': transport, 'size': size,
                                     'policy': policy, 'rate': options.rate, **figures})
            finally:
                child.end()
    return rows


def _camera(options: GraphOptions, child: Child, transport: str, size: str, policy: str,
            variables: Mapping[str, str]) -> dict[str, Any]:
    height, width = SIZES[size]
    command = [sys.executable, '-m', f'{NODES}.benchmark_camera', '--ros-args']
    for key, value in {
            'source': f"'{options.source}'", 'height': height, 'width': width,
            'rate': repr(float(options.rate)), 'frames': options.frames,
            'warm_up': options.warm_up,
            'image_transport': transport, 'pid': child.pid,
            'policy': "''" if policy == 'none' else policy}.items():
        command += ['-p', f'{key}:={value}']
    try:
        done = subprocess.run(command, env=dict(variables), capture_output=True, text=True,
                              timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        raise ChildError(f'the camera was not done after {LONGEST_S:g} s') from None
    if done.returncode != 0:
        child.check()
        raise ChildError(f'the camera ended with exit code {done.returncode}: '
                         f'{" ".join(done.stderr.split())[-500:]}; the {child.name}: '
                         f'{child.last_words()}')
    return json.loads(done.stdout.strip().splitlines()[-1])


LONGEST_START_S = 300.0  #: For one start, seconds

ACTIVE = b'active: '  #: What the node's log says once it listens

COLD, WARM = 'cold', 'warm'


def measure_start(detector: Mapping[str, str], starts: int,
                  progress: Callable[[str], object] = lambda _: None) -> list[dict[str, Any]]:
    """
    Start the node over and over: once with empty caches, then with what that start left there.

    The caches are the detector's own and OpenVINO's. Files are in the system's memory each time
    if they were before.

    :param detector: parameters of the node, name -> value as in `-p name:=value`
    :param starts: starts with full caches, at least 1; their medians count
    :param progress: called with what is measured next
    :returns: one row for `cache` ``cold`` and one for ``warm``: `seconds` until active,
        `cpu_seconds` of all threads by then, `memory_mb` (resident, 10^6 bytes), `starts`
    :raises ChildError: if the node does not become active
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
        said = _read_until(child, ACTIVE, start + LONGEST_START_S)
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
