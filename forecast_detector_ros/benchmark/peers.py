# SPDX-License-Identifier: Apache-2.0
"""
Other detectors, which read every frame, for comparison: from torchvision, or an ONNX file.

Only the network is run, from a normalised picture to raw scores and offsets. The pre- and
post-processing of torchvision in Python is not timed, which favours its detectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn, Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import detection

from .timing import Contender
from ..detector.backends.cuda_graphs import captured
from ..detector.backends.step_graph import trace_onnx
from ..detector.backends.torch_backend import arithmetic, PRECISIONS
from ..detector.host import import_onnxruntime, import_openvino
from ..errors import InputError
from ..model.extractor import fold_batch_norm

#: Model and side of its input; random weights take the same time as trained ones.
TORCHVISION: dict[str, tuple[Callable[..., nn.Module], int]] = {
    'ssdlite320_mobilenet_v3_large': (detection.ssdlite320_mobilenet_v3_large, 320),
    'ssd300_vgg16': (detection.ssd300_vgg16, 300),
}


class _Raw(nn.Module):
    """Backbone and head of one of torchvision's SSDs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.head = model.head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict raw scores and offsets of all anchors."""
        found = self.head(list(self.backbone(images).values()))
        return found['cls_logits'], found['bbox_regression']


@dataclass(frozen=True)
class OnnxPeer:
    """A network in a user's file."""

    path: Path
    side: int  #: Pixels of both sides of its input

    @staticmethod
    def parse(text: str) -> OnnxPeer:
        """
        Read ``FILE:SIDE``, for example ``yolo11n.onnx:320``.

        :raises PeerError: if the text has another form, or there is no such file
        """
        file, _, side = text.rpartition(':')
        if not file or not side.isdecimal() or not 32 <= int(side) <= 4096:
            raise PeerError(f'peer is {text!r}, must be FILE:SIDE, for example yolo11n.onnx:320')
        if not Path(file).is_file():
            raise PeerError(f'{file}: no such file')
        return OnnxPeer(Path(file), int(side))

    @property
    def name(self) -> str:
        """Return a name with file and size."""
        return f'{self.path.stem} {self.side}'


def torchvision_peers(backends: Sequence[str], threads: int = 1,
                      names: Sequence[str] = tuple(TORCHVISION)) -> list[Contender]:
    """
    Return torchvision's detectors in several runtimes.

    :param backends: ``torch`` and any of `RUNTIMES`; others are ignored
    :param threads: threads of one operator in the runtimes; PyTorch has its own setting
    :param names: some of `TORCHVISION`
    """
    contenders = []
    for name in names:
        network, side = _torchvision(name)
        image = torch.full((1, 3, side, side), 0.5)
        macs = count_macs(partial(network, image))
        for backend in backends:
            if backend == 'torch':
                run: Callable[[], object] = torch.inference_mode()(partial(network, image))
            elif backend in RUNTIMES:
                model = trace_onnx(network, (image,), input_names=['images'])
                run = graph_runner(backend, model, (side, side), threads)
            else:
                continue
            contenders.append(Contender(f'{name} {backend}', run, 'peer', backend, 'fp32',
                                        threads, 1, macs))
    return contenders


def _torchvision(name: str) -> tuple[nn.Module, int]:
    """Make one of `TORCHVISION`, always with the same weights; return it and its input side."""
    make, side = TORCHVISION[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return fold_batch_norm(_Raw(make(weights=None, weights_backbone=None)).eval()), side


def cuda_peers(device: str, precision: str = 'fp32', batches: Sequence[int] = (1,),
               capture: bool = True, names: Sequence[str] = tuple(TORCHVISION)
               ) -> list[Contender]:
    """
    Return torchvision's detectors in PyTorch on a CUDA device, channels last, BN folded.

    A run ends when the device is done. Its results are not copied to the host, which favours these
    detectors.

    :param device: ``cuda`` or ``cuda:N``; without capture ``cpu``, too
    :param precision: one of `PRECISIONS`
    :param batches: pictures at once
    :param capture: whether the network is captured once and replayed
    :param names: some of `TORCHVISION`
    """
    where = torch.device(device)
    contenders = []
    for name in names:
        network, side = _torchvision(name)
        network = network.to(where, PRECISIONS[precision]).to(memory_format=torch.channels_last)
        for batch in batches:
            image = torch.full((batch, 3, side, side), 0.5, dtype=PRECISIONS[precision],
                               device=where).to(memory_format=torch.channels_last)
            work: Callable[[], object] = partial(network, image)
            with torch.no_grad(), arithmetic(where, precision):
                macs = count_macs(work)
                if capture:
                    work = captured(work)
            label = f'{name} {"captured" if capture else "launched"} {precision}'
            contenders.append(Contender(
                label if batch == 1 else f'{label} x{batch}',
                partial(_finished, work, where, precision), 'peer', 'torch', precision, 1,
                batch, macs))
    return contenders


def _finished(work: Callable[[], object], device: torch.device, precision: str) -> None:
    with torch.no_grad(), arithmetic(device, precision):
        work()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def onnx_peers(peers: Sequence[OnnxPeer], backends: Sequence[str], threads: int = 1
               ) -> list[Contender]:
    """Return the users' networks in the runtimes among `backends`; raises PeerError."""
    contenders = []
    for peer in peers:
        try:
            model = peer.path.read_bytes()
            for backend in backends:
                if backend in RUNTIMES:
                    contenders.append(Contender(
                        f'{peer.name} {backend}',
                        graph_runner(backend, model, (peer.side, peer.side), threads),
                        'peer', backend, 'fp32', threads))
        except (OSError, PeerError) as error:
            raise PeerError(f'{peer.path}: {error}') from None
    return contenders


def count_macs(run: Callable[[], object]) -> int:
    """Count the multiply-accumulates of convolutions and matrix products that PyTorch runs."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


RUNTIMES = ('onnxruntime', 'openvino')

_KINDS = {'tensor(float)': np.float32, 'tensor(float16)': np.float16, 'tensor(uint8)': np.uint8,
          'tensor(int64)': np.int64}


class PeerError(InputError):
    """Another detector's network cannot be run here; the message is one line."""


def graph_runner(runtime: str, model: bytes, size: tuple[int, int], threads: int = 1
                 ) -> Callable[[], object]:
    """
    Return a function that runs a network once on a grey picture.

    :param runtime: one of `RUNTIMES`, installed
    :param model: ONNX bytes with weights inside and one image input ``(1, 3, H, W)``
    :param size: (height, width) for a network whose input is not fixed
    :param threads: threads of one operator
    :raises PeerError: if the runtime cannot run the network
    """
    try:
        return (_onnxruntime if runtime == 'onnxruntime' else _openvino)(model, size, threads)
    except PeerError:
        raise
    except Exception as error:  # Each runtime has its own exceptions.
        raise PeerError(f'{runtime} does not run it: {" ".join(str(error).split())}') from None


def _onnxruntime(model: bytes, size: tuple[int, int], threads: int) -> Callable[[], object]:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
    entry = _only(session.get_inputs())
    shape = _shape([side if isinstance(side, int) else None for side in entry.shape], size)
    feeds = {entry.name: np.full(shape, 0.5, _KINDS.get(entry.type, np.float32))}
    session.run(None, feeds)
    return lambda: session.run(None, feeds)


def _openvino(model: bytes, size: tuple[int, int], threads: int) -> Callable[[], object]:
    openvino = import_openvino()
    core = openvino.Core()
    network = core.read_model(model)
    port = _only(network.inputs)
    shape = _shape([side.get_length() if side.is_static else None
                    for side in port.partial_shape], size)
    network.reshape({port.any_name: list(shape)})
    request = core.compile_model(network, 'CPU', {
        'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': '1', 'INFERENCE_NUM_THREADS': str(threads),
        'INFERENCE_PRECISION_HINT': 'f32', 'ENABLE_CPU_PINNING': 'NO'}).create_infer_request()
    image = np.full(shape, 0.5, port.element_type.to_dtype())
    request.set_tensor(port, openvino.Tensor(image, shared_memory=True))
    request.infer()
    kept: Any = (image, request)  # The request uses the array's memory.
    return lambda: kept[1].infer()


def _only(inputs: list[Any]) -> Any:
    if len(inputs) != 1:
        raise PeerError(f'it has {len(inputs)} inputs, must have one')
    return inputs[0]


def _shape(sides: list[int | None], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Replace the dimensions of an input that are not fixed by batch 1, 3 channels and `size`."""
    wanted = (1, 3, *size)
    if len(sides) != 4 or any(side not in (None, want) for side, want in zip(sides, wanted)):
        raise PeerError(f'its input has the shape {sides}, must take {list(wanted)}')
    return wanted
