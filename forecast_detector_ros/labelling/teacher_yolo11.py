# SPDX-License-Identifier: Apache-2.0
"""Teachers with the output of YOLOv8 and YOLO11: decoded boxes, class scores, no objectness."""

import cv2
import numpy as np

from .teacher import (
    choose_boxes,
    COCO_CLASSES,
    letterbox,
    TeacherBoxes,
    TeacherError,
    TeacherModel,
)
from .teacher_yolox import cells, corners, STRIDES


class Yolo11Teacher:
    """
    A detector whose output is decoded and has no objectness.

    :param model: one input ``(1, 3, H, W)`` float32, RGB, 0 to 1; one output ``(1, 84, A)``, a
        column per grid cell: centre and size in pixels of the input, then 80 class scores after
        the sigmoid
    :param min_score: lower limit of the class score, in [0, 1]
    :param nms_threshold: IoU from which on the weaker of two boxes of a class is dropped, in (0,
        1]
    :raises TeacherError: if the network is not of this kind
    """

    kind = 'yolo11'

    def __init__(self, model: TeacherModel, min_score: float = 0.2,
                 nms_threshold: float = 0.45) -> None:
        size = model.fixed_size(STRIDES[-1])
        if size is None:
            raise TeacherError(f'{model.path}: has {model.summary}, a YOLO11 has one float input '
                               f'(1, 3, H, W), sides multiples of {STRIDES[-1]}')
        wanted = [1, 4 + len(COCO_CLASSES), cells(size)]
        if [shape for _, shape, _ in model.outputs] != [wanted]:
            raise TeacherError(f'{model.path}: has {model.summary}, a YOLO11 of this input size '
                               f'and COCO has one output {wanted}')
        self._model = model
        self.input_size = size
        self.min_score = min_score
        self.nms_threshold = nms_threshold

    def detect(self, image: np.ndarray) -> TeacherBoxes:
        """Label one picture, ``(H, W, 3)`` uint8, BGR."""
        padded, scale = letterbox(image, self.input_size)
        tensor = cv2.cvtColor(padded, cv2.COLOR_BGR2RGB).transpose(2, 0, 1) / np.float32(255)
        output = self._model.run(np.ascontiguousarray(tensor)[None])[0][0].T
        scores = output[:, 4:]
        row, label = np.nonzero(scores >= self.min_score)
        boxes = corners(output[row, :2], output[row, 2:4]) / scale
        return choose_boxes(boxes, label, scores[row, label], self.min_score,
                            self.nms_threshold, (image.shape[0], image.shape[1]))
