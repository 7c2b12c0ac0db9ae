# SPDX-License-Identifier: Apache-2.0
"""
A teacher: a detector in an ONNX file that labels pictures for training.

It needs onnxruntime, which nothing else in the package needs.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision.ops import batched_nms

STRIDES = (8, 16, 32)
"""Strides of YOLOX's three grids (Ge et al. 2021), in the order of its output."""

PADDING = 114
"""Grey value that YOLOX pads pictures with."""

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
"""The 80 categories of COCO's detection task, in the order of a COCO detector's output."""

RENAMED = {'cow': 'cattle', 'boat': 'watercraft'}
"""COCO categories that ImageNet VID has under another name."""

TEACHER_CLASSES = tuple(RENAMED.get(name, name) for name in COCO_CLASSES)
"""What the teacher's outputs are called here."""


class TeacherError(ValueError):
    """A teacher that cannot be loaded or is not of the expected kind; one line."""


@dataclass(frozen=True)
class TeacherBoxes:
    """What a teacher sees in one picture, best score first."""

    boxes: np.ndarray
    """``(N, 4)`` float32, xyxy, pixels of the picture, inside it."""

    labels: np.ndarray
    """``(N,)`` int64, index into `TEACHER_CLASSES`."""

    scores: np.ndarray
    """``(N,)`` float32, in [0, 1]."""


class YoloxTeacher:
    """
    A YOLOX exported to ONNX, with COCO's 80 classes, without decoding in the graph.

    Parameters
    ----------
    path:
        The ``.onnx`` file: one input ``(1, 3, H, W)`` float32, BGR, 0 to 255; one output
        ``(1, A, 85)``, a row per grid cell of `STRIDES`: centre and logarithmic size relative
        to the cell, objectness, and class scores (both after the sigmoid).
    min_score:
        Lower limit of objectness times class score, in [0, 1].
    nms_threshold:
        IoU from which on the weaker of two boxes of a class is dropped, in (0, 1]; 0.45 is
        YOLOX's.
    threads:
        Threads that onnxruntime may use.

    Raises
    ------
    TeacherError
        If onnxruntime is not installed, or the file is missing or not such a network.

    """

    def __init__(self, path: Path, min_score: float = 0.2, nms_threshold: float = 0.45,
                 threads: int = 1) -> None:
        try:
            import onnxruntime  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            raise TeacherError('a teacher needs onnxruntime, which is not installed: '
                               'pip install onnxruntime') from None
        if not path.is_file():
            raise TeacherError(f'{path}: no such file')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider'])
        except Exception as error:  # onnxruntime's exceptions have no common base of their own.
            raise TeacherError(f'{path}: onnxruntime cannot load it: '
                               f'{" ".join(str(error).split())[:200]}') from None
        self.min_score = min_score
        self.nms_threshold = nms_threshold
        self.input_size = self._check(path)

    def _check(self, path: Path) -> tuple[int, int]:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = list(inputs[0].shape) if len(inputs) == 1 else []
        if len(shape) != 4 or shape[1] != 3 or not all(
                isinstance(side, int) and side % STRIDES[-1] == 0 for side in shape[2:]):
            raise TeacherError(f'{path}: inputs are {[item.shape for item in inputs]}, a YOLOX '
                               f'has one (1, 3, H, W), sides multiples of {STRIDES[-1]}')
        size = shape[2], shape[3]
        cells = sum(size[0] // stride * (size[1] // stride) for stride in STRIDES)
        wanted = [1, cells, 5 + len(COCO_CLASSES)]
        if len(outputs) != 1 or list(outputs[0].shape) != wanted:
            raise TeacherError(f'{path}: outputs are {[item.shape for item in outputs]}, a '
                               f'YOLOX of this input size and COCO has one {wanted}')
        return size

    def detect(self, image: np.ndarray) -> TeacherBoxes:
        """
        Label one picture.

        Parameters
        ----------
        image:
            ``(H, W, 3)`` uint8, BGR.

        """
        padded, scale = letterbox(image, self.input_size)
        tensor = np.ascontiguousarray(padded.transpose(2, 0, 1), np.float32)[None]
        name = self._session.get_inputs()[0].name
        output = self._session.run(None, {name: tensor})[0][0]
        boxes, scores = decode_yolox(output, self.input_size)
        row, label = np.nonzero(scores >= self.min_score)
        score = scores[row, label]
        height, width = image.shape[:2]
        found = (boxes[row] / scale).clip(0, (width, height, width, height)).astype(np.float32)
        keep = batched_nms(torch.from_numpy(found), torch.from_numpy(score),
                           torch.from_numpy(label), self.nms_threshold).numpy()
        return TeacherBoxes(found[keep], label[keep], score[keep])


def letterbox(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """
    Scale a picture into the upper left corner of a grey one, keeping its aspect ratio.

    Parameters
    ----------
    image:
        ``(H, W, 3)`` uint8.
    size:
        (height, width) of the result.

    Returns
    -------
    tuple
        ``(height, width, 3)`` uint8, and the factor from the picture's pixels to the result's.

    """
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, int(side * scale)) for side in image.shape[:2])
    padded = np.full((*size, 3), PADDING, np.uint8)
    padded[:height, :width] = cv2.resize(image, (width, height),
                                         interpolation=cv2.INTER_LINEAR)
    return padded, scale


def decode_yolox(output: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """
    Turn raw output into boxes and scores.

    Parameters
    ----------
    output:
        ``(A, 5 + classes)`` float32, relative to the grids of `STRIDES`.
    size:
        (height, width) of the network's input.

    Returns
    -------
    tuple
        ``(A, 4)`` xyxy in the input's pixels, and ``(A, classes)`` scores.

    """
    grids, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[:size[0] // stride, :size[1] // stride]
        grids.append(np.stack((columns, rows), -1).reshape(-1, 2))
        strides.append(np.full((rows.size, 1), stride))
    scale = np.concatenate(strides).astype(np.float32)
    centre = (output[:, :2] + np.concatenate(grids)) * scale
    half = np.exp(output[:, 2:4]) * scale / 2
    return np.concatenate((centre - half, centre + half), 1), output[:, 4:5] * output[:, 5:]
