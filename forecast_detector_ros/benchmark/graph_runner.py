# SPDX-License-Identifier: Apache-2.0
"""Run any ONNX network in the runtimes that the back-ends use, set up as they set them up."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from ..detector.backends.quiet_openvino import import_openvino
from ..detector.backends.step_graph import trace_onnx
from ..errors import InputError
from ..quiet_onnxruntime import import_onnxruntime

RUNTIMES = ('onnxruntime', 'openvino')

_KINDS = {'tensor(float)': np.float32, 'tensor(float16)': np.float16, 'tensor(uint8)': np.uint8,
          'tensor(int64)': np.int64}


class PeerError(InputError):
    """A rival's network that cannot be run here; one line."""


def to_onnx(network: nn.Module, example: torch.Tensor) -> bytes:
    """Write a network of one image input as ONNX, of exactly the example's shape."""
    return trace_onnx(network, (example,), input_names=['images'])


def graph_runner(runtime: str, model: bytes, size: tuple[int, int], threads: int = 1,
                 precision: str = 'fp32') -> Callable[[], object]:
    """
    Give a function that runs a network once on a grey picture.

    :param runtime: one of `RUNTIMES`, installed
    :param model: ONNX bytes with weights inside and one image input ``(1, 3, H, W)``
    :param size: (height, width) for a network whose input is not fixed
    :param threads: threads of one operator
    :param precision: ``fp32``, or with OpenVINO ``bf16``
    :raises PeerError: if the runtime does not take it
    """
    try:
        if runtime == 'onnxruntime':
            return _onnxruntime(model, size, threads)
        return _openvino(model, size, threads, precision)
    except PeerError:
        raise
    except Exception as error:  # Each runtime raises classes of its own.
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


def _openvino(model: bytes, size: tuple[int, int], threads: int, precision: str
              ) -> Callable[[], object]:
    openvino = import_openvino()
    core = openvino.Core()
    network = core.read_model(model)
    port = _only(network.inputs)
    shape = _shape([side.get_length() if side.is_static else None
                    for side in port.partial_shape], size)
    network.reshape({port.any_name: list(shape)})
    request = core.compile_model(network, 'CPU', {
        'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': '1', 'INFERENCE_NUM_THREADS': str(threads),
        'INFERENCE_PRECISION_HINT': {'fp32': 'f32', 'bf16': 'bf16'}[precision],
        'ENABLE_CPU_PINNING': 'NO'}).create_infer_request()
    image = np.full(shape, 0.5, port.element_type.to_dtype())
    request.set_tensor(port, openvino.Tensor(image, shared_memory=True))
    request.infer()
    kept: Any = (image, request)  # The request looks into the array.
    return lambda: kept[1].infer()


def _only(inputs: list[Any]) -> Any:
    if len(inputs) != 1:
        raise PeerError(f'it has {len(inputs)} inputs, must have one')
    return inputs[0]


def _shape(sides: list[int | None], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Fill the open sides of an input with batch 1, three channels and the size asked for."""
    wanted = (1, 3, *size)
    if len(sides) != 4 or any(side not in (None, want) for side, want in zip(sides, wanted)):
        raise PeerError(f'its input has the shape {sides}, must take {list(wanted)}')
    return wanted
