# SPDX-License-Identifier: Apache-2.0
"""Common parts of teachers: names, the padded picture, and files that are no networks."""

import sys

from forecast_detector_ros.labelling.teacher import (
    centred_letterbox,
    choose_boxes,
    COCO_CLASSES,
    letterbox,
    OnnxModel,
    TEACHER_CLASSES,
    TeacherError,
)
import numpy as np
import pytest

SIZE = (64, 96)


def test_there_are_eighty_classes_and_three_have_other_names():
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    changed = {(a, b) for a, b in zip(COCO_CLASSES, TEACHER_CLASSES) if a.replace(' ', '_') != b}
    assert changed == {('cow', 'cattle'), ('boat', 'watercraft'), ('couch', 'sofa')}
    assert not any(' ' in name for name in TEACHER_CLASSES)


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


def test_centred_letterbox_pads_both_sides():
    image = np.full((20, 60, 3), 255, np.uint8)
    padded, scale, corner = centred_letterbox(image, SIZE)
    assert padded.shape == (64, 96, 3) and scale == pytest.approx(1.6) and corner == (0, 16)
    assert np.all(padded[16:48] == 255) and np.all(padded[[*range(16), *range(48, 64)]] == 114)
    _, scale, corner = centred_letterbox(np.zeros((128, 10, 3), np.uint8), SIZE)
    assert scale == pytest.approx(0.5) and corner == (45, 0)


def test_weak_and_overlapping_boxes_are_dropped_and_the_others_cut():
    boxes = np.array([[-5, -5, 10, 10], [-4, -5, 10, 10], [-4, -5, 10, 10], [1, 1, 99, 99],
                      [5, 5, 8, 8]], np.float32)
    found = choose_boxes(boxes, np.array([0, 0, 1, 2, 3]),
                         np.array([0.7, 0.9, 0.5, 0.3, 0.1], np.float32), 0.2, 0.5, (20, 30))
    assert found.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 10], [1, 1, 30, 20]]
    assert found.labels.tolist() == [0, 1, 2]
    assert found.scores == pytest.approx([0.9, 0.5, 0.3])


def test_file_that_is_missing_or_broken(tmp_path):
    pytest.importorskip('onnxruntime')
    with pytest.raises(TeacherError, match=r'no\.onnx: no such file'):
        OnnxModel(tmp_path / 'no.onnx')
    (tmp_path / 'bad.onnx').write_bytes(b'not a network')
    with pytest.raises(TeacherError, match=r'bad\.onnx: onnxruntime cannot load it') as caught:
        OnnxModel(tmp_path / 'bad.onnx')
    assert '\n' not in str(caught.value)


def test_missing_onnxruntime_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(TeacherError, match='pip install onnxruntime'):
        OnnxModel(tmp_path / 'any.onnx')


def test_input_that_the_network_refuses_is_one_line(write_onnx):
    model = OnnxModel(write_onnx({'output': np.zeros(1, np.float32)}, [1, 3, 32, 32]))
    with pytest.raises(TeacherError, match=r'fails on an input of shape \(1, 3, 5, 5\)') as caught:
        model.run(np.zeros((1, 3, 5, 5), np.float32))
    assert '\n' not in str(caught.value)
