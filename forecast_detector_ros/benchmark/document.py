# SPDX-License-Identifier: Apache-2.0
"""A benchmark as tables, of text or of Markdown, and what has changed since another one."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

from .goals import Run, verdicts
from ..layout import table

#: Headings, in the order of the report.
GROUPS = {
    'step': 'Steps of the network', 'peer': 'Rivals, which read every frame',
    'batch': 'Several streams as one batch', 'frame': 'From a message to detections',
    'part': 'Parts of a frame', 'probe': 'The processor itself'}
_HEAD = ('', 'median ms', 'p95 ms', 'noise %', 'MMAC', 'of peak %')

_GRAPH_HEAD = ('node, size, transport, policy', 'CPU ms/frame', 'cores', 'latency p50 ms',
               'p95 ms', 'lost')


def peak(run: Run) -> float | None:
    """Give the multiply-accumulates per second of the probe, the most that was seen."""
    speeds = [row['macs'] / (row['median_ms'] * 1e-3) for row in run['timings']
              if row['group'] == 'probe' and row['macs']]
    return max(speeds, default=None)


def timing_rows(run: Run, group: str) -> list[list[Any]]:
    """
    Give the rows of one table.

    The peak is that of one thread in fp32, so more threads or a lower precision may exceed it.
    """
    most = peak(run)
    rows = []
    for row in run['timings']:
        if row['group'] != group:
            continue
        macs, share = row['macs'], None
        if macs and most:
            share = 100.0 * macs / (row['median_ms'] * 1e-3) / most
        rows.append([row['name'], f"{row['median_ms']:.3g}", f"{row['p95_ms']:.3g}",
                     f"{100 * row['noise']:.0f}", f'{macs / 1e6:.0f}' if macs else None,
                     None if share is None else f'{share:.0f}'])
    return rows


_START_HEAD = ('caches', 'seconds to active', 'CPU seconds', 'resident MB', 'starts')


def start_rows(run: Run) -> list[list[Any]]:
    """Give the rows of the table of the node's start."""
    return [[row['cache'], f"{row['seconds']:.2f}", f"{row['cpu_seconds']:.2f}",
             f"{row['memory_mb']:.0f}", str(row['starts'])] for row in run.get('start') or ()]


def graph_rows(run: Run) -> list[list[Any]]:
    """Give the rows of the end-to-end table."""
    def number(row: Any, key: str, form: str) -> str | None:
        return None if row.get(key) is None else format(row[key], form)

    return [[f"{row['node']}, {row['size']}, {row['transport']}, {row['policy']}",
             number(row, 'cpu_ms_per_frame', '.2f'), number(row, 'cores', '.2f'),
             number(row, 'latency_p50_ms', '.1f'), number(row, 'latency_p95_ms', '.1f'),
             number(row, 'lost', 'd')] for row in run.get('graph') or ()]


def sections(run: Run) -> list[tuple[str, Sequence[str], list[list[Any]]]]:
    """Give title, head and rows of every table that has rows."""
    found: list[tuple[str, Sequence[str], list[list[Any]]]] = [
        (title, _HEAD, timing_rows(run, group)) for group, title in GROUPS.items()]
    found.append(('End to end', _GRAPH_HEAD, graph_rows(run)))
    found.append(('Start of the node', _START_HEAD, start_rows(run)))
    found.append(('Targets', ('', 'target', 'measured', ''), target_rows(run)))
    return [section for section in found if section[2]]


def target_rows(run: Run) -> list[list[Any]]:
    """Give the rows of the table of targets."""
    return [verdict.row for verdict in verdicts(run)]


def about(run: Run) -> str:
    """Say in one line on what, with what and how the run was made."""
    versions = ', '.join(f'{name} {value}' for name, value in run['versions'].items() if value)
    machine = run['machine']
    # Documents of earlier versions do not name the instructions.
    instructions = machine.get('instructions')
    processor = f"{machine['processor']} ({instructions})" if instructions else \
        machine['processor']
    return (f"{processor}, {machine['cores']} cores, load {machine['load_1min']} "
            f"before the run; {versions}; {run['rounds']} rounds; {run['command']}")


def as_text(run: Run) -> str:
    """Write everything for a terminal."""
    parts = [about(run)]
    parts += [f'skipped: {line}' for line in run['skipped']]
    parts += [table(head, rows, title=f'\n{title}') for title, head, rows in sections(run)]
    return '\n'.join(parts)


def as_markdown(run: Run, plots: Sequence[str] = ()) -> str:
    """Write everything as Markdown; `plots` are paths of pictures to show."""
    lines = ['<!-- SPDX-License-Identifier: Apache-2.0 -->',
             '<!-- Written by benchmark; do not edit. -->', '# Benchmark', '', about(run), '']
    for line in run['skipped']:
        lines += [f'Not measured: {line}', '']
    for plot in plots:
        lines += [f'![{plot}]({plot})', '']
    for title, head, rows in sections(run):
        lines += [f'## {title}', '', f'| {" | ".join(head)} |',
                  '| --- |' + ' ---: |' * (len(head) - 1)]
        lines += [f'| {" | ".join("" if cell is None else str(cell) for cell in row)} |'
                  for row in rows]
        lines.append('')
    return '\n'.join(lines)


def changes_text(changes: Sequence[Change]) -> str:
    """Write a comparison of two runs as a table."""
    return table(
        ('', 'before ms', 'now ms', 'change %', 'noise %', ''),
        [[change.name, f'{change.before_ms:.3g}', f'{change.now_ms:.3g}',
          f'{100 * change.growth:+.0f}', f'{100 * change.allowed:.0f}',
          'SLOWER' if change.regressed else ''] for change in changes])


TOLERANCE = 0.05  #: Slower by less than this is never called a regression
SIGMAS = 2.0  #: How often the noise of both runs together a difference must be


@dataclass(frozen=True)
class Change:
    """One contender in two runs."""

    name: str
    before_ms: float
    now_ms: float
    allowed: float  #: Growth that is put down to noise, as a fraction

    @property
    def growth(self) -> float:
        """Give how much slower it is now, as a fraction; negative: faster."""
        return self.now_ms / self.before_ms - 1.0

    @property
    def regressed(self) -> bool:
        """Tell whether it is slower beyond noise."""
        return self.growth > self.allowed


def compare(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
            ) -> list[Change]:
    """
    Compare the timings that two runs have in common, by name.

    :param before, now: timings as `Timing.to_dict` gives them
    :returns: in the order of `now`. The noise of a run is what it showed within itself; what is
        allowed is at least `TOLERANCE`.
    """
    old = {row['name']: row for row in before}
    return [Change(row['name'], old[row['name']]['median_ms'], row['median_ms'],
                   max(TOLERANCE, SIGMAS * hypot(row['noise'], old[row['name']]['noise'])))
            for row in now if row['name'] in old]
