# SPDX-License-Identifier: Apache-2.0
"""Tiny networks with the outputs of torchvision's detectors, from picture to boxes."""

from forecast_detector_ros.labelling.teacher import COCO_CLASSES, OnnxModel, TeacherError
from forecast_detector_ros.labelling.teacher_ssd import COCO_IDS, TorchvisionTeacher
import numpy as np
import pytest
from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights


def outputs(boxes=((10, 20, 30, 40), (50, 0, 99, 10)), labels=(18, 1), scores=(0.5, 0.9)):
    return {'boxes': np.array(boxes, np.float32).reshape(-1, 4),
            'labels': np.array(labels, np.int64), 'scores': np.array(scores, np.float32)}


def test_ids_are_those_that_torchvision_gives():
    names = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta['categories']
    assert [names[key] for key in COCO_IDS] == list(COCO_CLASSES)


@pytest.mark.parametrize('order', ['boxes labels scores', 'boxes scores labels'])
@pytest.mark.parametrize('shape', [[1, 3, 40, 100], [3, 40, 100], [1, 3, 'H', 'W'],
                                   [3, 'H', 'W']])
def test_picture_to_boxes(write_onnx, order, shape):
    values = outputs()
    path = write_onnx({name: values[name] for name in order.split()}, shape)
    found = TorchvisionTeacher(OnnxModel(path)).detect(np.zeros((40, 100, 3), np.uint8))
    assert found.boxes.tolist() == [[50, 0, 99, 10], [10, 20, 30, 40]]
    assert [COCO_CLASSES[label] for label in found.labels] == ['person', 'dog']
    assert found.scores == pytest.approx([0.9, 0.5])


def test_boxes_are_scaled_back_where_the_file_fixes_the_size(write_onnx):
    path = write_onnx(outputs(((10, 20, 30, 40),), (1,), (0.5,)), [1, 3, 50, 50])
    found = TorchvisionTeacher(OnnxModel(path)).detect(np.zeros((100, 200, 3), np.uint8))
    assert found.boxes.tolist() == [[40, 40, 120, 80]]


def test_network_sees_colours_from_0_to_1(write_onnx):
    path = write_onnx(outputs(), [1, 3, 'H', 'W'], bright=True)
    teacher = TorchvisionTeacher(OnnxModel(path))
    found = teacher.detect(np.full((40, 100, 3), 255, np.uint8))
    assert found.scores == pytest.approx([0.9, 0.5])


def test_weak_boxes_and_unused_labels_are_dropped(write_onnx):
    path = write_onnx(outputs(((1, 1, 9, 9),) * 3, (0, 12, 3), (0.9, 0.9, 0.1)),
                      [1, 3, 'H', 'W'])
    picture = np.zeros((40, 100, 3), np.uint8)
    assert len(TorchvisionTeacher(OnnxModel(path)).detect(picture).scores) == 0
    (label,) = TorchvisionTeacher(OnnxModel(path), min_score=0.05).detect(picture).labels
    assert COCO_CLASSES[label] == 'car'


def test_nothing_seen(write_onnx):
    path = write_onnx(outputs((), (), ()), [1, 3, 'H', 'W'])
    found = TorchvisionTeacher(OnnxModel(path)).detect(np.zeros((40, 100, 3), np.uint8))
    assert found.boxes.shape == (0, 4)


def test_labels_of_another_data_set_are_refused(write_onnx):
    path = write_onnx(outputs(labels=(18, 91)), [1, 3, 'H', 'W'])
    with pytest.raises(TeacherError, match='labels from 18 to 91, COCO has 1 to 90'):
        TorchvisionTeacher(OnnxModel(path)).detect(np.zeros((40, 100, 3), np.uint8))


@pytest.mark.parametrize('values, shape, words', [
    ({'boxes': np.zeros((2, 4), np.float32)}, [1, 3, 40, 40], 'three outputs'),
    ({**outputs(), 'masks': np.zeros((2, 4, 4), np.float32)}, [1, 3, 40, 40], 'three outputs'),
    (outputs(), [1, 40, 40, 3], 'one float input')])
def test_network_of_another_kind_is_refused(write_onnx, values, shape, words):
    with pytest.raises(TeacherError, match=words) as caught:
        TorchvisionTeacher(OnnxModel(write_onnx(values, shape)))
    assert '\n' not in str(caught.value)
