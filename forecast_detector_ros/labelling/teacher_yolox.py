# SPDX-License-Identifier: Apache-2.0
"""Teachers of the YOLOX family: Ge et al. 2021, exported to ONNX with COCO's 80 classes."""

import numpy as np

from .teacher import (
    choose_boxes,
    COCO_CLASSES,
    letterbox,
    PADDING,
    TeacherBoxes,
    TeacherError,
    TeacherModel,
)

STRIDES = (8, 16, 32)  #: Strides of YOLOX's three grids, in the order of its output
#: Median centre from which on an output counts as decoded. Centres that are not decoded are
#: offsets of about one cell; decoded ones are pixels, half as large as the input in the middle.
DECODED_FROM = 4.0


class YoloxTeacher:
    """
    A YOLOX without decoding in the graph, as its own export makes it.

    :param model: one input ``(1, 3, H, W)`` float32, BGR, 0 to 255; one output ``(1, A, 85)``, a
        row per grid cell of `STRIDES`: centre and logarithmic size relative to the cell,
        objectness, and class scores (both after the sigmoid)
    :param min_score: lower limit of objectness times class score, in [0, 1]
    :param nms_threshold: IoU from which on the weaker of two boxes of a class is dropped, in (0,
        1]; 0.45 is YOLOX's
    :raises TeacherError: if the network is not of this kind
    """

    kind = 'yolox'

    def __init__(self, model: TeacherModel, min_score: float = 0.2,
                 nms_threshold: float = 0.45) -> None:
        size = model.fixed_size(STRIDES[-1])
        if size is None:
            raise TeacherError(f'{model.path}: has {model.summary}, a YOLOX has one float input '
                               f'(1, 3, H, W), sides multiples of {STRIDES[-1]}')
        wanted = [1, cells(size), 5 + len(COCO_CLASSES)]
        if [shape for _, shape, _ in model.outputs] != [wanted]:
            raise TeacherError(f'{model.path}: has {model.summary}, a YOLOX of this input size '
                               f'and COCO has one output {wanted}')
        self._model = model
        self.input_size = size
        self.min_score = min_score
        self.nms_threshold = nms_threshold

    def detect(self, image: np.ndarray) -> TeacherBoxes:
        """Label one picture, ``(H, W, 3)`` uint8, BGR."""
        padded, scale = letterbox(image, self.input_size)
        boxes, scores = self._decode(self._raw(padded))
        row, label = np.nonzero(scores >= self.min_score)
        return choose_boxes(boxes[row] / scale, label, scores[row, label], self.min_score,
                            self.nms_threshold, (image.shape[0], image.shape[1]))

    def looks_decoded(self) -> bool:
        """Say whether the output for a grey picture is in pixels rather than in cells."""
        grey = np.full((*self.input_size, 3), PADDING, np.uint8)
        return bool(np.median(np.abs(self._raw(grey)[:, :2])) > DECODED_FROM)

    def _raw(self, padded: np.ndarray) -> np.ndarray:
        tensor = np.ascontiguousarray(padded.transpose(2, 0, 1), np.float32)[None]
        return self._model.run(tensor)[0][0]

    def _decode(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return decode_yolox(output, self.input_size)


class DecodedYoloxTeacher(YoloxTeacher):
    """A YOLOX that was exported with its decoding: centre and size are pixels of the input."""

    kind = 'yolox-decoded'

    def _decode(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return corners(output[:, :2], output[:, 2:4]), output[:, 4:5] * output[:, 5:]


def cells(size: tuple[int, int]) -> int:
    """Count the cells of all grids of an input of (height, width)."""
    return sum(size[0] // stride * (size[1] // stride) for stride in STRIDES)


def corners(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Turn centres and sizes, each ``(N, 2)``, into boxes ``(N, 4)`` xyxy."""
    return np.concatenate((centre - size / 2, centre + size / 2), 1)


def decode_yolox(output: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """
    Turn raw output into boxes and scores.

    :param output: ``(A, 5 + classes)`` float32, relative to the grids of `STRIDES`
    :param size: (height, width) of the network's input
    :returns: ``(A, 4)`` xyxy in the input's pixels, and ``(A, classes)`` scores
    """
    grids, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[:size[0] // stride, :size[1] // stride]
        grids.append(np.stack((columns, rows), -1).reshape(-1, 2))
        strides.append(np.full((rows.size, 1), stride))
    scale = np.concatenate(strides).astype(np.float32)
    centre = (output[:, :2] + np.concatenate(grids)) * scale
    boxes = corners(centre, np.exp(output[:, 2:4]) * scale)
    return boxes, output[:, 4:5] * output[:, 5:]
