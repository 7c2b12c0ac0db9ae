# SPDX-License-Identifier: Apache-2.0
"""
Back-end: PyTorch on CUDA with static buffers and captured graphs.

See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs and docs/design/speed.md. The
state of a stream is one row of numbers, so that one operation copies, joins or splits the states
of a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import RawOutput
from .step_graph import FORECAST_STEP, READ_STEP
from .torch_backend import (
    arithmetic,
    compiled,
    CompileError,
    state_parts,
    TorchBackend,
    with_parts,
)
from ...model.network import ForecastDetector, NetworkState, StepOutput
from ...model.scheduler import confidence

#: Sizes of prepared batches; a batch between two sizes runs as the larger one.
SIZES = (1, 2, 4, 8, 16, 32)

_WARM_UP = 3  #: Runs before a capture, on a separate stream, as the documentation recommends


@dataclass(frozen=True)
class CudaOptions:
    """Options of the execution of the steps."""

    #: Whether a step is captured once and replayed; else every operation is launched.
    capture: bool = True
    channels_last: bool = True  #: Whether weights and maps are ``(B, h, w, C)`` in memory

    #: Whether cuDNN measures its algorithms for each convolution when a size is prepared.
    search: bool = False
    compiled: bool = False  #: Whether `torch.compile` compiles the network


class StateRows:
    """
    The layout of a network's state as one row of N numbers per stream.

    :param like: state of any batch; all its parts have one type
    :param channels_last: whether a part ``(C, h, w)`` is stored in the row as ``(h, w, C)``
    :raises ValueError: if the parts are of several types
    """

    def __init__(self, like: NetworkState, channels_last: bool = True) -> None:
        parts = state_parts(like)
        if len({part.dtype for part in parts}) > 1:
            raise ValueError('the parts of a state are of several types, must be of one')
        self._like = like
        self._shapes = [tuple(part.shape[1:]) for part in parts]
        self._widths = [part[0].numel() for part in parts]
        self._dtype = parts[0].dtype
        self._channels_last = channels_last

    def pack(self, state: NetworkState) -> Tensor:
        """Return the rows of a state, ``(B, N)``, as a new tensor."""
        return torch.cat([self._row(part) for part in state_parts(state)], 1)

    def _row(self, part: Tensor) -> Tensor:
        if self._channels_last and part.dim() == 4:
            part = part.permute(0, 2, 3, 1)
        return part.reshape(len(part), -1).to(self._dtype)

    def unpack(self, rows: Tensor) -> NetworkState:
        """Return the state in rows ``(B, N)`` as views of them."""
        parts = []
        for chunk, shape in zip(rows.split(self._widths, 1), self._shapes):
            if self._channels_last and len(shape) == 3:
                channels, height, width = shape
                parts.append(chunk.view(-1, height, width, channels).permute(0, 3, 1, 2))
            else:
                parts.append(chunk.view(-1, *shape))
        return with_parts(self._like, parts)


def captured(work: Callable[[], Any], pool: Any = None) -> Callable[[], Any]:
    """
    Capture the kernels of a function as a CUDA graph, after some runs for initialisation.

    :param work: launches kernels on tensors at fixed addresses; gradients are off
    :param pool: memory shared with graphs that run at other times; None: own memory
    :returns: a function that launches the graph and returns the tensors that `work` returned
        during the capture
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the device during the capture.
    with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode='thread_local'):
        found = work()

    def replay() -> Any:
        graph.replay()
        return found

    return replay


class _Buffers:
    """The inputs of a step for one batch size, at fixed addresses."""

    def __init__(self, state: Tensor, image: Tensor | None, more: dict[str, Tensor]) -> None:
        self.state = state
        self.image = image
        self.more = more
        self.upload: Tensor | None = None
        if image is not None:
            self.upload = torch.empty(image.shape, dtype=image.dtype,
                                      pin_memory=image.device.type == 'cuda')


class CudaGraphBackend(TorchBackend):
    """
    Run a network by replaying captured graphs, one for each step and batch size.

    A state is a ``(B, N)`` tensor with a row for each stream.

    :param network: moved to the device and converted to the precision in place
    :param device: ``cuda`` or ``cuda:N``; without capture also ``cpu``
    :param precision: one of `PRECISIONS`
    :raises DeviceError: if device or precision is not available
    """

    def __init__(self, network: ForecastDetector, device: str = 'cuda',
                 precision: str = 'fp32', options: CudaOptions = CudaOptions()) -> None:
        super().__init__(network, device, precision)
        self._options = options
        if options.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        self._steps: dict[str, Callable[..., StepOutput]] = {
            READ_STEP: self.network.read_step, FORECAST_STEP: self.network.forecast_step}
        if options.compiled:
            self.name = 'torch_compile'
            self._steps = {name: compiled(step) for name, step in self._steps.items()}
        with self._on_device():
            self._rows = StateRows(self.network.initial_state(1), options.channels_last)
            # The graphs never run at the same time, so they can share memory.
            self._pool = torch.cuda.graph_pool_handle() if options.capture else None
        self._prepared: dict[tuple[object, ...], tuple[_Buffers, Callable[[], Any]]] = {}
        self._lock = Lock()

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        where = (torch.cuda.device(self._device) if self._device.type == 'cuda'
                 else nullcontext())
        with torch.no_grad(), where, arithmetic(self._device, self.precision,
                                                self._options.search):
            yield

    def initial_state(self, batch: int) -> Any:
        """Return the zero state of `batch` streams."""
        with self._on_device():
            return self._rows.pack(self.network.initial_state(batch))

    def read_step(self, images: np.ndarray, state: Any, elapsed: np.ndarray | None = None
                  ) -> RawOutput:
        """Read ``(B, H, W, 3)`` uint8 BGR images."""
        return self._advance(READ_STEP, images, state, self._more(elapsed, len(state)))

    def forecast_step(self, state: Any, elapsed: np.ndarray | None = None) -> RawOutput:
        """Forecast the next frames."""
        return self._advance(FORECAST_STEP, None, state, self._more(elapsed, len(state)))

    def _more(self, elapsed: np.ndarray | None, count: int) -> dict[str, np.ndarray]:
        if self.network.motion is None:
            return {}
        times = np.ones(count, np.float32) if elapsed is None else elapsed.astype(np.float32)
        return {'elapsed': times.reshape(-1, 1)}

    def stack(self, states: Sequence[Any]) -> Any:
        """Join the states of several streams into one state of a batch."""
        return torch.cat(list(states))

    def split(self, state: Any, count: int) -> list[Any]:
        """Return the states of the streams of a batch, as views."""
        return list(state.split(1))

    def _advance(self, step: str, images: np.ndarray | None, state: Tensor,
                 more: dict[str, np.ndarray]) -> RawOutput:
        found = []
        with self._lock, self._on_device():
            for start in range(0, len(state), SIZES[-1]):
                piece = slice(start, start + SIZES[-1])
                found.append(self._piece(step, None if images is None else images[piece],
                                         state[piece],
                                         {name: value[piece] for name, value in more.items()}))
        if len(found) == 1:
            return found[0]
        logits, offsets, score = (
            np.concatenate([raw[field] for raw in found]) for field in range(3))
        return RawOutput(logits, offsets, score, torch.cat([raw.state for raw in found]))

    def _piece(self, step: str, images: np.ndarray | None, state: Tensor,
               more: dict[str, np.ndarray]) -> RawOutput:
        count = len(state)
        size = next(size for size in SIZES if size >= count)
        buffers, run = self._get(step, size, {
            name: value.shape[1:] for name, value in more.items()})
        if images is not None:
            assert buffers.upload is not None and buffers.image is not None
            buffers.upload[:count].numpy()[...] = images
            buffers.image[:count].copy_(buffers.upload[:count], non_blocking=True)
        for name, value in more.items():
            buffers.more[name][:count].copy_(torch.from_numpy(value))
        buffers.state[:count].copy_(state)
        results, after = run()
        on_card = self._device.type == 'cuda'
        # PyTorch pools page-locked memory, and reuses it when the last reference is gone.
        host = torch.empty((count, results.shape[1]), pin_memory=on_card)
        host.copy_(results[:count], non_blocking=True)
        # States are immutable, so this one needs its own memory.
        after = after[:count].clone()
        if on_card:
            torch.cuda.current_stream().synchronize()
        return self._raw(host.numpy(), after)

    def _get(self, step: str, size: int, more: dict[str, tuple[int, ...]]
             ) -> tuple[_Buffers, Callable[[], Any]]:
        """Return a step for a batch size, which is prepared at its first use."""
        key = (step, size, *sorted(more))
        if key not in self._prepared:
            image = None
            if step == READ_STEP:
                image = torch.zeros((size, *self.network.config.input_size, 3),
                                    dtype=torch.uint8, device=self._device)
            state = self._rows.pack(self.network.initial_state(size))
            buffers = _Buffers(state, image, {
                name: state.new_zeros((size, *shape)) for name, shape in more.items()})
            run: Callable[[], Any] = partial(self._run, step, buffers)
            if self._options.capture:
                run = captured(run, self._pool)
            self._prepared[key] = buffers, run
        return self._prepared[key]

    def _run(self, step: str, buffers: _Buffers) -> tuple[Tensor, Tensor]:
        """Launch a step; return the results, one row per stream, and the next state."""
        image = () if buffers.image is None else (buffers.image,)
        try:
            output = self._steps[step](*image, self._rows.unpack(buffers.state),
                                       **buffers.more)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise CompileError(error) from None
        # One tensor, so that one copy transfers all results.
        results = torch.cat([output.head.logits.flatten(1).float(),
                             output.head.offsets.flatten(1).float(),
                             confidence(output.decision.float())[:, None]], 1)
        return results, self._rows.pack(output.state)

    def _raw(self, rows: np.ndarray, state: Tensor) -> RawOutput:
        anchors, classes = len(self.anchors), 1 + self.network.config.classes
        middle = anchors * classes
        return RawOutput(rows[:, :middle].reshape(-1, anchors, classes),
                         rows[:, middle:-1].reshape(-1, anchors, 4), rows[:, -1], state)
