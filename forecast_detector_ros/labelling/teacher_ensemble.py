# SPDX-License-Identifier: Apache-2.0
"""A teacher of several: a YAML file names them, and their boxes are fused."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .box_fusion import fuse_boxes, FUSED_IOU
from .teacher import Teacher, TEACHER_CLASSES, TeacherBoxes, TeacherError
from .teacher_nanodet import COLOURS, NanodetTeacher
from .teacher_ssd import SsdTeacher
from ..plain_values import build, PlainValueError
from ..plain_yaml import PlainYamlError, read_plain_yaml


@dataclass(frozen=True)
class MemberConfig:
    """
    One detector of an ensemble.

    :raises TeacherError: if a value is impossible
    """

    kind: str  #: One of `teacher_kinds.KINDS`, or `ssd-mobilenet-v2`
    #: File of the network, relative to the YAML: .onnx, OpenVINO's .xml, or .safetensors.
    model: str
    heads: str = ''  #: ssd-mobilenet-v2: file of what stands behind the backbone
    weight: float = 1.0  #: How much its boxes and scores count
    #: Height and width; .xml: where they are to differ from the file's.
    input_size: tuple[int, int] | None = None
    colour: str = 'bgr'  #: nanodet: order of the channels that it wants, bgr or rgb
    float_activations: bool = False  #: .xml: leave out the quantisers of an int8 network
    #: ssd-mobilenet-v2: the class of each output, null for one that is passed over. Others: the
    #: classes that count, empty for all of COCO's.
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
    Several detectors, and how their boxes become one set.

    :raises TeacherError: if a value is impossible
    """

    members: tuple[MemberConfig, ...]

    iou: float = FUSED_IOU  #: Overlap above which boxes of two members show one object
    #: Boxes of a member with a lower score do not take part; a fused score is lower than the best
    #: of its parts.
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

    :param members: the detectors, opened with the score and NMS that each is to have
    :param config: of the same members, in the same order
    :param min_score: lower limit of the fused score, in [0, 1]
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
