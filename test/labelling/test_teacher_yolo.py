# SPDX-License-Identifier: Apache-2.0
"""YOLOX's arithmetic by hand, and a tiny network in its format from picture to boxes."""

from forecast_detector_ros.labelling.teacher import (
    COCO_CLASSES,
    OnnxModel,
    TEACHER_CLASSES,
    TeacherError,
)
from forecast_detector_ros.labelling.teacher_yolo import (
    decode_yolox,
    DecodedYoloxTeacher,
    STRIDES,
    YoloxTeacher,
)
import numpy as np
import pytest

SIZE = (64, 96)
CELLS = 8 * 12 + 4 * 6 + 2 * 3


def raw(*rows):
    """Make raw output of `SIZE`: (cell, x, y, log w, log h, objectness, label, class score)."""
    output = np.zeros((CELLS, 5 + len(COCO_CLASSES)), np.float32)
    for cell, *geometry, label, score in rows:
        output[cell, :5] = geometry
        output[cell, 5 + label] = score
    return output


@pytest.fixture
def write_teacher(write_onnx):
    """Return a function that writes a network in the format of YOLOX."""
    return lambda output, size=SIZE: write_onnx({'output': output[None]}, [1, 3, *size])


@pytest.mark.parametrize('cell, column, row, stride', [
    (0, 0, 0, 8), (12 + 3, 3, 1, 8), (96 + 6 + 2, 2, 1, 16), (96 + 24 + 4, 1, 1, 32)])
def test_boxes_are_relative_to_their_cell(cell, column, row, stride):
    boxes, scores = decode_yolox(raw((cell, 0.5, 0.25, np.log(2), np.log(3), 0.5, 7, 0.5)), SIZE)
    x, y = (column + 0.5) * stride, (row + 0.25) * stride
    assert boxes[cell] == pytest.approx([x - stride, y - 1.5 * stride, x + stride,
                                         y + 1.5 * stride])
    assert scores.shape == (CELLS, 80) and scores[cell, 7] == pytest.approx(0.25)
    assert STRIDES == (8, 16, 32)


def test_picture_to_boxes(write_teacher):
    # The output has two boxes of one dog, a cow in the same place, and a weak dog.
    dog, cow = COCO_CLASSES.index('dog'), COCO_CLASSES.index('cow')
    path = write_teacher(raw(
        (15, 0.5, 0.5, np.log(2), np.log(2), 0.9, dog, 1.0),
        (16, -0.4, 0.5, np.log(2), np.log(2), 0.8, dog, 1.0),
        (27, 0.5, -0.5, np.log(2), np.log(2), 0.5, cow, 1.0),
        (40, 0.5, 0.5, 0, 0, 0.19, dog, 1.0)))
    found = YoloxTeacher(OnnxModel(path)).detect(np.zeros((32, 48, 3), np.uint8))
    assert [TEACHER_CLASSES[label] for label in found.labels] == ['dog', 'cattle']
    assert found.scores == pytest.approx([0.9, 0.5])
    # The picture is half as large as the network's input.
    assert found.boxes[0] == pytest.approx([10, 2, 18, 10])


def test_boxes_are_cut_to_the_picture(write_teacher):
    path = write_teacher(raw((0, 0.5, 0.5, np.log(4), np.log(4), 0.9, 0, 1.0)))
    found = YoloxTeacher(OnnxModel(path)).detect(np.zeros((64, 96, 3), np.uint8))
    assert found.boxes.tolist() == [[0, 0, 20, 20]]


def test_lower_limit_is_that_of_the_caller(write_teacher):
    path = write_teacher(raw((0, 0.5, 0.5, 0, 0, 0.5, 0, 1.0), (50, 0.5, 0.5, 0, 0, 0.3, 0, 1)))
    black = np.zeros((64, 96, 3), np.uint8)
    assert len(YoloxTeacher(OnnxModel(path), min_score=0.2).detect(black).scores) == 2
    assert len(YoloxTeacher(OnnxModel(path), min_score=0.4).detect(black).scores) == 1


def test_network_of_another_kind_is_refused(write_teacher):
    with pytest.raises(TeacherError, match=r'output \[1, 7, 85\], a YOLOX of this .* \[1, 126'):
        YoloxTeacher(OnnxModel(write_teacher(np.zeros((7, 85), np.float32))))
    with pytest.raises(TeacherError, match=r'input \[1, 3, 60, 96\] .* sides multiples of 32'):
        YoloxTeacher(OnnxModel(write_teacher(raw(), (60, 96))))


def test_decoded_output_is_in_pixels_of_the_input(write_teacher):
    path = write_teacher(raw((77, 30, 20, 16, 8, 0.5, 2, 0.8)))
    found = DecodedYoloxTeacher(OnnxModel(path)).detect(np.zeros((128, 192, 3), np.uint8))
    # The picture is twice as large as the network's input.
    assert found.boxes[0] == pytest.approx([44, 32, 76, 48])
    assert found.scores == pytest.approx([0.4]) and found.labels.tolist() == [2]
