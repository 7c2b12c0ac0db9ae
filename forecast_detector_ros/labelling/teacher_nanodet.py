# SPDX-License-Identifier: Apache-2.0
"""Teachers of the family of NanoDet-Plus (https://github.com/RangiLyu/nanodet)."""
from __future__ import annotations

import cv2
import numpy as np

from .teacher import (
    centred_letterbox,
    choose_boxes,
    COCO_CLASSES,
    TeacherBoxes,
    TeacherError,
    TeacherModel,
)

STRIDES = (8, 16, 32, 64)  #: Strides of the four grids (config/nanodet-plus-m-1.5x_416.yml)
BINS = 8  #: A side is a distribution over 0 to 7 strides: reg_max 7, as there
#: Of BGR, as there; for networks that do not normalise their input themselves.
MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
COLOURS = ('bgr', 'rgb')


class NanodetTeacher:
    """
    A NanoDet-Plus for COCO.

    :param model: one input, sides multiples of 32: ``(1, 3, H, W)`` float32, normalised here with
        `MEAN` and `STD`; or ``(1, H, W, 3)`` uint8, normalised in the graph. One output ``(1, A,
        112)``, a row per grid cell of `STRIDES`: 80 class scores after the sigmoid, then for left,
        top, right and bottom the logits of `BINS` distances.
    :param min_score: lower limit of the class score, in [0, 1]
    :param nms_threshold: IoU from which on the weaker of two boxes of a class is dropped, in (0,
        1]
    :param colour: order of the channels that the network wants, one of `COLOURS`
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
        self._centres, self._strides = cell_centres((size[0], size[1]))
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
        reach = expected_sides(output[kept, len(COCO_CLASSES):]) * self._strides[kept, None]
        centres = self._centres[kept] - np.asarray(corner, np.float32)
        boxes = np.concatenate((centres - reach[:, :2], centres + reach[:, 2:]), 1) / scale
        return choose_boxes(boxes, labels[kept], best[kept], self.min_score, self.nms_threshold,
                            (image.shape[0], image.shape[1]))

    def _tensor(self, padded: np.ndarray) -> np.ndarray:
        if self._bytes:
            return cv2.cvtColor(padded, cv2.COLOR_BGR2RGB)[None] if self._rgb else padded[None]
        values = ((padded - np.array(MEAN)) / STD)[..., ::-1 if self._rgb else 1]
        return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)[None]


def cell_centres(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """
    Return where the cells of all grids look from, and the stride of each.

    :param size: (height, width) of the network's input
    :returns: ``(A, 2)`` float32 x, y in the input's pixels: column and row times stride, without
        half a cell (nanodet/model/head/nanodet_plus_head.py, get_single_level_center_priors); and
        ``(A,)`` float32
    """
    centres, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[:-(-size[0] // stride), :-(-size[1] // stride)]
        centres.append(np.stack((columns.ravel(), rows.ravel()), 1) * stride)
        strides.append(np.full(rows.size, stride))
    return (np.concatenate(centres).astype(np.float32),
            np.concatenate(strides).astype(np.float32))


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
