# SPDX-License-Identifier: Apache-2.0
"""Teachers from torchvision: SSD, SSDLite, RetinaNet, FCOS, Faster R-CNN, exported to ONNX."""

import cv2
import numpy as np

from .teacher import choose_boxes, COCO_CLASSES, TeacherBoxes, TeacherError, TeacherModel

#: Ids between 1 and 90 that COCO's detection task leaves out; torchvision calls them N/A.
UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
#: COCO's id of each of `COCO_CLASSES`; torchvision's detectors give these ids as labels.
COCO_IDS = tuple(key for key in range(1, 91) if key not in UNUSED_IDS)


class TorchvisionTeacher:
    """
    A detector of torchvision with its own pre- and post-processing in the graph.

    :param model: one float32 input ``(1, 3, H, W)`` or ``(3, H, W)``, RGB, 0 to 1. Where the file
        fixes H and W, pictures are stretched to them, as torchvision's SSD does itself; else they
        go in as they are. Three outputs in any order: boxes ``(N, 4)`` xyxy in pixels of the
        input, labels ``(N,)`` integers (COCO's ids), scores ``(N,)``.
    :param min_score: lower limit of the score, in [0, 1]
    :param nms_threshold: IoU from which on the weaker of two boxes of a class is dropped, in (0,
        1]
    :raises TeacherError: if the network is not of this kind
    """

    kind = 'torchvision'

    def __init__(self, model: TeacherModel, min_score: float = 0.2,
                 nms_threshold: float = 0.45) -> None:
        shape = model.input_shape
        if (model.input_type != 'tensor(float)' or len(shape) not in (3, 4)
                or shape[-3] != 3):
            raise TeacherError(f'{model.path}: has {model.summary}, a detector of torchvision '
                               'has one float input (1, 3, H, W) or (3, H, W)')
        self._order = _order(model)
        self._batched = len(shape) == 4
        fixed = all(isinstance(side, int) for side in shape[-2:])
        self.input_size: tuple[int, int] | None = (shape[-2], shape[-1]) if fixed else None
        self._model = model
        self.min_score = min_score
        self.nms_threshold = nms_threshold
        # Index of each of COCO's ids, -1 for those that are no class.
        self._index = np.full(COCO_IDS[-1] + 1, -1)
        self._index[list(COCO_IDS)] = np.arange(len(COCO_CLASSES))

    def detect(self, image: np.ndarray) -> TeacherBoxes:
        """Label one picture, ``(H, W, 3)`` uint8, BGR."""
        height, width = image.shape[:2]
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        rows, columns = self.input_size or (height, width)
        if (rows, columns) != (height, width):
            rgb = cv2.resize(rgb, (columns, rows), interpolation=cv2.INTER_LINEAR)
        tensor = np.ascontiguousarray(rgb.transpose(2, 0, 1) / np.float32(255))
        outputs = self._model.run(tensor[None] if self._batched else tensor)
        boxes, labels, scores = (outputs[at] for at in self._order)
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self._index):
            raise TeacherError(f'{self._model.path}: gives labels from {labels.min()} to '
                               f'{labels.max()}, COCO has 1 to {COCO_IDS[-1]}')
        labels = self._index[labels]
        known = labels >= 0
        factors = np.array([width / columns, height / rows] * 2, np.float32)
        return choose_boxes(boxes[known] * factors, labels[known], scores[known],
                            self.min_score, self.nms_threshold, (height, width))


def _order(model: TeacherModel) -> tuple[int, int, int]:
    """Find boxes, labels and scores among the outputs: SSD and R-CNN order them differently."""
    def matching(wanted: tuple[str, ...], rank: int) -> list[int]:
        return [at for at, (_, shape, kind) in enumerate(model.outputs)
                if kind in wanted and len(shape) == rank]

    boxes = matching(('tensor(float)',), 2)
    labels = matching(('tensor(int64)', 'tensor(int32)'), 1)
    scores = matching(('tensor(float)',), 1)
    if len(model.outputs) != 3 or not (len(boxes) == len(labels) == len(scores) == 1):
        raise TeacherError(f'{model.path}: has {model.summary}, a detector of torchvision has '
                           'three outputs: boxes (N, 4), labels (N,) integers, scores (N,)')
    return boxes[0], labels[0], scores[0]
