# SPDX-License-Identifier: Apache-2.0
"""Open a teacher of any kind, told or found out."""

from pathlib import Path

from .teacher import OnnxModel, Teacher, TeacherError
from .teacher_torchvision import TorchvisionTeacher
from .teacher_yolo11 import Yolo11Teacher
from .teacher_yolox import DecodedYoloxTeacher, YoloxTeacher

AUTO = 'auto'

KINDS = {kind.kind: kind for kind in (YoloxTeacher, DecodedYoloxTeacher, Yolo11Teacher,
                                      TorchvisionTeacher)}
"""The kinds of teachers by their names."""


def open_teacher(path: Path, kind: str = AUTO, min_score: float = 0.2,
                 nms_threshold: float = 0.45, threads: int = 1) -> Teacher:
    """
    Open a teacher.

    Parameters
    ----------
    path:
        The ``.onnx`` file.
    kind:
        A key of `KINDS`, or `AUTO` to take the kind that fits the network's input and output.
    min_score, nms_threshold:
        Which boxes are kept, see the kinds.
    threads:
        Threads that onnxruntime may use.

    Raises
    ------
    TeacherError
        If onnxruntime is missing, the file cannot be loaded, or it is not of the kind, or of
        none.

    """
    model = OnnxModel(path, threads)
    if kind != AUTO:
        return KINDS[kind](model, min_score, nms_threshold)
    for candidate in (YoloxTeacher, Yolo11Teacher, TorchvisionTeacher):
        try:
            teacher = candidate(model, min_score, nms_threshold)
        except TeacherError:
            continue
        if isinstance(teacher, YoloxTeacher) and teacher.looks_decoded():
            return DecodedYoloxTeacher(model, min_score, nms_threshold)
        return teacher
    raise TeacherError(
        f'{path}: has {model.summary}, which no known kind of teacher has: yolox has one output '
        '(1, cells, 85), yolo11 one (1, 84, cells), torchvision boxes (N, 4), labels (N,) and '
        'scores (N,), for COCO and a float input (1, 3, H, W)')
