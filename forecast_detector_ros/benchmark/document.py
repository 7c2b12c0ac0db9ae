# SPDX-License-Identifier: Apache-2.0
"""A benchmark as tables, of text or of Markdown."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .compare import Change
from .goals import Run, verdicts
from ..layout import table

GROUPS = {
    'step': 'Steps of the network', 'peer': 'Rivals, which read every frame',
    'batch': 'Several streams as one batch', 'frame': 'From a message to detections',
    'part': 'Parts of a frame', 'probe': 'The processor itself'}
"""Headings, in the order of the report."""

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
