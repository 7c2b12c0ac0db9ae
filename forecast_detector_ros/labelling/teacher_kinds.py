# SPDX-License-Identifier: Apache-2.0
"""Open a teacher of any kind, told or found out, or several of them."""
from __future__ import annotations

from pathlib import Path

from .openvino_model import OpenVinoModel
from .teacher import OnnxModel, Teacher, TeacherError, TeacherModel
from .teacher_ensemble import EnsembleTeacher, load_ensemble, MemberConfig
from .teacher_nanodet import NanodetTeacher
from .teacher_ssd import SsdTeacher
from .teacher_torchvision import TorchvisionTeacher
from .teacher_yolo11 import Yolo11Teacher
from .teacher_yolox import DecodedYoloxTeacher, YoloxTeacher

AUTO = 'auto'

#: The kinds of teachers in one ONNX or OpenVINO file by their names.
KINDS = {kind.kind: kind for kind in (YoloxTeacher, DecodedYoloxTeacher, Yolo11Teacher,
                                      NanodetTeacher, TorchvisionTeacher)}


def open_teacher(path: Path, kind: str = AUTO, min_score: float = 0.2,
                 nms_threshold: float = 0.45, threads: int = 1,
                 prefer_openvino: bool = False) -> Teacher:
    """
    Open a teacher.

    :param path: the network's ``.onnx`` or OpenVINO's ``.xml``, or the ``.yaml`` of an ensemble
    :param kind: a key of `KINDS`, or `AUTO` to take the kind that fits the network's input and
        output
    :param min_score, nms_threshold: which boxes are kept, see the kinds
    :param threads: threads that the network's runtime may use
    :param prefer_openvino: run an ``.onnx`` with OpenVINO, too, instead of onnxruntime
    :raises TeacherError: if the runtime is missing, a file cannot be loaded, or it is not of the
        kind, or of none
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
