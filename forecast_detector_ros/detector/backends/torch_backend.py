# SPDX-License-Identifier: Apache-2.0
"""Back-end: eager PyTorch, on the CPU or a CUDA device."""
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import RawOutput
from ..checkpoint import RuntimeConfigError
from ..host import AUTO, choose_precision, cuda_absence, DeviceError
from ...errors import one_line
from ...model.network import ForecastDetector, NetworkState, StepOutput
from ...model.scheduler import confidence

TF32 = 'tf32'  #: Convolutions with a mantissa of 10 bits, on CUDA devices from Ampere on

#: Type of weights and activations for each precision.
PRECISIONS = {'fp32': torch.float32, TF32: torch.float32, 'bf16': torch.bfloat16,
              'fp16': torch.float16}


def resolve_device(name: str) -> torch.device:
    """
    Return the existing device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    :raises DeviceError: if the name is invalid or there is no such device
    """
    if name == AUTO:
        return torch.device('cpu' if cuda_absence() else 'cuda')
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device('meta')
    if device.type not in ('cpu', 'cuda'):
        raise DeviceError(f'device is {name!r}, must be auto, cpu, cuda or cuda:N')
    if device.type == 'cuda':
        if not torch.cuda.is_available():
            raise DeviceError(f'device is {name!r}, but PyTorch finds no CUDA device here; use '
                              'device cpu')
        if (device.index or 0) >= torch.cuda.device_count():
            raise DeviceError(f'device is {name!r}, but there are only '
                              f'{torch.cuda.device_count()} CUDA devices')
    return device


def arithmetic(device: torch.device, precision: str, search: bool = False
               ) -> AbstractContextManager[None]:
    """
    Return a context in which a CUDA device computes in exactly this precision.

    By default, PyTorch runs convolutions of float32 in TF32 if the device can:
    https://docs.pytorch.org/docs/stable/notes/cuda.html#tf32-on-ampere

    :param device: device of the operations; on the CPU the context has no effect
    :param precision: one of `PRECISIONS`
    :param search: whether cuDNN measures its algorithms at the first run of a convolution
    """
    if device.type != 'cuda':
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=search,
                                      allow_tf32=precision == TF32)


class TorchBackend:
    """
    Run a network in eager mode.

    :param network: moved to the device and converted to the precision in place
    :param device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``
    :param precision: one of `PRECISIONS`, or ``auto`` for fp32
    :raises DeviceError: if device or precision is not available
    """

    name = 'torch'

    def __init__(self, network: ForecastDetector, device: str = 'cpu',
                 precision: str = 'fp32') -> None:
        precision = choose_precision(precision)
        if precision not in PRECISIONS:
            raise DeviceError(f'precision is {precision!r}, must be one of '
                              f'{sorted(PRECISIONS)}')
        self._device = resolve_device(device)
        if precision == TF32 and self._device.type != 'cuda':
            raise DeviceError(f'precision is {precision!r}, which only CUDA devices have; use '
                              'fp32')
        self.device = str(self._device)
        self.precision = precision
        # Boxes are decoded in fp32 in every precision, because fp16 has only 11 bits for a
        # coordinate.
        self.anchors = _array(network.anchors)
        self.network = network.eval().to(self._device, PRECISIONS[precision])

    def initial_state(self, batch: int) -> NetworkState:
        """Return the zero state of `batch` streams."""
        return self.network.initial_state(batch)

    def to_device(self, images: np.ndarray) -> Tensor:
        """Return images as a tensor on the device; on the CPU it shares their memory."""
        tensor = torch.from_numpy(images)
        if self._device.type == 'cuda':
            tensor = tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor

    @torch.inference_mode()
    def read_step(self, images: np.ndarray, state: NetworkState,
                  elapsed: np.ndarray | None = None) -> RawOutput:
        """Read ``(B, H, W, 3)`` uint8 BGR images."""
        with arithmetic(self._device, self.precision):
            return raw_output(self.network.read_step(self.to_device(images), state,
                                                     self.time(elapsed)))

    @torch.inference_mode()
    def forecast_step(self, state: NetworkState, elapsed: np.ndarray | None = None) -> RawOutput:
        """Forecast the next frames."""
        with arithmetic(self._device, self.precision):
            return raw_output(self.network.forecast_step(state, self.time(elapsed)))

    def time(self, elapsed: np.ndarray | None) -> Tensor | None:
        """Return times ``(B,)`` as a tensor ``(B, 1)`` for the network."""
        if elapsed is None:
            return None
        return torch.from_numpy(elapsed).to(self.network.mean).view(-1, 1)

    def stack(self, states: Sequence[NetworkState]) -> NetworkState:
        """Join the states of several streams into one state of a batch."""
        columns = zip(*map(state_parts, states))
        return with_parts(states[0], [torch.cat(parts) for parts in columns])

    def split(self, state: NetworkState, count: int) -> list[NetworkState]:
        """Return the states of the streams of a batch, as views."""
        chunks = [part.split(1) for part in state_parts(state)]
        return [with_parts(state, [chunk[index] for chunk in chunks]) for index in range(count)]


def state_parts(state: Any) -> list[Tensor]:
    """Return all tensors of a state in the order of its fields."""
    if state is None:
        return []
    if isinstance(state, Tensor):
        return [state]
    return [part for field in state for part in state_parts(field)]


def with_parts(like: Any, parts: Sequence[Tensor]) -> Any:
    """Build a state of the form of `like` from tensors in the order of `state_parts`."""
    left = iter(parts)

    def build(field: Any) -> Any:
        if isinstance(field, Tensor):
            return next(left)
        if field is None:
            return None
        built = [build(inner) for inner in field]
        return type(field)(*built) if hasattr(field, '_fields') else tuple(built)

    return build(like)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def raw_output(output: StepOutput) -> RawOutput:
    """Copy the output of a step to CPU memory."""
    return RawOutput(_array(output.head.logits), _array(output.head.offsets),
                     _array(confidence(output.decision.float())), output.state)


class CompileError(RuntimeConfigError):
    """torch.compile cannot compile a step here; the message is one line."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f'backend torch_compile cannot compile here: {one_line(error)}')


def compiled(step: Callable[..., StepOutput]) -> Callable[..., StepOutput]:
    """Return a step that is compiled at the first run with each batch size."""
    return torch.compile(step, dynamic=False)


class TorchCompileBackend(TorchBackend):
    """
    Run a network compiled by torch.compile, once for each batch size.

    The first step of each kind takes half a minute to some minutes.

    :param network, device, precision: as for `TorchBackend`
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

        :raises CompileError: if this step cannot be compiled; a C++ compiler is needed on the CPU
        """
        return _run(self._compiled_read, self.to_device(images), state, self.time(elapsed))

    @torch.no_grad()
    def forecast_step(self, state: NetworkState, elapsed: np.ndarray | None = None) -> RawOutput:
        """Forecast the next frames; raises CompileError."""
        return _run(self._compiled_forecast, state, self.time(elapsed))


def _run(step: Callable[..., StepOutput], *arguments: object) -> RawOutput:
    try:
        return raw_output(step(*arguments))
    except torch._dynamo.exc.TorchDynamoException as error:
        raise CompileError(error) from None
