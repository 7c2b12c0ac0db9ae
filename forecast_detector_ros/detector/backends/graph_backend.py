# SPDX-License-Identifier: Apache-2.0
"""
The common part of back-ends that run graphs.

The inputs and outputs of a graph include the named parts of the state that its step needs and
changes. The first axis of each is the batch, of any size; all other sizes are fixed. The state is
a tuple of arrays in CPU memory.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import RawOutput

IMAGE = 'image'  #: Input of the read step: ``(B, H, W, 3)`` uint8 BGR

#: Outputs of both steps, fields of `RawOutput`.
RESULTS = ('logits', 'offsets', 'confidence')

#: Input of both steps for a forecast of motion: ``(B, 1)`` float32, time since the last frame.
ELAPSED = 'elapsed'

#: Parts of the state for a forecast of motion, and the results of the last read they repeat.
HELD = {'read_logits': 'logits', 'read_offsets': 'offsets'}

NEXT = 'next_'  #: Prefix of the output with the next value of a part of the state

READ_STEP, FORECAST_STEP = 'read_step', 'forecast_step'
STEPS = (READ_STEP, FORECAST_STEP)

OPSET = 17  #: ONNX opset of 2022; onnxruntime 1.13, OpenVINO 2023.0 and TensorRT 8.6 read it


class StateLayout(NamedTuple):
    """The parts of a network's state, and the parts that each step reads and changes."""

    #: Shape of each part, in the order of the state; (channels, height, width) for maps.
    shapes: dict[str, tuple[int, ...]]
    inputs: dict[str, tuple[str, ...]]  #: Parts that each step of `STEPS` reads
    outputs: dict[str, tuple[str, ...]]  #: Parts that each step changes; the others are kept

    #: Outputs of each step among `RESULTS`; the others come from the state.
    results: dict[str, tuple[str, ...]]
    held: Mapping[str, str] = {}  #: Parts whose next value is a result of a read, and that result
    timed: bool = False  #: Whether the steps take `ELAPSED`

    def values(self) -> dict[str, Any]:
        """Return plain values for a record."""
        lists = {key: {name: list(value) for name, value in getattr(self, key).items()}
                 for key in ('shapes', 'inputs', 'outputs', 'results')}
        return {**lists, 'held': dict(self.held), 'timed': self.timed}

    @classmethod
    def from_values(cls, values: Any) -> 'StateLayout':
        """Build from the result of `values`; raises ValueError for anything else."""
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
            raise ValueError(f'not a layout of a state: {error!r}') from None
        parts = {*layout.held, *(name for step in STEPS for name in (*inputs[step],
                                                                     *outputs[step]))}
        if not parts <= {*shapes} or not {*layout.held.values(), *results[READ_STEP],
                                          *results[FORECAST_STEP]} <= {*RESULTS}:
            raise ValueError('the layout of a state names unknown parts')
        return layout


@dataclass(frozen=True)
class StepGraphs:
    """The graphs of a network's two steps, with the data that a back-end needs."""

    graphs: Mapping[str, bytes]  #: ONNX with weights, for each of `STEPS`
    layout: StateLayout
    anchors: np.ndarray  #: ``(A, 4)`` float32, xyxy in pixels of the network's input
    classes: int  #: Number of classes without background


def step_names(layout: StateLayout, step: str) -> tuple[list[str], list[str]]:
    """Return the names of a graph's inputs and outputs in their order."""
    inputs = [*([IMAGE] if step == READ_STEP else []), *([ELAPSED] if layout.timed else []),
              *layout.inputs[step]]
    return inputs, [*layout.results[step], *(NEXT + name for name in layout.outputs[step])]


MAP = 3  #: Dimensions of a map without the batch

#: A float32 array for each part of the layout, ``(B, C, h, w)`` or ``(B, h, w, C)``.
ArrayState = tuple[np.ndarray, ...]


class GraphBackend(ABC):
    """
    Runs the two graphs of a network; a subclass for a library defines `_run`.

    :param model: the graphs
    :param device, precision: names for logs and results
    """

    name = ''

    #: Whether maps of the state are ``(B, h, w, C)``, as a library may need.
    channels_last = False

    def __init__(self, model: StepGraphs, device: str, precision: str) -> None:
        self.device = device
        self.precision = precision
        self.anchors = model.anchors
        self._layout = model.layout
        self._place = {name: place for place, name in enumerate(self._layout.shapes)}
        self._parts: dict[str, tuple[int, ...]] = {
            name: (*shape[1:], shape[0]) if self.channels_last and len(shape) == MAP else shape
            for name, shape in self._layout.shapes.items()}
        anchors = len(self.anchors)
        self._shapes: dict[str, tuple[int, ...]] = {
            'logits': (anchors, 1 + model.classes), 'offsets': (anchors, 4),
            'confidence': (), **{NEXT + name: shape for name, shape in self._parts.items()}}
        self._names = {step: step_names(self._layout, step) for step in STEPS}

    def initial_state(self, batch: int) -> ArrayState:
        """Return the zero state of `batch` streams."""
        return tuple(np.zeros((batch, *shape), np.float32) for shape in self._parts.values())

    def read_step(self, images: np.ndarray, state: ArrayState, elapsed: np.ndarray | None = None
                  ) -> RawOutput:
        """Read ``(B, H, W, 3)`` uint8 BGR images."""
        return self._step(READ_STEP, {IMAGE: np.ascontiguousarray(images)}, state, elapsed)

    def forecast_step(self, state: ArrayState, elapsed: np.ndarray | None = None) -> RawOutput:
        """Forecast the next frames."""
        return self._step(FORECAST_STEP, {}, state, elapsed)

    def stack(self, states: Sequence[ArrayState]) -> ArrayState:
        """Join the states of several streams into one state of a batch."""
        return tuple(np.concatenate(parts) for parts in zip(*states))

    def split(self, state: ArrayState, count: int) -> list[ArrayState]:
        """Return the states of the streams of a batch, as views."""
        return [tuple(part[index:index + 1] for part in state) for index in range(count)]

    def _step(self, step: str, feeds: dict[str, np.ndarray], state: ArrayState,
              elapsed: np.ndarray | None) -> RawOutput:
        if self._layout.timed:
            feeds[ELAPSED] = (np.ones((len(state[0]), 1), np.float32) if elapsed is None
                              else elapsed.astype(np.float32).reshape(-1, 1))
        feeds.update((name, state[self._place[name]]) for name in self._layout.inputs[step])
        found = self._run(step, feeds, len(state[0]))
        # A forecast of motion keeps some results of the last read.
        logits, offsets, confidence = (
            found[name] if name in found else state[self._place[f'read_{name}']]
            for name in RESULTS)
        after = list(state)
        if step == READ_STEP:
            for part, name in self._layout.held.items():
                after[self._place[part]] = found[name]
        for name in self._layout.outputs[step]:
            after[self._place[name]] = found[NEXT + name]
        return RawOutput(logits, offsets, confidence, tuple(after))

    @abstractmethod
    def _run(self, step: str, feeds: dict[str, np.ndarray], batch: int
             ) -> dict[str, np.ndarray]:
        """Run one graph; the caller owns the returned arrays."""
