# SPDX-License-Identifier: Apache-2.0
"""Back-end: PyTorch's compiler, torch.compile."""

from collections.abc import Callable

import numpy as np
import torch

from . import RawOutput
from .torch_backend import raw_output, TorchBackend
from ..checkpoint import RuntimeConfigError
from ...model.network import ForecastDetector, NetworkState, StepOutput


class CompileError(RuntimeConfigError):
    """A step that torch.compile cannot compile here; one line."""


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
        self._compiled_read = torch.compile(self.network.read_step, dynamic=False)
        self._compiled_forecast = torch.compile(self.network.forecast_step, dynamic=False)

    @torch.no_grad()
    def read_step(self, images: np.ndarray, state: NetworkState) -> RawOutput:
        """
        Read ``(B, H, W, 3)`` uint8 BGR images.

        Raises
        ------
        CompileError
            If this step cannot be compiled; a C++ compiler is needed on the CPU.

        """
        return _run(self._compiled_read, self.to_device(images), state)

    @torch.no_grad()
    def forecast_step(self, state: NetworkState) -> RawOutput:
        """Advance without images; raises CompileError."""
        return _run(self._compiled_forecast, state)


def _run(step: Callable[..., StepOutput], *arguments: object) -> RawOutput:
    try:
        return raw_output(step(*arguments))
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = ' '.join(str(error).split())[:200]
        raise CompileError(f'backend torch_compile cannot compile here: {reason}') from None
