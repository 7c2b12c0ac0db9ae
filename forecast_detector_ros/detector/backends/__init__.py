# SPDX-License-Identifier: Apache-2.0
"""Back-ends: the two steps of inference behind one interface, with explicit state."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class RawOutput(NamedTuple):
    """The output of a back-end for a batch of frames, in the machine's own memory."""

    logits: np.ndarray  #: ``(B, A, 1 + classes)`` float32, background first
    offsets: np.ndarray  #: ``(B, A, 4)`` float32

    #: ``(B,)`` float32: the scheduler's score for forecasting the next frame, in [0, 1].
    confidence: np.ndarray
    state: Any  #: State for the next step, of the back-end's own type


class Backend(Protocol):
    """
    Runs `read_step` and `forecast_step` of one network.

    A state is a value: no step changes the one it is given, nor later one that it returned.
    """

    name: str
    device: str
    precision: str
    anchors: np.ndarray  #: ``(A, 4)`` float32, corners in pixels of the network's input

    def initial_state(self, batch: int) -> Any:
        """Give the state before the first frame of so many streams."""
        ...

    def read_step(self, images: np.ndarray, state: Any, elapsed: np.ndarray | None = None
                  ) -> RawOutput:
        """
        Read ``(B, H, W, 3)`` uint8 BGR images of the network's input size.

        `elapsed` is the time since the frame before, ``(B,)`` float32 in any unit; None for 1.
        """
        ...

    def forecast_step(self, state: Any, elapsed: np.ndarray | None = None) -> RawOutput:
        """Advance without images."""
        ...

    def stack(self, states: Sequence[Any]) -> Any:
        """Join the states of several streams into one of a batch, in the order given."""
        ...

    def split(self, state: Any, count: int) -> list[Any]:
        """Give the states of the `count` streams of a batch, each of a batch of one."""
        ...
