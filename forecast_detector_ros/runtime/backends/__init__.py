# SPDX-License-Identifier: Apache-2.0
"""Back-ends: the two steps of inference behind one interface, with explicit state."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor


class RawOutput(NamedTuple):
    """What a back-end gives for a batch of frames."""

    logits: Tensor
    """``(B, A, 1 + classes)`` float32, background first."""

    offsets: Tensor
    """``(B, A, 4)`` float32."""

    confidence: np.ndarray
    """``(B,)`` float32: the scheduler's score for forecasting the next frame, in [0, 1]."""

    state: Any
    """State for the next step, of the back-end's own type."""


class Backend(Protocol):
    """Runs `read_step` and `forecast_step` of one network."""

    name: str
    device: str
    precision: str
    anchors: Tensor
    """``(A, 4)`` float32 on the device of `RawOutput.logits`."""

    def initial_state(self, batch: int) -> Any:
        """Give the state before the first frame of so many streams."""
        ...

    def read_step(self, images: np.ndarray, state: Any) -> RawOutput:
        """Read ``(B, H, W, 3)`` uint8 BGR images of the network's input size."""
        ...

    def forecast_step(self, state: Any) -> RawOutput:
        """Advance without images."""
        ...
