# SPDX-License-Identifier: Apache-2.0
"""
Back-end: PyTorch on CUDA with static buffers and captured graphs, channels last.

Written after https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs; not measured, as
no CUDA device was at hand.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from . import RawOutput
from .torch_backend import raw_output, state_parts, TorchBackend, with_parts
from ...model.network import ForecastDetector, NetworkState, StepOutput

_WARM_UP = 3
"""Runs before a capture, on a stream of their own, as the documentation has it."""


class _Captured:
    """A step for one size of batch: buffers at fixed addresses, and the graph over them."""

    def __init__(self, step: Callable[..., StepOutput], image: Tensor | None,
                 state: NetworkState) -> None:
        self.image = image
        self.state = with_parts(state, [part.clone() for part in state_parts(state)])
        arguments = ([] if image is None else [image]) + [self.state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                step(*arguments)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = step(*arguments)

    def __call__(self, image: Tensor | None, parts: Sequence[Tensor]) -> RawOutput:
        if self.image is not None and image is not None:
            self.image.copy_(image, non_blocking=True)
        for buffer, part in zip(state_parts(self.state), parts):
            buffer.copy_(part)
        self.graph.replay()
        # The next replay writes into the same memory: a state that is a value has its own.
        after = with_parts(self.output.state,
                           [part.clone() for part in state_parts(self.output.state)])
        return raw_output(self.output._replace(state=after))


class CudaGraphBackend(TorchBackend):
    """
    Run a network by replaying captured graphs, one for each step and size of batch.

    Parameters
    ----------
    network, precision:
        As for `TorchBackend`.
    device:
        ``cuda`` or ``cuda:N``.

    """

    def __init__(self, network: ForecastDetector, device: str = 'cuda',
                 precision: str = 'fp32') -> None:
        super().__init__(network, device, precision)
        self.network = self.network.to(memory_format=torch.channels_last)
        self._captured: dict[tuple[str, int], _Captured] = {}

    @torch.inference_mode()
    def read_step(self, images: np.ndarray, state: NetworkState) -> RawOutput:
        """Read ``(B, H, W, 3)`` uint8 BGR images."""
        image = torch.from_numpy(images).pin_memory()
        with torch.cuda.device(self._device):
            key = ('read_step', len(images))
            if key not in self._captured:
                self._captured[key] = _Captured(self.network.read_step, image.to(self._device),
                                                state)
            return self._captured[key](image, state_parts(state))

    @torch.inference_mode()
    def forecast_step(self, state: NetworkState) -> RawOutput:
        """Advance without images."""
        with torch.cuda.device(self._device):
            key = ('forecast_step', len(state.forecast[0]))
            if key not in self._captured:
                self._captured[key] = _Captured(self.network.forecast_step, None, state)
            return self._captured[key](None, state_parts(state))
