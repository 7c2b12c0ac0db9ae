# SPDX-License-Identifier: Apache-2.0
"""Back-ends: the two steps of inference behind one interface, with explicit state."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class RawOutput(NamedTuple):
    """The output of a back-end for a batch of frames, in CPU memory."""

    logits: np.ndarray  #: ``(B, A, 1 + classes)`` float32, background first
    offsets: np.ndarray  #: ``(B, A, 4)`` float32

    #: ``(B,)`` float32: the scheduler's score for forecasting the next frame, in [0, 1].
    confidence: np.ndarray
    state: Any  #: State for the next step, of a type of the back-end


class Backend(Protocol):
    """
    Runs `read_step` and `forecast_step` of one network.

    States are immutable: a step changes neither its argument nor a state that it returned before.
    """

    name: str
    device: str
    precision: str
    anchors: np.ndarray  #: ``(A, 4)`` float32, xyxy in pixels of the network's input

    def initial_state(self, batch: int) -> Any:
        """Return the state of `batch` streams before their first frame."""
        ...

    def read_step(self, images: np.ndarray, state: Any, elapsed: np.ndarray | None = None
                  ) -> RawOutput:
        """
        Read ``(B, H, W, 3)`` uint8 BGR images of the network's input size.

        `elapsed` is the time since the previous frame, ``(B,)`` float32 in any unit; None for 1.
        """
        ...

    def forecast_step(self, state: Any, elapsed: np.ndarray | None = None) -> RawOutput:
        """Forecast the next frames; `elapsed` as in `read_step`."""
        ...

    def stack(self, states: Sequence[Any]) -> Any:
        """Join the states of several streams into one state of a batch, in the same order."""
        ...

    def split(self, state: Any, count: int) -> list[Any]:
        """Split the state of a batch into the states of its `count` streams."""
        ...
