# SPDX-License-Identifier: Apache-2.0
"""What back-ends that run graphs share: the state is a tuple of arrays, on the CPU."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from . import RawOutput
from .step_layout import (
    ELAPSED,
    FORECAST_STEP,
    IMAGE,
    NEXT,
    READ_STEP,
    RESULTS,
    step_names,
    StepGraphs,
)

MAP = 3
"""Dimensions of a part of the state that is a map, without the batch."""

ArrayState = tuple[np.ndarray, ...]
"""One float32 array for each part of the layout, ``(B, C, h, w)`` or `channels_last`."""


class GraphBackend(ABC):
    """
    Runs the two graphs of a network; what a library does is in `_run`.

    Parameters
    ----------
    model:
        The graphs, and what belongs to them.
    device, precision:
        What the graphs run on and in.

    """

    name = ''

    channels_last = False
    """Whether the parts of the state are ``(B, h, w, C)``, as a library may compute them."""

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
        self._names = {step: step_names(self._layout, step)
                       for step in (READ_STEP, FORECAST_STEP)}

    def initial_state(self, batch: int) -> ArrayState:
        """Give the zero state."""
        return tuple(np.zeros((batch, *shape), np.float32) for shape in self._parts.values())

    def read_step(self, images: np.ndarray, state: ArrayState, elapsed: np.ndarray | None = None
                  ) -> RawOutput:
        """Read ``(B, H, W, 3)`` uint8 BGR images."""
        return self._step(READ_STEP, {IMAGE: np.ascontiguousarray(images)}, state, elapsed)

    def forecast_step(self, state: ArrayState, elapsed: np.ndarray | None = None) -> RawOutput:
        """Advance without images."""
        return self._step(FORECAST_STEP, {}, state, elapsed)

    def stack(self, states: Sequence[ArrayState]) -> ArrayState:
        """Join the states of several streams into one of a batch."""
        return tuple(np.concatenate(parts) for parts in zip(*states))

    def split(self, state: ArrayState, count: int) -> list[ArrayState]:
        """Give the states of the streams of a batch: views into it."""
        return [tuple(part[index:index + 1] for part in state) for index in range(count)]

    def _step(self, step: str, feeds: dict[str, np.ndarray], state: ArrayState,
              elapsed: np.ndarray | None) -> RawOutput:
        if self._layout.timed:
            feeds[ELAPSED] = (np.ones((len(state[0]), 1), np.float32) if elapsed is None
                              else elapsed.astype(np.float32).reshape(-1, 1))
        feeds.update((name, state[self._place[name]]) for name in self._layout.inputs[step])
        found = self._run(step, feeds, len(state[0]))
        # What a forecast of motion does not change is what the last read gave.
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
        """Run one graph; the arrays it gives are nobody else's."""
