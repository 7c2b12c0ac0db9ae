# SPDX-License-Identifier: Apache-2.0
"""Networks in OpenVINO's format as teachers, also at another size than that of the file."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .teacher import TeacherError, TeacherModel
from ..detector.backends.quiet_openvino import import_openvino
from ..errors import one_line

#: onnxruntime's names of OpenVINO's types.
TYPES = {'f32': 'tensor(float)', 'u8': 'tensor(uint8)', 'i32': 'tensor(int32)',
         'i64': 'tensor(int64)'}
OPTIONS = {'NUM_STREAMS': '1', 'ENABLE_CPU_PINNING': 'NO', 'INFERENCE_PRECISION_HINT': 'f32'}


class OpenVinoModel(TeacherModel):
    """
    A network that OpenVINO runs, on the CPU and in fp32.

    :param path: the ``.xml`` with its ``.bin`` beside it, or an ``.onnx``
    :param threads: threads that OpenVINO may use
    :param input_size: (height, width) of the picture, where it is to differ from the file's
    :param float_activations: leave out the quantisers of an int8 network. Without instructions for
        int8 (VNNI) they cost accuracy, because OpenVINO emulates them.
    :raises TeacherError: if OpenVINO is not installed, or the file is missing, cannot be loaded or
        cannot have the size
    """

    def __init__(self, path: Path, threads: int = 1, input_size: tuple[int, int] | None = None,
                 float_activations: bool = False) -> None:
        try:
            openvino = import_openvino()
        except ImportError:
            raise TeacherError(f'{path}: needs OpenVINO, which is not installed: '
                               'pip install openvino') from None
        if not path.is_file():
            raise TeacherError(f'{path}: no such file')
        core = openvino.Core()
        try:
            model = core.read_model(path)
            if float_activations:
                _drop_quantisers(model)
            if input_size is not None:
                _resize(model, input_size)
            self._request = core.compile_model(model, 'CPU', {
                **OPTIONS, 'INFERENCE_NUM_THREADS': str(threads)}).create_infer_request()
        except Exception as error:  # OpenVINO raises RuntimeError and others.
            size = '' if input_size is None else f' at {input_size[0]}x{input_size[1]}'
            raise TeacherError(f'{path}: OpenVINO cannot load it{size}: '
                               f'{one_line(error)}') from None
        super().__init__(path, [_port(port) for port in model.inputs],
                         [_port(port) for port in model.outputs])

    def _infer(self, tensor: np.ndarray) -> list[np.ndarray]:
        found = self._request.infer({0: tensor})
        return [np.array(array) for array in found.values()]


def _port(port: Any) -> tuple[str, list[int | None], str]:
    """Describe an input or output as onnxruntime does."""
    shape = [side.get_length() if side.is_static else None for side in port.get_partial_shape()]
    kind = port.get_element_type().get_type_name()
    return next(iter(port.get_names()), ''), shape, TYPES.get(kind, kind)


def _drop_quantisers(model: Any) -> None:
    """Connect what stands behind each FakeQuantize with what stands before it."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == 'FakeQuantize':
            _replace(node, node.input_value(0))


def _resize(model: Any, size: tuple[int, int]) -> None:
    """Change height and width of a network's input, ``(1, 3, H, W)`` or ``(1, H, W, 3)``."""
    port = model.input(0)
    shape = [side.get_length() for side in port.get_partial_shape()]
    first = 1 if shape[-1] == 3 else 2
    if shape[first:first + 2] == list(size):
        return
    _generalise_shuffles(model)
    model.reshape({port: [*shape[:first], *size, *shape[first + 2:]]})


def _generalise_shuffles(model: Any) -> None:
    """
    Put ShuffleChannels in the place of reshapes to a fixed size.

    Shuffling the channels of a map, as ShuffleNet does (Zhang et al. 2018, section 3.1), is often
    stored as a split of the channels in groups, a transposition and a reshape back.
    """
    from openvino import opset13
    for node in model.get_ordered_ops():
        if node.get_type_name() != 'Reshape' or _rank(node) != 4:
            continue
        turn = node.input_value(0).get_node()
        if turn.get_type_name() != 'Transpose':
            continue
        split = turn.input_value(0).get_node()
        order = turn.input_value(1).get_node()
        if (split.get_type_name() != 'Reshape' or _rank(split) != 5
                or order.get_type_name() != 'Constant'
                or order.get_data().tolist() != [0, 2, 1, 3, 4]):
            continue
        groups = split.output(0).get_partial_shape()[1].get_length()
        shuffle = opset13.shuffle_channels(split.input_value(0), axis=1, group=groups)
        _replace(node, shuffle.output(0))


def _rank(node: Any) -> int:
    return len(node.output(0).get_partial_shape())


def _replace(node: Any, value: Any) -> None:
    """Give `value` to all that take the output of `node`."""
    for target in list(node.output(0).get_target_inputs()):
        target.replace_source_output(value)
