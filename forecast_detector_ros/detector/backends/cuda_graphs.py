# SPDX-License-Identifier: Apache-2.0
"""
Back-end: PyTorch on CUDA with static buffers and captured graphs.

Written after https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.  The state of a
stream is one row of numbers, so that a batch of states is copied, joined and parted by one
operation.  docs/performance.md says what was measured.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import RawOutput
from .step_graph import FORECAST_STEP, READ_STEP
from .torch_backend import arithmetic, state_parts, TorchBackend, with_parts
from .torch_compile import CompileError, compiled
from ...model.network import ForecastDetector, NetworkState, StepOutput
from ...model.scheduler import confidence

SIZES = (1, 2, 4, 8, 16, 32)
"""Streams that are prepared for; a batch between two sizes runs as the larger one."""

_WARM_UP = 3
"""Runs before a capture, on a stream of their own, as the documentation has it."""


@dataclass(frozen=True)
class CudaOptions:
    """How the steps run."""

    capture: bool = True
    """Whether a step is captured once and replayed; otherwise every operation is launched."""

    channels_last: bool = True
    """Whether weights and maps are ``(B, h, w, C)`` in memory."""

    search: bool = False
    """Whether cuDNN times its algorithms for every convolution while a size is prepared."""

    compiled: bool = False
    """Whether `torch.compile` makes the kernels."""


class StateRows:
    """
    Where each part of a network's state lies in a stream's row of numbers.

    Parameters
    ----------
    like:
        State of any batch; all its parts are of one type.
    channels_last:
        Whether a part ``(C, h, w)`` lies in the row as ``(h, w, C)``.

    Raises
    ------
    ValueError
        If the parts are of several types.

    """

    def __init__(self, like: NetworkState, channels_last: bool = True) -> None:
        parts = state_parts(like)
        if len({part.dtype for part in parts}) > 1:
            raise ValueError('the parts of a state are of several types, must be of one')
        self._like = like
        self._shapes = [tuple(part.shape[1:]) for part in parts]
        self._widths = [part[0].numel() for part in parts]
        self._channels_last = channels_last

    def pack(self, state: NetworkState) -> Tensor:
        """Give the rows of a state, ``(B, N)``; a new tensor."""
        return torch.cat([self._row(part) for part in state_parts(state)], 1)

    def _row(self, part: Tensor) -> Tensor:
        if self._channels_last and part.dim() == 4:
            part = part.permute(0, 2, 3, 1)
        return part.reshape(len(part), -1)

    def unpack(self, rows: Tensor) -> NetworkState:
        """Give the state that rows hold, as views into them."""
        parts = []
        for chunk, shape in zip(rows.split(self._widths, 1), self._shapes):
            if self._channels_last and len(shape) == 3:
                channels, height, width = shape
                parts.append(chunk.view(-1, height, width, channels).permute(0, 3, 1, 2))
            else:
                parts.append(chunk.view(-1, *shape))
        return with_parts(self._like, parts)


class _Prepared:
    """A step for one size of batch: buffers at fixed addresses, and a way to run it on them."""

    def __init__(self, work: Callable[['_Prepared'], tuple[Tensor, Tensor]], state: Tensor,
                 image: Tensor | None) -> None:
        self.state = state
        self.image = image
        self.upload: Tensor | None = None
        if image is not None:
            self.upload = torch.empty(image.shape, dtype=image.dtype,
                                      pin_memory=image.device.type == 'cuda')
        self._work = work
        self._graph: torch.cuda.CUDAGraph | None = None
        self._found: tuple[Tensor, Tensor] | None = None

    def capture(self, pool: Any) -> None:
        """Record the step's kernels, after some runs that let the libraries set themselves up."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._work(self)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode='thread_local'):
            self._found = self._work(self)
        self._graph = graph

    def run(self) -> tuple[Tensor, Tensor]:
        """Give results and next state; the next run writes into the same memory."""
        if self._graph is None:
            return self._work(self)
        self._graph.replay()
        assert self._found is not None
        return self._found


class CudaGraphBackend(TorchBackend):
    """
    Run a network by replaying captured graphs, one for each step and size of batch.

    A state is a ``(B, N)`` tensor, one row a stream.

    Parameters
    ----------
    network:
        Moved to the device and turned into the precision in place.
    device:
        ``cuda`` or ``cuda:N``; without capture ``cpu``, too.
    precision:
        One of `PRECISIONS`.
    options:
        How the steps run.

    Raises
    ------
    DeviceError
        If device or precision cannot be had.

    """

    def __init__(self, network: ForecastDetector, device: str = 'cuda',
                 precision: str = 'fp32', options: CudaOptions = CudaOptions()) -> None:
        super().__init__(network, device, precision)
        self._options = options
        if options.compiled:
            self.name = 'torch_compile'
        if options.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        make = compiled if options.compiled else _as_it_is
        self._steps: dict[str, Callable[..., StepOutput]] = {
            READ_STEP: make(self.network.read_step),
            FORECAST_STEP: make(self.network.forecast_step)}
        with self._on_device():
            self._rows = StateRows(self.network.initial_state(1), options.channels_last)
            # What one graph computes in between, another may overwrite: they run in turns.
            self._pool = torch.cuda.graph_pool_handle() if options.capture else None
        self._prepared: dict[tuple[str, int], _Prepared] = {}
        self._lock = Lock()

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        where = (torch.cuda.device(self._device) if self._device.type == 'cuda'
                 else nullcontext())
        with torch.no_grad(), where, arithmetic(self._device, self.precision,
                                                self._options.search):
            yield

    def initial_state(self, batch: int) -> Any:
        """Give the zero state."""
        with self._on_device():
            return self._rows.pack(self.network.initial_state(batch))

    def read_step(self, images: np.ndarray, state: Any) -> RawOutput:
        """Read ``(B, H, W, 3)`` uint8 BGR images."""
        return self._advance(READ_STEP, images, state)

    def forecast_step(self, state: Any) -> RawOutput:
        """Advance without images."""
        return self._advance(FORECAST_STEP, None, state)

    def stack(self, states: Sequence[Any]) -> Any:
        """Join the states of several streams into one of a batch."""
        return torch.cat(list(states))

    def split(self, state: Any, count: int) -> list[Any]:
        """Give the states of the streams of a batch: views into it."""
        return list(state.split(1))

    def parts(self, state: Any) -> NetworkState:
        """Give a state as the network has it: views into it."""
        return self._rows.unpack(state)

    def _advance(self, step: str, images: np.ndarray | None, state: Tensor) -> RawOutput:
        found = []
        with self._lock, self._on_device():
            for start in range(0, len(state), SIZES[-1]):
                piece = slice(start, start + SIZES[-1])
                found.append(self._piece(step, None if images is None else images[piece],
                                         state[piece]))
        if len(found) == 1:
            return found[0]
        logits, offsets, score = (
            np.concatenate([raw[field] for raw in found]) for field in range(3))
        return RawOutput(logits, offsets, score, torch.cat([raw.state for raw in found]))

    def _piece(self, step: str, images: np.ndarray | None, state: Tensor) -> RawOutput:
        count = len(state)
        prepared = self._get(step, next(size for size in SIZES if size >= count))
        if images is not None:
            assert prepared.upload is not None and prepared.image is not None
            prepared.upload[:count].numpy()[...] = images
            prepared.image[:count].copy_(prepared.upload[:count], non_blocking=True)
        prepared.state[:count].copy_(state)
        results, after = prepared.run()
        on_card = self._device.type == 'cuda'
        # Page-locked memory comes from PyTorch's pool and goes back when nobody looks at it.
        host = torch.empty((count, results.shape[1]), pin_memory=on_card)
        host.copy_(results[:count], non_blocking=True)
        # A state that is a value has memory of its own.
        after = after[:count].clone()
        if on_card:
            torch.cuda.current_stream().synchronize()
        return self._raw(host.numpy(), after)

    def _get(self, step: str, size: int) -> _Prepared:
        """Give a step for a size of batch, prepared when it is first needed."""
        key = (step, size)
        if key not in self._prepared:
            state = self._rows.pack(self.network.initial_state(size))
            image = None
            if step == READ_STEP:
                image = torch.zeros((size, *self.network.config.input_size, 3),
                                    dtype=torch.uint8, device=self._device)

            def work(prepared: _Prepared) -> tuple[Tensor, Tensor]:
                arguments = () if prepared.image is None else (prepared.image,)
                output = self._steps[step](*arguments, self._rows.unpack(prepared.state))
                results = (output.head.logits.flatten(1), output.head.offsets.flatten(1),
                           confidence(output.decision.float())[:, None])
                # One tensor, so that one copy brings all to the machine's memory.
                return (torch.cat([part.float() for part in results], 1),
                        self._rows.pack(output.state))

            made = _Prepared(work, state, image)
            try:
                if self._options.capture:
                    made.capture(self._pool)
            except torch._dynamo.exc.TorchDynamoException as error:
                raise CompileError.of(error) from None
            self._prepared[key] = made
        return self._prepared[key]

    def _raw(self, rows: np.ndarray, state: Tensor) -> RawOutput:
        anchors, classes = len(self.anchors), 1 + self.network.config.classes
        middle = anchors * classes
        return RawOutput(rows[:, :middle].reshape(-1, anchors, classes),
                         rows[:, middle:-1].reshape(-1, anchors, 4), rows[:, -1], state)


def _as_it_is(step: Callable[..., StepOutput]) -> Callable[..., StepOutput]:
    return step
