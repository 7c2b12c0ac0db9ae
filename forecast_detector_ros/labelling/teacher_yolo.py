# SPDX-License-Identifier: Apache-2.0
"""
Teachers that predict per grid cell, exported with COCO's 80 classes.

YOLOX (Ge et al. 2021), YOLOv8 and YOLO11, and NanoDet-Plus (https://github.com/RangiLyu/nanodet).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .teacher import (
    centred_letterbox,
    choose_boxes,
    COCO_CLASSES,
    letterbox,
    PADDING,
    TeacherBoxes,
    TeacherError,
    TeacherModel,
)

STRIDES = (8, 16, 32)  #: Strides of YOLOX's three grids, in the order of its output
#: Smallest median centre of a decoded output. Centres that are not decoded are offsets of about
#: one cell; decoded ones are pixels, with a median of about half the input.
DECODED_FROM = 4.0

#: Strides of the four grids (config/nanodet-plus-m-1.5x_416.yml).
NANODET_STRIDES = (8, 16, 32, 64)
BINS = 8  #: A side is a distribution over 0 to 7 strides: reg_max 7 in that file
#: Of BGR, from that file; for networks that do not normalise their input themselves.
MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
COLOURS = ('bgr', 'rgb')


class _GridTeacher:
    """
    A detector for COCO with one output, a prediction per grid cell of `STRIDES`.

    :param min_score, nms_threshold: see `choose_boxes`
    :raises TeacherError: if the network is not of this kind
    """

    name: str

    def __init__(self, model: TeacherModel, min_score: float = 0.2,
                 nms_threshold: float = 0.45) -> None:
        size = model.fixed_size(STRIDES[-1])
        if size is None:
            raise TeacherError(f'{model.path}: has {model.summary}, a {self.name} has one float '
                               f'input (1, 3, H, W), sides multiples of {STRIDES[-1]}')
        wanted = self._shape(len(grid_cells(size, STRIDES)[0]))
        if [shape for _, shape, _ in model.outputs] != [wanted]:
            raise TeacherError(f'{model.path}: has {model.summary}, a {self.name} of this input '
                               f'size and COCO has one output {wanted}')
        self._model = model
        self.input_size = size
        self.min_score, self.nms_threshold = min_score, nms_threshold

    def detect(self, image: np.ndarray) -> TeacherBoxes:
        """Label one picture, ``(H, W, 3)`` uint8, BGR."""
        padded, scale = letterbox(image, self.input_size)
        boxes, scores = self._decode(self._raw(padded))
        row, label = np.nonzero(scores >= self.min_score)
        return choose_boxes(boxes[row] / scale, label, scores[row, label], self.min_score,
                            self.nms_threshold, (image.shape[0], image.shape[1]))

    def _shape(self, count: int) -> list[int]:
        """Return the output's shape for a number of cells."""
        return [1, count, 5 + len(COCO_CLASSES)]

    def _raw(self, padded: np.ndarray) -> np.ndarray:
        """Return the output for a picture of the input's size, a row per cell."""
        tensor = np.ascontiguousarray(padded.transpose(2, 0, 1), np.float32)[None]
        return self._model.run(tensor)[0][0]

    def _decode(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes, xyxy in the input's pixels, and the scores of all classes."""
        raise NotImplementedError


class YoloxTeacher(_GridTeacher):
    """
    A YOLOX without decoding in the graph, as its own export makes it.

    Its input is ``(1, 3, H, W)`` float32, BGR, 0 to 255. Its output is ``(1, A, 85)``: centre and
    logarithmic size relative to the cell, objectness, and class scores (both after the sigmoid).
    A box's score is objectness times class score.
    """

    kind, name = 'yolox', 'YOLOX'

    def looks_decoded(self) -> bool:
        """Return whether the output for a grey picture is in pixels and not in cells."""
        grey = np.full((*self.input_size, 3), PADDING, np.uint8)
        return bool(np.median(np.abs(self._raw(grey)[:, :2])) > DECODED_FROM)

    def _decode(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return decode_yolox(output, self.input_size)


class DecodedYoloxTeacher(YoloxTeacher):
    """A YOLOX that was exported with decoding: centre and size are pixels of the input."""

    kind = 'yolox-decoded'

    def _decode(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return box_corners(output[:, :2], output[:, 2:4]), output[:, 4:5] * output[:, 5:]


class Yolo11Teacher(_GridTeacher):
    """
    A YOLOv8 or YOLO11: the output is decoded and has no objectness.

    Its input is ``(1, 3, H, W)`` float32, RGB, 0 to 1. Its output is ``(1, 84, A)``, a column per
    cell: centre and size in pixels of the input, then 80 class scores after the sigmoid.
    """

    kind, name = 'yolo11', 'YOLO11'

    def _shape(self, count: int) -> list[int]:
        return [1, 4 + len(COCO_CLASSES), count]

    def _raw(self, padded: np.ndarray) -> np.ndarray:
        tensor = cv2.cvtColor(padded, cv2.COLOR_BGR2RGB).transpose(2, 0, 1) / np.float32(255)
        return self._model.run(np.ascontiguousarray(tensor)[None])[0][0].T

    def _decode(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return box_corners(output[:, :2], output[:, 2:4]), output[:, 4:]


def grid_cells(size: tuple[int, int], strides: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the places of the cells of all grids, and the stride of each cell.

    :param size: (height, width) of the network's input
    :returns: ``(A, 2)`` int64 column and row in its grid, and ``(A, 1)`` float32
    """
    places, steps = [], []
    for stride in strides:
        rows, columns = np.mgrid[:-(-size[0] // stride), :-(-size[1] // stride)]
        places.append(np.stack((columns.ravel(), rows.ravel()), 1))
        steps.append(np.full((rows.size, 1), stride, np.float32))
    return np.concatenate(places), np.concatenate(steps)


def box_corners(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Turn centres and sizes, each ``(N, 2)``, into boxes ``(N, 4)`` xyxy."""
    return np.concatenate((centre - size / 2, centre + size / 2), 1)


def decode_yolox(output: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """
    Turn raw output into boxes and scores.

    :param output: ``(A, 5 + classes)`` float32, relative to the grids of `STRIDES`
    :param size: (height, width) of the network's input
    :returns: ``(A, 4)`` xyxy in the input's pixels, and ``(A, classes)`` scores
    """
    cells, scale = grid_cells(size, STRIDES)
    centre = (output[:, :2] + cells) * scale
    boxes = box_corners(centre, np.exp(output[:, 2:4]) * scale)
    return boxes, output[:, 4:5] * output[:, 5:]


class NanodetTeacher:
    """
    A NanoDet-Plus for COCO.

    :param model: one input, sides multiples of 32: ``(1, 3, H, W)`` float32, normalised here with
        `MEAN` and `STD`; or ``(1, H, W, 3)`` uint8, normalised in the graph. One output ``(1, A,
        112)``, a row per grid cell of `NANODET_STRIDES`: 80 class scores after the sigmoid, then
        for left, top, right and bottom the logits of `BINS` distances.
    :param min_score, nms_threshold: see `choose_boxes`
    :param colour: order of the input's channels, one of `COLOURS`
    :raises TeacherError: if the network is not of this kind
    """

    kind = 'nanodet'

    def __init__(self, model: TeacherModel, min_score: float = 0.2, nms_threshold: float = 0.45,
                 colour: str = 'bgr') -> None:
        self._bytes = (model.input_type == 'tensor(uint8)' and len(model.input_shape) == 4
                       and model.input_shape[3] == 3)
        size = tuple(model.input_shape[1:3]) if self._bytes else model.fixed_size(32)
        if size is None or any(not isinstance(side, int) or side % 32 for side in size):
            raise TeacherError(f'{model.path}: has {model.summary}, a NanoDet has one input '
                               '(1, 3, H, W) float or (1, H, W, 3) uint8, sides multiples of 32')
        cells, self._strides = grid_cells((size[0], size[1]), NANODET_STRIDES)
        # Distances start at a cell's upper left corner (nanodet/model/head/nanodet_plus_head.py,
        # get_single_level_center_priors).
        self._centres = (cells * self._strides).astype(np.float32)
        wanted = [1, len(self._centres), len(COCO_CLASSES) + 4 * BINS]
        if [shape for _, shape, _ in model.outputs] != [wanted]:
            raise TeacherError(f'{model.path}: has {model.summary}, a NanoDet-Plus of this input '
                               f'size and COCO has one output {wanted}')
        self._model, self._rgb = model, colour == 'rgb'
        self.input_size = size[0], size[1]
        self.min_score, self.nms_threshold = min_score, nms_threshold

    def detect(self, image: np.ndarray) -> TeacherBoxes:
        """Label one picture, ``(H, W, 3)`` uint8, BGR."""
        padded, scale, corner = centred_letterbox(image, self.input_size)
        output = self._model.run(self._tensor(padded))[0][0]
        scores = output[:, :len(COCO_CLASSES)]
        labels, best = scores.argmax(1), scores.max(1)
        kept = best >= self.min_score
        reach = expected_sides(output[kept, len(COCO_CLASSES):]) * self._strides[kept]
        centres = self._centres[kept] - np.asarray(corner, np.float32)
        boxes = np.concatenate((centres - reach[:, :2], centres + reach[:, 2:]), 1) / scale
        return choose_boxes(boxes, labels[kept], best[kept], self.min_score, self.nms_threshold,
                            (image.shape[0], image.shape[1]))

    def _tensor(self, padded: np.ndarray) -> np.ndarray:
        if self._bytes:
            return cv2.cvtColor(padded, cv2.COLOR_BGR2RGB)[None] if self._rgb else padded[None]
        values = ((padded - np.array(MEAN)) / STD)[..., ::-1 if self._rgb else 1]
        return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)[None]


def expected_sides(logits: np.ndarray) -> np.ndarray:
    """
    Return the expectation of each side's distance (Li et al. 2020, "Generalized focal loss").

    :param logits: ``(N, 4 * BINS)`` float32
    :returns: ``(N, 4)`` float32: left, top, right, bottom in strides
    """
    weights = logits.reshape(-1, 4, BINS)
    weights = np.exp(weights - weights.max(2, keepdims=True))
    bins = np.arange(BINS, dtype=np.float32)
    return (weights * bins).sum(2) / weights.sum(2)
