# SPDX-License-Identifier: Apache-2.0
"""The teacher's arithmetic by hand, and a tiny network in its format from picture to boxes."""

import sys

from forecast_detector_ros.training.teacher import (
    COCO_CLASSES, decode_yolox, letterbox, STRIDES, TEACHER_CLASSES, TeacherError, YoloxTeacher)
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
def write_teacher(tmp_path):
    """Give a function that writes a network which gives `output` whatever it sees."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')

    def write(output, size=SIZE):
        helper, kind = onnx.helper, onnx.TensorProto.FLOAT
        # The mean of the picture, times zero, keeps the input in use.
        nodes = [helper.make_node('ReduceMean', ['images'], ['mean'], keepdims=1),
                 helper.make_node('Mul', ['mean', 'zero'], ['nought']),
                 helper.make_node('Squeeze', ['nought', 'first'], ['line']),
                 helper.make_node('Add', ['line', 'boxes'], ['output'])]
        constants = [onnx.numpy_helper.from_array(array, name) for name, array in (
            ('zero', np.zeros(1, np.float32)), ('first', np.zeros(1, np.int64)),
            ('boxes', output[None]))]
        graph = helper.make_graph(
            nodes, 'teacher', [helper.make_tensor_value_info('images', kind, [1, 3, *size])],
            [helper.make_tensor_value_info('output', kind, [1, *output.shape])], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)],
                                  ir_version=8)
        path = tmp_path / 'teacher.onnx'
        onnx.save(model, str(path))
        return path
    return write


def test_there_are_eighty_classes_and_two_have_other_names():
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    changed = {(a, b) for a, b in zip(COCO_CLASSES, TEACHER_CLASSES) if a != b}
    assert changed == {('cow', 'cattle'), ('boat', 'watercraft')}


def test_letterbox_keeps_the_aspect_ratio_and_pads_with_grey():
    image = np.full((20, 60, 3), 255, np.uint8)
    padded, scale = letterbox(image, SIZE)
    assert padded.shape == (64, 96, 3) and padded.dtype == np.uint8
    assert scale == pytest.approx(1.6)
    assert np.all(padded[:32] == 255) and np.all(padded[32:] == 114)


def test_letterbox_of_a_tall_picture():
    padded, scale = letterbox(np.zeros((128, 10, 3), np.uint8), SIZE)
    assert scale == pytest.approx(0.5)
    assert np.all(padded[:, :5] == 0) and np.all(padded[:, 5:] == 114)


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
    # Two boxes of one dog, a cow in the same place, and one that is too weak.
    dog, cow = COCO_CLASSES.index('dog'), COCO_CLASSES.index('cow')
    path = write_teacher(raw(
        (15, 0.5, 0.5, np.log(2), np.log(2), 0.9, dog, 1.0),
        (16, -0.4, 0.5, np.log(2), np.log(2), 0.8, dog, 1.0),
        (27, 0.5, -0.5, np.log(2), np.log(2), 0.5, cow, 1.0),
        (40, 0.5, 0.5, 0, 0, 0.19, dog, 1.0)))
    found = YoloxTeacher(path).detect(np.zeros((32, 48, 3), np.uint8))
    assert [TEACHER_CLASSES[label] for label in found.labels] == ['dog', 'cattle']
    assert found.scores == pytest.approx([0.9, 0.5])
    # The picture is half as large as the network's input.
    assert found.boxes[0] == pytest.approx([10, 2, 18, 10])


def test_boxes_end_with_the_picture(write_teacher):
    path = write_teacher(raw((0, 0.5, 0.5, np.log(4), np.log(4), 0.9, 0, 1.0)))
    found = YoloxTeacher(path).detect(np.zeros((64, 96, 3), np.uint8))
    assert found.boxes.tolist() == [[0, 0, 20, 20]]


def test_lower_limit_is_that_of_the_caller(write_teacher):
    path = write_teacher(raw((0, 0.5, 0.5, 0, 0, 0.5, 0, 1.0), (50, 0.5, 0.5, 0, 0, 0.3, 0, 1)))
    black = np.zeros((64, 96, 3), np.uint8)
    assert len(YoloxTeacher(path, min_score=0.2).detect(black).scores) == 2
    assert len(YoloxTeacher(path, min_score=0.4).detect(black).scores) == 1


def test_network_of_another_kind_is_refused(write_teacher):
    with pytest.raises(TeacherError, match=r'outputs are \[\[1, 7, 85\]\], a YOLOX of this'):
        YoloxTeacher(write_teacher(np.zeros((7, 85), np.float32)))
    with pytest.raises(TeacherError, match=r'inputs are \[\[1, 3, 60, 96\]\], a YOLOX has'):
        YoloxTeacher(write_teacher(raw(), (60, 96)))


def test_file_that_is_missing_or_broken(tmp_path):
    pytest.importorskip('onnxruntime')
    with pytest.raises(TeacherError, match=r'no\.onnx: no such file'):
        YoloxTeacher(tmp_path / 'no.onnx')
    (tmp_path / 'bad.onnx').write_bytes(b'not a network')
    with pytest.raises(TeacherError, match=r'bad\.onnx: onnxruntime cannot load it') as caught:
        YoloxTeacher(tmp_path / 'bad.onnx')
    assert '\n' not in str(caught.value)


def test_missing_onnxruntime_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(TeacherError, match='pip install onnxruntime'):
        YoloxTeacher(tmp_path / 'any.onnx')
