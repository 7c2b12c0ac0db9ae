# SPDX-License-Identifier: Apache-2.0
"""A tiny network with YOLO11's output, from picture to boxes."""

from forecast_detector_ros.labelling.teacher import COCO_CLASSES, OnnxModel, TeacherError
from forecast_detector_ros.labelling.teacher_yolo import Yolo11Teacher
import numpy as np
import pytest

SIZE = (64, 96)
CELLS = 8 * 12 + 4 * 6 + 2 * 3


def raw(*columns):
    """Make raw output: (cell, x, y, width, height, label, score)."""
    output = np.zeros((1, 4 + len(COCO_CLASSES), CELLS), np.float32)
    for cell, *geometry, label, score in columns:
        output[0, :4, cell] = geometry
        output[0, 4 + label, cell] = score
    return output


def test_picture_to_boxes(write_onnx):
    path = write_onnx({'output0': raw((3, 30, 20, 16, 8, 7, 0.5), (4, 31, 20, 16, 8, 7, 0.4),
                                      (50, 4, 4, 20, 20, 0, 0.9), (60, 50, 50, 9, 9, 0, 0.1))},
                      [1, 3, *SIZE])
    found = Yolo11Teacher(OnnxModel(path)).detect(np.zeros((128, 192, 3), np.uint8))
    assert found.boxes == pytest.approx(np.array([[0, 0, 28, 28], [44, 32, 76, 48]]))
    assert found.labels.tolist() == [0, 7] and found.scores == pytest.approx([0.9, 0.5])


def test_network_sees_colours_from_0_to_1(write_onnx):
    # This network multiplies its scores by its largest input, which is 1 for white.
    path = write_onnx({'output0': raw((3, 30, 20, 16, 8, 7, 0.5))}, [1, 3, *SIZE], bright=True)
    teacher = Yolo11Teacher(OnnxModel(path), min_score=0.0)
    white = teacher.detect(np.full((64, 96, 3), 255, np.uint8))
    assert white.scores[0] == pytest.approx(0.5)
    grey = teacher.detect(np.full((64, 96, 3), 51, np.uint8))
    assert grey.scores[0] == pytest.approx(0.1)


def test_network_of_another_kind_is_refused(write_onnx):
    with pytest.raises(TeacherError, match=r'output \[1, 84, 7\], .* one output \[1, 84, 126\]'):
        Yolo11Teacher(OnnxModel(write_onnx({'a': np.zeros((1, 84, 7), np.float32)},
                                           [1, 3, *SIZE])))
    with pytest.raises(TeacherError, match="input .*'height', 'width'.* sides multiples of 32"):
        Yolo11Teacher(OnnxModel(write_onnx({'a': raw()}, [1, 3, 'height', 'width'])))
