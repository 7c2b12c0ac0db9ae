# SPDX-License-Identifier: Apache-2.0
"""What the detector is meant to reach, beside what a run measured."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Run = Mapping[str, Any]  #: A benchmark as its JSON file has it


@dataclass(frozen=True)
class Target:
    """One figure that is to be reached."""

    name: str
    unit: str
    limit: float
    at_least: bool  #: Whether the figure must be at least the limit, or at most
    measure: Callable[[Run], float | None]  #: None where the run has not what is needed


@dataclass(frozen=True)
class Verdict:
    """A target and what a run says about it."""

    target: Target
    measured: float | None

    @property
    def met(self) -> bool | None:
        """Tell whether it is reached; None where it was not measured."""
        if self.measured is None:
            return None
        if self.target.at_least:
            return self.measured >= self.target.limit
        return self.measured <= self.target.limit

    @property
    def row(self) -> list[Any]:
        """Give name, target, measured value and verdict."""
        sign = '>=' if self.target.at_least else '<='
        unit = f' {self.target.unit}' if self.target.unit else ''
        said = {True: 'met', False: 'MISSED', None: 'not measured'}[self.met]
        value = None if self.measured is None else f'{self.measured:.2f}{unit}'
        return [self.target.name, f'{sign} {self.target.limit:g}{unit}', value, said]


def _ms(run: Run, name: str) -> float | None:
    for row in run['timings']:
        if row['name'] == name:
            return row['median_ms']
    return None


def _own(run: Run) -> str:
    """Give the label of the default build."""
    return f"{run['default_backend']} fp32"


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above / below


def _default(run: Run, name: str) -> float | None:
    return _ms(run, f'{name} {_own(run)}')


def _frame_ms(run: Run) -> float | None:
    """Give the mean cost of a frame at the demo clip's read ratio."""
    read, forecast = _default(run, 'read step'), _default(run, 'forecast step')
    share = run.get('read_ratio')
    if read is None or forecast is None or share is None:
        return None
    return share * read + (1.0 - share) * forecast


def _against(peer: str) -> Callable[[Run], float | None]:
    def measure(run: Run) -> float | None:
        return _ratio(_ms(run, f"{peer} {run['default_backend']}"), _frame_ms(run))
    return measure


def _yolo(side: int) -> Callable[[Run], float | None]:
    def measure(run: Run) -> float | None:
        names = [row['name'] for row in run['timings']
                 if row['name'].startswith('yolo11n')
                 and row['name'].endswith(f" {side} {run['default_backend']}")]
        return _ratio(_ms(run, names[0]), _frame_ms(run)) if names else None
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
    parts = [_ms(run, name) for name in ('preprocess 720p', 'post-process')]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == 2 else None


def _batch(step: str) -> Callable[[Run], float | None]:
    def measure(run: Run) -> float | None:
        four, one = _default(run, step), None
        for row in run['timings']:
            if row['name'] == f'{step} {_own(run)} x4':
                one = row['median_ms'] / 4.0
        return _ratio(one, four)
    return measure


def _graph(run: Run, node: str, size: str, transport: str, policy: str, key: str
           ) -> float | None:
    for row in run.get('graph') or ():
        if (row['node'], row['size'], row['transport'], row['policy']) == (
                node, size, transport, policy):
            return row[key]
    return None


def _node_cpu(run: Run, policy: str, size: str = '1080p', transport: str = 'raw'
              ) -> float | None:
    return _graph(run, 'detector', size, transport, policy, 'cpu_ms_per_frame')


def _bare_cpu(run: Run) -> float | None:
    return _graph(run, 'bare', '1080p', 'raw', 'none', 'cpu_ms_per_frame')


def _cores(run: Run) -> float | None:
    return _graph(run, 'detector', '1080p', 'raw', 'alternate(1)', 'cores')


def _lost(run: Run) -> float | None:
    return _graph(run, 'detector', '1080p', 'raw', 'alternate(1)', 'lost')


def _read_over_bare(run: Run) -> float | None:
    bare, step = _bare_cpu(run), _default(run, 'read step')
    both = None if bare is None or step is None else bare + step
    return _ratio(_node_cpu(run, 'always_read'), both)


def _forecast_over_bare(run: Run) -> float | None:
    node, bare, step = _node_cpu(run, 'forecast'), _bare_cpu(run), _default(run, 'forecast step')
    return None if node is None or bare is None or step is None else node - bare - step


def _compressed(run: Run) -> float | None:
    return _ratio(_node_cpu(run, 'forecast', transport='compressed'),
                  _node_cpu(run, 'always_read', transport='compressed'))


def _start(cache: str, key: str) -> Callable[[Run], float | None]:
    """Give a figure of the node's start, with empty (`cold`) or full (`warm`) caches."""
    def measure(run: Run) -> float | None:
        return next((row[key] for row in run.get('start') or () if row['cache'] == cache), None)
    return measure


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
    Target('node at 1080p30 raw, alternating', 'cores', 0.5, False, _cores),
    Target('frames lost after start-up at 1080p30 raw, alternating', '', 0.0, False, _lost),
    Target('node / (bare subscriber + read step), 1080p raw, all read', 'x', 1.1, False,
           _read_over_bare),
    Target('node - (bare subscriber + forecast step), 1080p raw, forecast', 'ms', 1.0, False,
           _forecast_over_bare),
    Target('forecast frame / read frame, 1080p compressed, CPU', 'x', 0.1, False, _compressed),
    Target('node from start to active, full caches', 's', 2.0, False, _start('warm', 'seconds')),
    Target('node from start to active, empty caches', 's', 4.0, False, _start('cold', 'seconds')),
    Target('resident memory of the active node', 'MB', 480.0, False, _start('warm', 'memory_mb')),
)


def verdicts(run: Run) -> list[Verdict]:
    """Hold a run against all targets."""
    return [Verdict(target, target.measure(run)) for target in TARGETS]
