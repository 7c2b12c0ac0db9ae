# SPDX-License-Identifier: Apache-2.0
"""
A teacher: a detector in a file that labels pictures for training, run by ONNX Runtime or OpenVINO.

The common part of all teachers; the kinds are in ``teacher_*.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torchvision.ops import batched_nms

from ..detector.host import import_onnxruntime, import_openvino
from ..errors import InputError, one_line

PADDING = 114  #: Grey value with which YOLOX and similar detectors pad pictures
#: The 80 categories of COCO's detection task, in the order of a COCO detector's output.
COCO_CLASSES = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog',
    'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich',
    'orange', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch',
    'potted plant', 'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote',
    'keyboard', 'cell phone', 'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book',
    'clock', 'vase', 'scissors', 'teddy bear', 'hair drier', 'toothbrush')
#: COCO categories that have another name in ImageNet VID or PASCAL VOC.
RENAMED = {'cow': 'cattle', 'boat': 'watercraft', 'couch': 'sofa'}
#: Names of the teacher's outputs in this package; a blank becomes an underscore.
TEACHER_CLASSES = tuple(RENAMED.get(name, name).replace(' ', '_') for name in COCO_CLASSES)
Port = tuple[str, list[Any], str]  #: Name, shape and type of an input or output


class TeacherError(InputError):
    """A teacher cannot be loaded or used; the message is one line."""


@dataclass(frozen=True)
class TeacherBoxes:
    """The detections of a teacher in one picture, best score first."""

    boxes: np.ndarray  #: ``(N, 4)`` float32, xyxy, pixels of the picture, inside it
    labels: np.ndarray  #: ``(N,)`` int64, index into `TEACHER_CLASSES`
    scores: np.ndarray  #: ``(N,)`` float32, in [0, 1]


class Teacher(Protocol):
    """A detector that labels pictures."""

    kind: str  #: Description, a word or a line

    def detect(self, image: np.ndarray) -> TeacherBoxes:
        """Label one picture, ``(H, W, 3)`` uint8, BGR."""


class TeacherModel:
    """
    A network in a file, with one input.

    Attributes `input_shape` and `input_type` are those of the input; ``[]`` and ``''`` if there
    are several inputs.

    :param inputs, outputs: name, shape and type of each, types as onnxruntime writes them. Sizes
        that are not fixed are names or None.
    """

    def __init__(self, path: Path, inputs: list[Port], outputs: list[Port]) -> None:
        self.path, self.outputs = path, outputs
        _, self.input_shape, self.input_type = inputs[0] if len(inputs) == 1 else ('', [], '')
        self.summary = (f'input {", ".join(str(shape) for _, shape, _ in inputs)} and output '
                        f'{", ".join(str(shape) for _, shape, _ in outputs)}')

    def fixed_size(self, multiple: int) -> tuple[int, int] | None:
        """Return (height, width) of a float input ``(1, 3, H, W)`` of fixed size, else None."""
        shape = self.input_shape
        if self.input_type != 'tensor(float)' or len(shape) != 4 or shape[1] != 3:
            return None
        if not all(isinstance(side, int) and side % multiple == 0 for side in shape[2:]):
            return None
        return shape[2], shape[3]

    def run(self, tensor: np.ndarray) -> list[np.ndarray]:
        """Return all outputs for one input; raises TeacherError if the network fails."""
        try:
            return self._infer(tensor)
        except Exception as error:  # The runtimes' exceptions have no common base class.
            raise TeacherError(f'{self.path}: fails on an input of shape {tensor.shape}: '
                               f'{one_line(error)}') from None

    def _infer(self, tensor: np.ndarray) -> list[np.ndarray]:
        raise NotImplementedError


def _runtime(path: Path, name: str, load: Callable[[], Any]) -> Any:
    """Load a file with a runtime; raises TeacherError if one of the two is missing."""
    try:
        runtime = load()
    except ImportError:
        raise TeacherError(f'{path}: needs {name}, which is not installed: '
                           f'pip install {name.lower()}') from None
    if not path.is_file():
        raise TeacherError(f'{path}: no such file')
    return runtime


class OnnxModel(TeacherModel):
    """
    A network in an ONNX file, run by onnxruntime.

    :param threads: threads that onnxruntime may use
    :raises TeacherError: if onnxruntime is not installed, or the file is missing or cannot be
        loaded
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        onnxruntime = _runtime(path, 'onnxruntime', import_onnxruntime)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider'])
        except Exception as error:  # onnxruntime's exceptions have no common base class.
            raise TeacherError(f'{path}: onnxruntime cannot load it: '
                               f'{one_line(error)}') from None
        inputs, outputs = ([(item.name, list(item.shape or ()), item.type) for item in items]
                           for items in (self._session.get_inputs(), self._session.get_outputs()))
        super().__init__(path, inputs, outputs)
        self._name = inputs[0][0]

    def _infer(self, tensor: np.ndarray) -> list[np.ndarray]:
        return self._session.run(None, {self._name: tensor})


def choose_boxes(boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray, min_score: float,
                 nms_threshold: float, picture: tuple[int, int]) -> TeacherBoxes:
    """
    Drop boxes of a low score, cut the others to the picture, and apply NMS for each class.

    :param boxes: ``(N, 4)`` float32, xyxy, pixels of the picture
    :param labels: ``(N,)`` int64, index into `TEACHER_CLASSES`
    :param scores: ``(N,)`` float32
    :param min_score: smallest score, in [0, 1]
    :param nms_threshold: IoU from which on the box with the lower score is dropped, in (0, 1];
        YOLOX has 0.45
    :param picture: (height, width)
    """
    strong = scores >= min_score
    boxes, labels, scores = boxes[strong], labels[strong], scores[strong]
    height, width = picture
    boxes = boxes.clip(0, (width, height, width, height)).astype(np.float32)
    keep = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores),
                       torch.from_numpy(labels), nms_threshold).numpy()
    return TeacherBoxes(boxes[keep], labels[keep], scores[keep])


def letterbox(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """
    Scale a picture into the upper left corner of a grey one, with its aspect ratio.

    :param image: ``(H, W, 3)`` uint8
    :param size: (height, width) of the result
    :returns: ``(height, width, 3)`` uint8, and the scale factor
    """
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, int(side * scale)) for side in image.shape[:2])
    return _padded(image, size, (height, width), (0, 0)), scale


def centred_letterbox(image: np.ndarray, size: tuple[int, int]
                      ) -> tuple[np.ndarray, float, tuple[int, int]]:
    """
    Scale a picture into the middle of a grey one, with its aspect ratio.

    Parameters and results are those of `letterbox`; also returns the upper left corner (x, y).
    """
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return _padded(image, size, (height, width), (top, left)), scale, (left, top)


def _padded(image: np.ndarray, size: tuple[int, int], inner: tuple[int, int],
            corner: tuple[int, int]) -> np.ndarray:
    """Scale to `inner` and put it at `corner` (row, column) of a grey picture of `size`."""
    (height, width), (top, left) = inner, corner
    padded = np.full((*size, 3), PADDING, np.uint8)
    padded[top:top + height, left:left + width] = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_LINEAR)
    return padded


#: onnxruntime's names of OpenVINO's types.
TYPES = {'f32': 'tensor(float)', 'u8': 'tensor(uint8)', 'i32': 'tensor(int32)',
         'i64': 'tensor(int64)'}
OPTIONS = {'NUM_STREAMS': '1', 'ENABLE_CPU_PINNING': 'NO', 'INFERENCE_PRECISION_HINT': 'f32'}


class OpenVinoModel(TeacherModel):
    """
    A network that OpenVINO runs, on the CPU and in fp32.

    :param path: the ``.xml`` with its ``.bin`` in the same folder, or an ``.onnx``
    :param threads: threads that OpenVINO may use
    :param input_size: (height, width) of the picture; None for the file's size
    :param float_activations: whether to remove the quantisers of an int8 network. Without
        instructions for int8 (VNNI) they reduce accuracy, because OpenVINO emulates them.
    :raises TeacherError: if OpenVINO is not installed, or the file is missing, cannot be loaded or
        does not accept the size
    """

    def __init__(self, path: Path, threads: int = 1, input_size: tuple[int, int] | None = None,
                 float_activations: bool = False) -> None:
        openvino = _runtime(path, 'OpenVINO', import_openvino)
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
    """Remove each FakeQuantize: connect its input to the nodes after it."""
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
    Replace reshapes to a fixed size by ShuffleChannels.

    ShuffleNet's channel shuffle (Zhang et al. 2018, section 3.1) is often stored as a split of the
    channels in groups, a transposition and a reshape.
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
    """Connect `value` to all inputs that use the output of `node`."""
    for target in list(node.output(0).get_target_inputs()):
        target.replace_source_output(value)
