# SPDX-License-Identifier: Apache-2.0
"""
Teachers of two families: SSD-MobileNetV2 of TensorFlow, and the detectors of torchvision.

The first runs in PyTorch. Network and constants are those of
samples/configs/ssd_mobilenet_v2_coco.config and
anchor_generators/multiple_grid_anchor_generator.py in
https://github.com/tensorflow/models/tree/master/research/object_detection.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
import torch
from torch import nn, Tensor
from torch.nn import functional
from torchvision.models import mobilenet_v2
from torchvision.models.feature_extraction import create_feature_extractor

from .teacher import (
    choose_boxes,
    COCO_CLASSES,
    TEACHER_CLASSES,
    TeacherBoxes,
    TeacherError,
    TeacherModel,
)
from ..errors import one_line

SIDE = 300  #: Pixels of both sides of the input
LEVELS = 6
#: Anchors of the first and of the last map, fractions of the input.
MIN_SCALE, MAX_SCALE = 0.2, 0.95
ASPECTS = (1.0, 2.0, 0.5, 3.0, 0.3333)
#: Scale and aspect ratio of the anchors of the first map (reduce_boxes_in_lowest_layer).
FIRST_ANCHORS = ((0.1, 1.0), (MIN_SCALE, 2.0), (MIN_SCALE, 0.5))
#: Factors of centre y, x, height and width in the box predictors' output.
CODER = (10.0, 10.0, 5.0, 5.0)
EXTRA_MAPS = 4


class SsdTeacher:
    """
    SSD-MobileNetV2 1.0.

    :param backbone: safetensors with the keys of torchvision's ``mobilenet_v2``; its classifier
        may be missing
    :param heads: safetensors with weights and biases. ``extra.N.0`` (1x1) and ``extra.N.1`` (3x3,
        stride 2) have N from 0 to 3; ``box.N`` and ``cls.N`` (1x1) have N from 0 to 5. Channels
        are ordered by anchor: centre y, x, height, width, or the logit of each class.
    :param classes: the class of each logit, of `TEACHER_CLASSES`; None for unused logits, such as
        the background
    :param min_score, nms_threshold: see `choose_boxes`
    :raises TeacherError: if a file cannot be read or does not fit
    """

    kind = 'ssd-mobilenet-v2'

    def __init__(self, backbone: Path, heads: Path, classes: Sequence[str | None],
                 min_score: float = 0.2, nms_threshold: float = 0.45) -> None:
        network = mobilenet_v2(weights=None)
        weights = _load(backbone)
        for key in [key for key in weights if key.startswith('classifier.')]:
            del weights[key]
        try:
            lost = network.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            raise TeacherError(f'{backbone}: does not fit MobileNetV2: {one_line(error)}'
                               ) from None
        missing = [key for key in (*lost.missing_keys, *lost.unexpected_keys)
                   if not key.startswith('classifier.')]
        if missing:
            raise TeacherError(f'{backbone}: does not fit MobileNetV2: {missing[0]} is missing, '
                               'or is none of its keys')
        _pad_as_tensorflow(network)
        # Stride 16 (expansion of block 14) and stride 32, the inputs of the two first predictors.
        self._backbone = create_feature_extractor(
            network.eval(), {'features.14.conv.0': 'fine', 'features.18': 'coarse'})
        self._heads = {key: value.float() for key, value in _load(heads).items()}
        self._heads_path, self._classes = heads, classes
        self._known = np.array([name is not None for name in classes])
        self._labels = np.array([0 if name is None else TEACHER_CLASSES.index(name)
                                 for name in classes])
        self.min_score, self.nms_threshold = min_score, nms_threshold
        codes, logits, sides = self._raw(np.zeros((SIDE, SIDE, 3), np.uint8))
        self._anchors = tensorflow_anchors(sides)
        if len(codes) != len(self._anchors) or logits.shape != (len(codes), len(classes)):
            raise TeacherError(f'{heads}: gives {len(codes)} boxes and {logits.size} scores, must '
                               f'be {len(self._anchors)} with {len(classes)} classes each')

    def detect(self, image: np.ndarray) -> TeacherBoxes:
        """Label one picture, ``(H, W, 3)`` uint8, BGR."""
        height, width = image.shape[:2]
        codes, logits, _ = self._raw(cv2.resize(image, (SIDE, SIDE)))
        scores = 1 / (1 + np.exp(-logits))
        if not self._known[0]:
            # Background has its own sigmoid, so its score does not reduce those of the classes.
            scores[:, 0] = 0
        best, label = scores.max(1), scores.argmax(1)
        kept = (best >= self.min_score) & self._known[label]
        boxes = tensorflow_boxes(codes[kept], self._anchors[kept]) * (width, height, width, height)
        return choose_boxes(boxes.astype(np.float32), self._labels[label[kept]], best[kept],
                            self.min_score, self.nms_threshold, (height, width))

    @torch.inference_mode()
    def _raw(self, bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Return codes (A, 4), logits (A, classes), and the side of each map."""
        pixels = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).transpose(2, 0, 1) / np.float32(127.5) - 1
        found = self._backbone(torch.from_numpy(pixels)[None])
        maps = [found['fine'], found['coarse']]
        try:
            for level in range(EXTRA_MAPS):
                narrow = functional.relu6(self._convolve(maps[-1], f'extra.{level}.0'))
                maps.append(functional.relu6(
                    self._convolve(_same(narrow), f'extra.{level}.1', stride=2)))
            codes, logits = (torch.cat([
                self._convolve(features, f'{part}.{level}').permute(0, 2, 3, 1).reshape(-1, size)
                for level, features in enumerate(maps)]).numpy()
                for part, size in (('box', 4), ('cls', len(self._classes))))
        except (KeyError, RuntimeError) as error:
            raise TeacherError(f'{self._heads_path}: does not fit: {one_line(error)}') from None
        return codes, logits, [features.shape[-1] for features in maps]

    def _convolve(self, features: Tensor, key: str, stride: int = 1) -> Tensor:
        return functional.conv2d(features, self._heads[f'{key}.weight'],
                                 self._heads[f'{key}.bias'], stride)


def tensorflow_anchors(sides: Sequence[int]) -> np.ndarray:
    """Return ``(A, 4)`` float32 centre x, y, width, height, 0 to 1, for maps of these sides."""
    step = (MAX_SCALE - MIN_SCALE) / (LEVELS - 1)
    scales = [MIN_SCALE + step * level for level in range(LEVELS)] + [1.0]
    anchors = []
    for level, side in enumerate(sides):
        shapes = list(FIRST_ANCHORS) if level == 0 else [
            *((scales[level], aspect) for aspect in ASPECTS),
            (math.sqrt(scales[level] * scales[level + 1]), 1.0)]
        sizes = np.array([(scale * math.sqrt(aspect), scale / math.sqrt(aspect))
                          for scale, aspect in shapes])
        rows, columns, number = np.mgrid[:side, :side, :len(sizes)].reshape(3, -1)
        centres = (np.stack((columns, rows), 1) + 0.5) / side
        anchors.append(np.concatenate((centres, sizes[number]), 1))
    return np.concatenate(anchors).astype(np.float32)


def tensorflow_boxes(codes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return boxes ``(N, 4)`` xyxy, 0 to 1, of codes (y, x, height, width) and anchors."""
    y, x, height, width = (codes / CODER).T
    centre = np.stack((x, y), 1) * anchors[:, 2:] + anchors[:, :2]
    half = np.exp(np.stack((width, height), 1)) * anchors[:, 2:] / 2
    return np.concatenate((centre - half, centre + half), 1)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise TeacherError(f'{path}: no such file') from None
    except (OSError, SafetensorError) as error:
        raise TeacherError(f'{path}: is no safetensors file: {one_line(error)}') from None


def _same(features: Tensor) -> Tensor:
    """Pad as TensorFlow's SAME does for a kernel of 3 and a stride of 2: more at the end."""
    rows, columns = (max(0, 2 * -(-side // 2) + 1 - side) for side in features.shape[-2:])
    return functional.pad(features, (columns // 2, columns - columns // 2,
                                     rows // 2, rows - rows // 2))


def _pad_as_tensorflow(network: nn.Module) -> None:
    """Give the strided convolutions of a network TensorFlow's padding."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            module.padding = (0, 0)
            module.register_forward_pre_hook(lambda _, inputs: (_same(inputs[0]),))


#: Ids between 1 and 90 that COCO's detection task leaves out; torchvision calls them N/A.
UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
#: COCO's id of each of `COCO_CLASSES`; torchvision's detectors give these ids as labels.
COCO_IDS = tuple(key for key in range(1, 91) if key not in UNUSED_IDS)


class TorchvisionTeacher:
    """
    A detector of torchvision with its own pre- and post-processing in the graph.

    :param model: one float32 input ``(1, 3, H, W)`` or ``(3, H, W)``, RGB, 0 to 1. Where the file
        fixes H and W, pictures are stretched to them, as in torchvision's SSD; else they keep
        their size. Three outputs in any order: boxes ``(N, 4)`` xyxy in pixels of the input,
        labels ``(N,)`` integers (COCO's ids), scores ``(N,)``.
    :param min_score, nms_threshold: see `choose_boxes`
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
        # Index of each of COCO's ids, -1 for unused ids.
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
