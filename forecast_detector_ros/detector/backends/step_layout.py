# SPDX-License-Identifier: Apache-2.0
"""
What a back-end must know of the graphs of the two steps to run them: names, shapes, anchors.

A graph takes and gives the parts of the state that its step needs and changes, each under a name.
Batch is the first axis of everything and stays open; all other sizes are fixed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

IMAGE = 'image'
"""Input of the read step: ``(B, H, W, 3)`` uint8 BGR."""

RESULTS = ('logits', 'offsets', 'confidence')
"""Outputs of both steps, as the fields of `RawOutput`."""

ELAPSED = 'elapsed'
"""Input of both steps where motion is forecast: ``(B, 1)`` float32, time since the last frame."""

HELD = {'read_logits': 'logits', 'read_offsets': 'offsets'}
"""Parts of the state that a forecast of motion starts from, each a result of the last read."""

NEXT = 'next_'
"""Prefix of an output that is the next value of a part of the state."""

READ_STEP, FORECAST_STEP = 'read_step', 'forecast_step'
STEPS = (READ_STEP, FORECAST_STEP)

OPSET = 17
"""Of ONNX, from 2022; onnxruntime 1.13, OpenVINO 2023.0 and TensorRT 8.6 read it."""


class StateLayout(NamedTuple):
    """Which parts a network's state has, and which of them each step takes and gives."""

    shapes: dict[str, tuple[int, ...]]
    """Of every part, in the order of the state's arrays; (channels, height, width) of maps."""

    inputs: dict[str, tuple[str, ...]]
    """Parts that a step of `STEPS` needs."""

    outputs: dict[str, tuple[str, ...]]
    """Parts that it changes; the others stay as they are."""

    results: dict[str, tuple[str, ...]]
    """What it gives of `RESULTS`; the rest is what the state holds."""

    held: Mapping[str, str] = {}
    """Parts whose next value is a result of a read, and which."""

    timed: bool = False
    """Whether the steps take `ELAPSED`."""

    def values(self) -> dict[str, Any]:
        """Give plain values for a record."""
        lists = {key: {name: list(value) for name, value in getattr(self, key).items()}
                 for key in ('shapes', 'inputs', 'outputs', 'results')}
        return {**lists, 'held': dict(self.held), 'timed': self.timed}

    @classmethod
    def from_values(cls, values: Any) -> 'StateLayout':
        """Build from what `values` gave; raises ValueError for anything else."""
        try:
            shapes = {str(name): tuple(int(side) for side in shape)
                      for name, shape in values['shapes'].items()}
            inputs, outputs, results = (
                {step: tuple(map(str, values[key][step])) for step in STEPS}
                for key in ('inputs', 'outputs', 'results'))
            layout = cls(shapes, inputs, outputs, results,
                         {str(part): str(name) for part, name in values['held'].items()},
                         values['timed'] is True)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f'no layout of a state: {error!r}') from None
        parts = {*layout.held, *(name for step in STEPS for name in (*inputs[step],
                                                                     *outputs[step]))}
        if not parts <= {*shapes} or not {*layout.held.values(), *results[READ_STEP],
                                          *results[FORECAST_STEP]} <= {*RESULTS}:
            raise ValueError('a layout that names parts which it does not have')
        return layout


@dataclass(frozen=True)
class StepGraphs:
    """The graphs of a network's two steps, and all that a back-end needs beside them."""

    graphs: Mapping[str, bytes]
    """ONNX with weights inside, for each of `STEPS`."""

    layout: StateLayout
    anchors: np.ndarray
    """``(A, 4)`` float32, xyxy in pixels of the network's input."""

    classes: int
    """Without background."""


def step_names(layout: StateLayout, step: str) -> tuple[list[str], list[str]]:
    """Give the names of a graph's inputs and outputs, in their order."""
    inputs = [*([IMAGE] if step == READ_STEP else []), *([ELAPSED] if layout.timed else []),
              *layout.inputs[step]]
    return inputs, [*layout.results[step], *(NEXT + name for name in layout.outputs[step])]
