# SPDX-License-Identifier: Apache-2.0
"""Back-end: PyTorch's compiler, torch.compile; on CUDA devices see `cuda_graphs`."""

from collections.abc import Callable

import numpy as np
import torch

from . import RawOutput
from .torch_backend import raw_output, TorchBackend
from ..checkpoint import RuntimeConfigError
from ...model.network import ForecastDetector, NetworkState, StepOutput


class CompileError(RuntimeConfigError):
    """A step that torch.compile cannot compile here; one line."""

    @classmethod
    def of(cls, error: Exception) -> 'CompileError':
        """Say in one line what the compiler said."""
        reason = ' '.join(str(error).split())[:200]
        return cls(f'backend torch_compile cannot compile here: {reason}')


def compiled(step: Callable[..., StepOutput]) -> Callable[..., StepOutput]:
    """Give a step that is compiled when it first runs, anew for every size of batch."""
    return torch.compile(step, dynamic=False)


class TorchCompileBackend(TorchBackend):
    """
    Run a network compiled by torch.compile, anew for every size of batch.

    The first step of either kind takes from half a minute to minutes.

    Parameters
    ----------
    network, device, precision:
        As for `TorchBackend`.

    """

    name = 'torch_compile'

    def __init__(self, network: ForecastDetector, device: str = 'cpu',
                 precision: str = 'fp32') -> None:
        super().__init__(network, device, precision)
        self._compiled_read = compiled(self.network.read_step)
        self._compiled_forecast = compiled(self.network.forecast_step)

    @torch.no_grad()
    def read_step(self, images: np.ndarray, state: NetworkState,
                  elapsed: np.ndarray | None = None) -> RawOutput:
        """
        Read ``(B, H, W, 3)`` uint8 BGR images.

        Raises
        ------
        CompileError
            If this step cannot be compiled; a C++ compiler is needed on the CPU.

        """
        return _run(self._compiled_read, self.to_device(images), state, self.time(elapsed))

    @torch.no_grad()
    def forecast_step(self, state: NetworkState, elapsed: np.ndarray | None = None) -> RawOutput:
        """Advance without images; raises CompileError."""
        return _run(self._compiled_forecast, state, self.time(elapsed))


def _run(step: Callable[..., StepOutput], *arguments: object) -> RawOutput:
    try:
        return raw_output(step(*arguments))
    except torch._dynamo.exc.TorchDynamoException as error:
        raise CompileError.of(error) from None
