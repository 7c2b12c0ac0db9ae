# SPDX-License-Identifier: Apache-2.0
"""A benchmark as tables, its targets, and its comparison with an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from textwrap import fill
from typing import Any

from ..layout import markdown, table

#: Headings, in the order of the report.
GROUPS = {
    'step': 'Steps of the network', 'peer': 'Other detectors, which read every frame',
    'batch': 'Several streams as one batch', 'frame': 'From a message to detections',
    'part': 'Parts of a frame', 'probe': 'The processor itself'}
_HEAD = ('', 'median ms', 'p95 ms', 'noise %', 'MMAC', 'of peak %')

_GRAPH_HEAD = ('node, size, transport, policy', 'CPU ms/frame', 'cores', 'latency p50 ms',
               'p95 ms', 'lost')


def peak(run: Run) -> float | None:
    """Return the multiply-accumulates per second of the fastest probe; None without one."""
    speeds = [row['macs'] / (row['median_ms'] * 1e-3) for row in run['timings']
              if row['group'] == 'probe' and row['macs']]
    return max(speeds, default=None)


def timing_rows(run: Run, group: str) -> list[list[Any]]:
    """
    Return the rows of one table.

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
    """Return the rows of the table of the node's start."""
    return [[row['cache'], f"{row['seconds']:.2f}", f"{row['cpu_seconds']:.2f}",
             f"{row['memory_mb']:.0f}", str(row['starts'])] for row in run.get('start') or ()]


def graph_rows(run: Run) -> list[list[Any]]:
    """Return the rows of the end-to-end table."""
    def number(row: Any, key: str, form: str) -> str | None:
        return None if row.get(key) is None else format(row[key], form)

    return [[f"{row['node']}, {row['size']}, {row['transport']}, {row['policy']}",
             number(row, 'cpu_ms_per_frame', '.2f'), number(row, 'cores', '.2f'),
             number(row, 'latency_p50_ms', '.1f'), number(row, 'latency_p95_ms', '.1f'),
             number(row, 'lost', 'd')] for row in run.get('graph') or ()]


def sections(run: Run) -> list[tuple[str, Sequence[str], list[list[Any]]]]:
    """Return title, head and rows of every table that has rows."""
    found: list[tuple[str, Sequence[str], list[list[Any]]]] = [
        (title, _HEAD, timing_rows(run, group)) for group, title in GROUPS.items()]
    found.append(('End to end', _GRAPH_HEAD, graph_rows(run)))
    found.append(('Start of the node', _START_HEAD, start_rows(run)))
    found.append(('Targets', ('', 'target', 'measured', ''),
                  [verdict.row for verdict in verdicts(run)]))
    return [section for section in found if section[2]]


def about(run: Run) -> str:
    """Return one line with machine, versions and command of the run."""
    versions = ', '.join(f'{name} {value}' for name, value in run['versions'].items() if value)
    machine = run['machine']
    # Documents of earlier versions do not name the instructions.
    instructions = machine.get('instructions')
    processor = f"{machine['processor']} ({instructions})" if instructions else \
        machine['processor']
    return (f"{processor}, {machine['cores']} cores, load {machine['load_1min']} "
            f"before the run; {versions}; {run['rounds']} rounds; {run['command']}")


def benchmark_text(run: Run) -> str:
    """Return all tables for a terminal."""
    parts = [about(run)]
    parts += [f'skipped: {line}' for line in run['skipped']]
    parts += [table(head, rows, title=f'\n{title}') for title, head, rows in sections(run)]
    return '\n'.join(parts)


def benchmark_markdown(run: Run, plots: Sequence[str] = ()) -> str:
    """Return all tables as Markdown; `plots` are paths of pictures to show."""
    lines = ['<!-- SPDX-License-Identifier: Apache-2.0 -->',
             '<!-- Written by benchmark; do not edit. -->', '# Benchmark', '',
             fill(about(run), 99, break_long_words=False, break_on_hyphens=False), '']
    for line in run['skipped']:
        lines += [f'Not measured: {line}', '']
    for plot in plots:
        lines += [f'![{plot}]({plot})', '']
    for title, head, rows in sections(run):
        lines += [f'## {title}', '', markdown([head, *rows], right=True), '']
    return '\n'.join(lines)


def changes_text(changes: Sequence[Change]) -> str:
    """Return a comparison of two runs as a table."""
    return table(
        ('', 'before', 'now', '', 'change %', 'noise %', ''),
        [[change.name, f'{change.before:.3g}', f'{change.now:.3g}', change.unit,
          f'{100 * change.growth:+.0f}', f'{100 * change.allowed:.0f}',
          change.word if change.regressed else ''] for change in changes])


TOLERANCE = 0.05  #: Smallest growth that can be a regression
SIGMAS = 2.0  #: Smallest growth of a regression, as a multiple of the noise of both runs

#: Figures of the node's start: name, growth that counts as noise, unit, and word for a larger one.
#: Few starts are measured, so their own noise is not known well.
START_FIGURES = {'seconds': ('seconds to active', 0.25, 's', 'SLOWER'),
                 'cpu_seconds': ('CPU seconds to active', 0.25, 's', 'SLOWER'),
                 'memory_mb': ('resident memory', 0.05, 'MB', 'LARGER')}


@dataclass(frozen=True)
class Change:
    """One figure in two runs."""

    name: str
    before: float
    now: float
    allowed: float  #: Growth that counts as noise, as a fraction
    unit: str = 'ms'
    word: str = 'SLOWER'  #: Verdict on a larger growth

    @property
    def growth(self) -> float:
        """Return the growth as a fraction; negative if the figure is smaller now."""
        return self.now / self.before - 1.0

    @property
    def regressed(self) -> bool:
        """Return whether the growth is more than noise."""
        return self.growth > self.allowed


def compare_runs(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
                 ) -> list[Change]:
    """
    Compare the timings that two runs share, by name.

    :param before, now: rows with the fields of `Timing`
    :returns: in the order of `now`; the allowed growth is at least `TOLERANCE`
    """
    old = {row['name']: row for row in before}
    return [Change(row['name'], old[row['name']]['median_ms'], row['median_ms'],
                   max(TOLERANCE, SIGMAS * hypot(row['noise'], old[row['name']]['noise'])))
            for row in now if row['name'] in old]


def compare_starts(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
                   ) -> list[Change]:
    """Compare the results of `measure_start` of two runs, by their caches."""
    old = {row['cache']: row for row in before}
    return [Change(f"{name}, {row['cache']} caches", old[row['cache']][key], row[key], allowed,
                   unit, word)
            for row in now if row['cache'] in old
            for key, (name, allowed, unit, word) in START_FIGURES.items()]


Run = Mapping[str, Any]  #: The content of a benchmark's JSON file


@dataclass(frozen=True)
class Target:
    """One figure and its limit."""

    name: str
    unit: str
    limit: float
    at_least: bool  #: Whether the figure must be at least the limit, or at most
    measure: Callable[[Run], float | None]  #: Returns None if the run lacks a measurement


@dataclass(frozen=True)
class Verdict:
    """A target and its figure in a run."""

    target: Target
    measured: float | None

    @property
    def met(self) -> bool | None:
        """Return whether the target is met; None if it was not measured."""
        if self.measured is None:
            return None
        if self.target.at_least:
            return self.measured >= self.target.limit
        return self.measured <= self.target.limit

    @property
    def row(self) -> list[Any]:
        """Return name, target, measured value and verdict."""
        sign = '>=' if self.target.at_least else '<='
        unit = f' {self.target.unit}' if self.target.unit else ''
        said = {True: 'met', False: 'MISSED', None: 'not measured'}[self.met]
        value = None if self.measured is None else f'{self.measured:.2f}{unit}'
        return [self.target.name, f'{sign} {self.target.limit:g}{unit}', value, said]


def _ms(run: Run, name: str) -> float | None:
    return next((row['median_ms'] for row in run['timings'] if row['name'] == name), None)


def own_build(run: Run) -> str:
    """Return the label of the first build."""
    return run.get('default_build') or f"{run['default_backend']} fp32"


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above / below


def _default(run: Run, name: str, end: str = '') -> float | None:
    return _ms(run, f'{name} {own_build(run)}{end}')


def _frame_ms(run: Run) -> float | None:
    """Return the mean time of a frame at the demo clip's read ratio."""
    read, forecast = _default(run, 'read step'), _default(run, 'forecast step')
    share = run.get('read_ratio')
    if read is None or forecast is None or share is None:
        return None
    return share * read + (1.0 - share) * forecast


def _against(peer: str) -> Callable[[Run], float | None]:
    return lambda run: _ratio(_ms(run, f"{peer} {run['default_backend']}"), _frame_ms(run))


def _yolo(side: int) -> Callable[[Run], float | None]:
    def measure(run: Run) -> float | None:
        found = (row['median_ms'] for row in run['timings']
                 if row['name'].startswith('yolo11n')
                 and row['name'].endswith(f" {side} {run['default_backend']}"))
        return _ratio(next(found, None), _frame_ms(run))
    return measure


def _over_eager(run: Run) -> float | None:
    eager = _ms(run, 'read step torch fp32')
    others = [value for value in (_ms(run, f'read step {name} fp32')
                                  for name in ('onnxruntime', 'openvino')) if value is not None]
    return _ratio(eager, min(others)) if others else None


def _precision(precision: str) -> Callable[[Run], float | None]:
    return lambda run: _ratio(_ms(run, 'read step openvino fp32'),
                              _ms(run, f'read step openvino {precision}'))


def _around(run: Run) -> float | None:
    before, behind = _ms(run, 'preprocess 720p'), _ms(run, 'post-process')
    return None if before is None or behind is None else before + behind


def _batch(step: str) -> Callable[[Run], float | None]:
    def measure(run: Run) -> float | None:
        one, four = _default(run, step), _default(run, step, ' x4')
        return _ratio(four, None if one is None else 4.0 * one)
    return measure


def _node(run: Run, policy: str, key: str = 'cpu_ms_per_frame', transport: str = 'raw',
          node: str = 'detector') -> float | None:
    """Return a figure of a node at 1080p."""
    wanted = (node, '1080p', transport, policy)
    return next((row[key] for row in run.get('graph') or () if wanted == (
        row['node'], row['size'], row['transport'], row['policy'])), None)


def _read_over_bare(run: Run) -> float | None:
    bare, step = _node(run, 'none', node='bare'), _default(run, 'read step')
    both = None if bare is None or step is None else bare + step
    return _ratio(_node(run, 'always_read'), both)


def _forecast_over_bare(run: Run) -> float | None:
    node, bare = _node(run, 'forecast'), _node(run, 'none', node='bare')
    step = _default(run, 'forecast step')
    return None if node is None or bare is None or step is None else node - bare - step


def _start(cache: str, key: str) -> Callable[[Run], float | None]:
    """Return a figure of the node's start, with empty (`cold`) or full (`warm`) caches."""
    return lambda run: next(
        (row[key] for row in run.get('start') or () if row['cache'] == cache), None)


TARGETS = (
    Target('read step / forecast step', 'x', 6.0, True,
           lambda run: _ratio(_default(run, 'read step'), _default(run, 'forecast step'))),
    Target('read step / plain SSDLite', 'x', 1.15, False,
           lambda run: _ratio(_default(run, 'read step'), _default(run, 'plain SSDLite'))),
    Target('ssdlite320_mobilenet_v3_large / frame of the demo clip', 'x', 1.4, True,
           _against('ssdlite320_mobilenet_v3_large')),
    Target('YOLO11n at 320 / frame of the demo clip', 'x', 2.0, True, _yolo(320)),
    Target('YOLO11n at 640 / frame of the demo clip', 'x', 8.0, True, _yolo(640)),
    Target('eager PyTorch / best runtime, read step', 'x', 1.9, True, _over_eager),
    Target('fp32 / bf16, read step in OpenVINO', 'x', 1.5, True, _precision('bf16')),
    Target('fp32 / int8, read step in OpenVINO', 'x', 1.5, True, _precision('int8')),
    Target('pre- and post-processing, 720p', 'ms', 1.0, False, _around),
    Target('batch of four / four single read steps', 'x', 0.8, False, _batch('read step')),
    Target('batch of four / four single forecast steps', 'x', 0.8, False,
           _batch('forecast step')),
    Target('node at 1080p30 raw, alternating', 'cores', 0.5, False,
           lambda run: _node(run, 'alternate(1)', 'cores')),
    Target('frames lost after start-up at 1080p30 raw, alternating', '', 0.0, False,
           lambda run: _node(run, 'alternate(1)', 'lost')),
    Target('node / (bare subscriber + read step), 1080p raw, all read', 'x', 1.1, False,
           _read_over_bare),
    Target('node - (bare subscriber + forecast step), 1080p raw, forecast', 'ms', 1.0, False,
           _forecast_over_bare),
    Target('forecast frame / read frame, 1080p compressed, CPU', 'x', 0.1, False,
           lambda run: _ratio(_node(run, 'forecast', transport='compressed'),
                              _node(run, 'always_read', transport='compressed'))),
    Target('node from start to active, full caches', 's', 2.0, False, _start('warm', 'seconds')),
    Target('node from start to active, empty caches', 's', 4.0, False, _start('cold', 'seconds')),
    Target('resident memory of the active node', 'MB', 480.0, False, _start('warm', 'memory_mb')),
)


def verdicts(run: Run) -> list[Verdict]:
    """Compare a run with all targets."""
    return [Verdict(target, target.measure(run)) for target in TARGETS]
