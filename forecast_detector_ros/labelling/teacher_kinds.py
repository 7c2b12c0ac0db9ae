# SPDX-License-Identifier: Apache-2.0
"""
Open a teacher of a given or detected kind, or an ensemble of teachers with fused boxes.

The fusion follows Solovyev, Wang, Gabruseva, "Weighted boxes fusion", Image and Vision Computing
107 (2021), with two changes. A detector has at most one box for an object, and an object's score
is the mean over the detectors that have its class. The authors' package, ensemble-boxes, does
neither, needs numba and pandas, and has had no release since 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import hashlib
from pathlib import Path

import numpy as np

from .teacher import (
    OnnxModel,
    OpenVinoModel,
    Teacher,
    TEACHER_CLASSES,
    TeacherBoxes,
    TeacherError,
    TeacherModel,
)
from .teacher_ssd import SsdTeacher, TorchvisionTeacher
from .teacher_yolo import COLOURS, DecodedYoloxTeacher, NanodetTeacher, Yolo11Teacher, YoloxTeacher
from ..boxes import box_iou
from ..plain_values import build, PlainValueError, PlainYamlError, read_plain_yaml

AUTO = 'auto'

FUSED_IOU = 0.55  #: Boxes of two detectors above this IoU show one object (section 4, THR)

#: The kinds of teachers that are one ONNX or OpenVINO file, by their names.
KINDS = {kind.kind: kind for kind in (YoloxTeacher, DecodedYoloxTeacher, Yolo11Teacher,
                                      NanodetTeacher, TorchvisionTeacher)}


@dataclass(frozen=True)
class MemberConfig:
    """
    One detector of an ensemble.

    :raises TeacherError: if a value is impossible
    """

    kind: str  #: One of `KINDS`, or `ssd-mobilenet-v2`
    #: File of the network, relative to the YAML: .onnx, OpenVINO's .xml, or .safetensors.
    model: str
    heads: str = ''  #: ssd-mobilenet-v2: file of the layers after the backbone
    weight: float = 1.0  #: Weight of its boxes and scores, above 0
    #: .xml: height and width of the input; null for those of the file.
    input_size: tuple[int, int] | None = None
    colour: str = 'bgr'  #: nanodet: order of the input's channels, bgr or rgb
    float_activations: bool = False  #: .xml: remove the quantisers of an int8 network
    #: ssd-mobilenet-v2: the class of each output, null for an unused one. Others: the classes that
    #: are used, empty for all of COCO's.
    classes: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        for name in self.classes:
            if name is not None and name not in TEACHER_CLASSES:
                raise TeacherError(f'classes has {name!r}, must be of '
                                   f'{", ".join(TEACHER_CLASSES)}')
        if not self.weight > 0:
            raise TeacherError(f'weight is {self.weight:g}, must be above 0')
        if self.colour not in COLOURS:
            raise TeacherError(f'colour is {self.colour!r}, must be {" or ".join(COLOURS)}')
        if self.colour != 'bgr' and self.kind != NanodetTeacher.kind:
            raise TeacherError(f'colour is for {NanodetTeacher.kind}, not for {self.kind}')
        if bool(self.heads) != (self.kind == SsdTeacher.kind):
            raise TeacherError(f'heads is needed for {SsdTeacher.kind}, and for nothing else')
        if not self.model.endswith('.xml') and (self.input_size or self.float_activations):
            raise TeacherError("input_size and float_activations are for OpenVINO's .xml, not "
                               f'for {self.model}')


@dataclass(frozen=True)
class EnsembleConfig:
    """
    Several detectors, and the settings of their fusion.

    :raises TeacherError: if a value is impossible
    """

    members: tuple[MemberConfig, ...]

    iou: float = FUSED_IOU  #: Boxes of two members above this IoU show one object
    #: Smallest score of a member's box; lower than that of the ensemble, because a fused score is
    #: lower than the best score of its boxes.
    member_score: float = 0.12

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.members:
            raise TeacherError('members is empty')
        for key in ('iou', 'member_score'):
            if not 0 < getattr(self, key) < 1:
                raise TeacherError(f'{key} is {getattr(self, key):g}, must be between 0 and 1')


def load_ensemble(path: Path) -> EnsembleConfig:
    """
    Read the YAML file of an ensemble.

    :raises TeacherError: if it cannot be read, or a key is unknown, missing, of the wrong type or
        out of range
    """
    try:
        return build(EnsembleConfig, read_plain_yaml(path))
    except FileNotFoundError:
        raise TeacherError(f'{path}: no such file') from None
    except (PlainValueError, PlainYamlError, TeacherError) as error:
        raise TeacherError(f'{path}: {error}') from None


class EnsembleTeacher:
    """
    Detectors whose boxes are fused, see `fuse_boxes`.

    :param members: the detectors, opened with their thresholds of score and NMS
    :param config: has the same members, in the same order
    :param min_score: smallest fused score, in [0, 1]
    """

    def __init__(self, members: Sequence[Teacher], config: EnsembleConfig,
                 min_score: float = 0.2) -> None:
        self._members, self._config, self.min_score = members, config, min_score
        self._weights = [member.weight for member in config.members]
        self._knows = np.array([
            [not member.classes or name in member.classes for name in TEACHER_CLASSES]
            for member in config.members])
        self.kind = 'ensemble: ' + ', '.join(map(_described, config.members))

    def detect(self, image: np.ndarray) -> TeacherBoxes:
        """Label one picture, ``(H, W, 3)`` uint8, BGR."""
        found = []
        for member, knows in zip(self._members, self._knows):
            boxes = member.detect(image)
            kept = knows[boxes.labels]
            found.append(TeacherBoxes(boxes.boxes[kept], boxes.labels[kept], boxes.scores[kept]))
        return fuse_boxes(found, self._knows, self._weights, self.min_score, self._config.iou)


def _described(member: MemberConfig) -> str:
    size = '' if member.input_size is None else f' {member.input_size[0]}x{member.input_size[1]}'
    weight = '' if member.weight == 1 else f' x {member.weight:g}'
    return f'{member.kind} {Path(member.model).name}{size}{weight}'


def fuse_boxes(found: Sequence[TeacherBoxes], knows: np.ndarray, weights: Sequence[float],
               min_score: float, iou: float = FUSED_IOU) -> TeacherBoxes:
    """
    Fuse the boxes that several detectors found in a picture.

    Boxes are sorted by weight times score. Each is added to the object of its class with the
    largest overlap above `iou`, or starts a new object. A second box of one detector for one
    object is dropped. An object's box is the mean of its boxes, weighted by weight times score.

    :param found: boxes of each of M detectors
    :param knows: ``(M, C)`` bool: whether the detector has the class
    :param weights: weight of each detector, above 0
    :param min_score: smallest score of an object: the weighted mean over the detectors that have
        its class
    :param iou: in (0, 1)
    """
    weight = np.asarray(weights, np.float64)
    boxes = np.concatenate([item.boxes for item in found]).astype(np.float64)
    labels = np.concatenate([item.labels for item in found])
    member = np.concatenate([np.full(len(item.labels), m) for m, item in enumerate(found)])
    mass = np.concatenate([item.scores * w for item, w in zip(found, weight)])
    objects, owner = _objects(boxes, labels, member, mass, iou)
    scores = np.bincount(owner[owner >= 0], mass[owner >= 0], len(objects))
    kinds = labels[objects] if objects else labels[:0]
    scores = scores / (knows[:, kinds] * weight[:, None]).sum(0)
    fused = np.array([np.average(boxes[owner == n], axis=0, weights=mass[owner == n])
                      for n in range(len(objects))], np.float32).reshape(-1, 4)
    order = np.argsort(-scores, kind='stable')
    order = order[scores[order] >= min_score]
    return TeacherBoxes(fused[order], kinds[order].astype(np.int64),
                        scores[order].astype(np.float32))


def _objects(boxes: np.ndarray, labels: np.ndarray, member: np.ndarray, mass: np.ndarray,
             iou: float) -> tuple[list[int], np.ndarray]:
    """Return the first box of each object, and each box's object; -1 for those dropped."""
    objects: list[int] = []
    owner = np.full(len(boxes), -1)
    sums, masses = np.zeros_like(boxes), np.zeros(len(boxes))
    for box in np.argsort(-mass, kind='stable'):
        same = [n for n, first in enumerate(objects) if labels[first] == labels[box]]
        overlap = box_iou(boxes[[box]], sums[same] / masses[same, None])[0]
        best = same[overlap.argmax()] if len(same) and overlap.max() > iou else len(objects)
        if best == len(objects):
            objects.append(int(box))
        elif (member[owner == best] == member[box]).any():
            continue
        owner[box] = best
        sums[best] += boxes[box] * mass[box]
        masses[best] += mass[box]
    return objects, owner


def open_teacher(path: Path, kind: str = AUTO, min_score: float = 0.2,
                 nms_threshold: float = 0.45, threads: int = 1,
                 prefer_openvino: bool = False) -> Teacher:
    """
    Open a teacher.

    :param path: the network's ``.onnx`` or OpenVINO's ``.xml``, or the ``.yaml`` of an ensemble
    :param kind: a key of `KINDS`, or `AUTO` for the kind that fits the network's input and output
    :param min_score, nms_threshold: see `choose_boxes`
    :param threads: threads that the network's runtime may use
    :param prefer_openvino: whether to run also an ``.onnx`` with OpenVINO, not onnxruntime
    :raises TeacherError: if the runtime is missing, a file cannot be loaded, or it is not of the
        given or of any kind
    """
    if path.suffix in ('.yaml', '.yml'):
        if kind != AUTO:
            raise TeacherError(f'{path}: names the kinds of its members, so it cannot be {kind}')
        return _open_ensemble(path, min_score, nms_threshold, threads)
    model = OpenVinoModel(path, threads) if prefer_openvino else _open_model(path, threads)
    if kind != AUTO:
        return KINDS[kind](model, min_score, nms_threshold)
    for candidate in (YoloxTeacher, Yolo11Teacher, NanodetTeacher, TorchvisionTeacher):
        try:
            teacher = candidate(model, min_score, nms_threshold)
        except TeacherError:
            continue
        if isinstance(teacher, YoloxTeacher) and teacher.looks_decoded():
            return DecodedYoloxTeacher(model, min_score, nms_threshold)
        return teacher
    raise TeacherError(
        f'{path}: has {model.summary}, which no known kind of teacher has: yolox has one output '
        '(1, cells, 85), yolo11 one (1, 84, cells), nanodet one (1, cells, 112), torchvision '
        'boxes (N, 4), labels (N,) and scores (N,), for COCO and a float input (1, 3, H, W)')


def digest(path: Path) -> str:
    """Return 12 hexadecimal digits that identify the content of all files of a teacher."""
    files = [path]
    if path.suffix in ('.yaml', '.yml'):
        files += [path.parent / name for member in load_ensemble(path).members
                  for name in (member.model, member.heads) if name]
    files += [file.with_suffix('.bin') for file in files if file.suffix == '.xml']
    result = hashlib.sha256()
    for file in files:
        result.update(file.read_bytes())
    return result.hexdigest()[:12]


def _open_model(path: Path, threads: int, input_size: tuple[int, int] | None = None,
                float_activations: bool = False) -> TeacherModel:
    if path.suffix == '.xml':
        return OpenVinoModel(path, threads, input_size, float_activations)
    return OnnxModel(path, threads)


def _open_ensemble(path: Path, min_score: float, nms_threshold: float,
                   threads: int) -> EnsembleTeacher:
    config = load_ensemble(path)
    members = []
    for number, member in enumerate(config.members):
        try:
            members.append(_open_member(member, path.parent, config.member_score, nms_threshold,
                                        threads))
        except TeacherError as error:
            raise TeacherError(f'{path}: members[{number}]: {error}') from None
    return EnsembleTeacher(members, config, min_score)


def _open_member(member: MemberConfig, folder: Path, min_score: float, nms_threshold: float,
                 threads: int) -> Teacher:
    path = folder / member.model
    if member.kind == SsdTeacher.kind:
        return SsdTeacher(path, folder / member.heads, member.classes, min_score, nms_threshold)
    if member.kind not in KINDS:
        raise TeacherError(f'kind is {member.kind!r}, must be one of '
                           f'{", ".join([*KINDS, SsdTeacher.kind])}')
    model = _open_model(path, threads, member.input_size, member.float_activations)
    if member.kind == NanodetTeacher.kind:
        return NanodetTeacher(model, min_score, nms_threshold, member.colour)
    return KINDS[member.kind](model, min_score, nms_threshold)
