# SPDX-License-Identifier: Apache-2.0
"""SSD-MobileNetV2: anchors and boxes by hand, TensorFlow's padding, and a network of zeros."""

from forecast_detector_ros.labelling.teacher import TEACHER_CLASSES, TeacherError
from forecast_detector_ros.labelling.teacher_ssd import (
    SsdTeacher,
    tensorflow_anchors,
    tensorflow_boxes,
)
import numpy as np
import pytest
from safetensors.torch import save_file
import torch
from torchvision.models import mobilenet_v2

CLASSES = (None, 'dog', None, 'cat')
WIDTHS = (576, 1280, 512, 256, 256, 128)
EXTRAS = ((1280, 256, 512), (512, 128, 256), (256, 128, 256), (256, 64, 128))


@pytest.fixture(scope='module')
def backbone(tmp_path_factory):
    """Write a backbone with random weights, without its classifier."""
    path = tmp_path_factory.mktemp('ssd') / 'backbone.safetensors'
    torch.manual_seed(0)
    save_file({key: value for key, value in mobilenet_v2().state_dict().items()
               if not key.startswith('classifier')}, path)
    return path


@pytest.fixture
def heads():
    """Return heads that find nothing: every class has a logit of -9."""
    tensors = {}
    for level, (first, narrow, last) in enumerate(EXTRAS):
        for part, shape in ((0, (narrow, first, 1, 1)), (1, (last, narrow, 3, 3))):
            tensors[f'extra.{level}.{part}.weight'] = torch.zeros(shape)
            tensors[f'extra.{level}.{part}.bias'] = torch.zeros(shape[0])
    for level, width in enumerate(WIDTHS):
        count = 3 if level == 0 else 6
        for name, size, bias in (('box', 4, 0.0), ('cls', len(CLASSES), -9.0)):
            tensors[f'{name}.{level}.weight'] = torch.zeros(count * size, width, 1, 1)
            tensors[f'{name}.{level}.bias'] = torch.full((count * size,), bias)
    return tensors


@pytest.fixture
def open_teacher(backbone, heads, tmp_path):
    """Return a function that opens a teacher with the current `heads`."""
    def function(classes=CLASSES, **settings):
        save_file(heads, tmp_path / 'heads.safetensors')
        return SsdTeacher(backbone, tmp_path / 'heads.safetensors', classes, **settings)
    return function


def test_anchors_by_hand():
    anchors = tensorflow_anchors([19, 10, 5, 3, 2, 1])
    assert len(anchors) == 19 * 19 * 3 + (100 + 25 + 9 + 4 + 1) * 6 == 1917
    np.testing.assert_allclose(anchors[0], [0.5 / 19, 0.5 / 19, 0.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose(anchors[4], [1.5 / 19, 0.5 / 19, 0.2 * 2 ** 0.5, 0.2 / 2 ** 0.5],
                               rtol=1e-5)
    second = anchors[19 * 19 * 3:]
    np.testing.assert_allclose(second[0], [0.05, 0.05, 0.35, 0.35], rtol=1e-5)
    np.testing.assert_allclose(second[5, 2:], [(0.35 * 0.5) ** 0.5] * 2, rtol=1e-5)
    np.testing.assert_allclose(anchors[-6], [0.5, 0.5, 0.95, 0.95], rtol=1e-5)
    np.testing.assert_allclose(anchors[-1, 2:], [0.95 ** 0.5] * 2, rtol=1e-5)


def test_boxes_by_hand():
    anchor = np.array([[0.5, 0.4, 0.2, 0.1]])
    np.testing.assert_allclose(tensorflow_boxes(np.zeros((1, 4)), anchor),
                               [[0.4, 0.35, 0.6, 0.45]])
    code = np.array([[10.0, -5.0, 5 * np.log(2), 5 * np.log(3)]])
    # The centre is (0.5 - 0.1, 0.4 + 0.1), the width 0.6, the height 0.2.
    np.testing.assert_allclose(tensorflow_boxes(code, anchor), [[0.1, 0.4, 0.7, 0.6]])


def test_picture_to_boxes(open_teacher, heads):
    # The first anchor of the last map's only cell is a dog, the last one a cat.
    heads['cls.5.bias'][1] = 2.0
    heads['cls.5.bias'][5 * 4 + 3] = 1.0
    # The background has a sigmoid of its own, which does not change the other scores.
    heads['cls.5.bias'][0] = 8.0
    found = open_teacher().detect(np.zeros((100, 200, 3), np.uint8))
    assert [TEACHER_CLASSES[label] for label in found.labels] == ['dog', 'cat']
    assert found.scores == pytest.approx(1 / (1 + np.exp([-2.0, -1.0])))
    np.testing.assert_allclose(found.boxes[0], [5, 2.5, 195, 97.5], rtol=1e-4)
    assert len(open_teacher(min_score=0.8).detect(np.zeros((100, 200, 3), np.uint8)).scores) == 1


def test_first_output_may_be_a_class(open_teacher, heads):
    heads['cls.5.bias'][0] = 2.0
    found = open_teacher(('bird', *CLASSES[1:])).detect(np.zeros((60, 60, 3), np.uint8))
    assert [TEACHER_CLASSES[label] for label in found.labels] == ['bird']


def test_class_without_a_name_is_left_out(open_teacher, heads):
    heads['cls.5.bias'][2] = 2.0
    assert not len(open_teacher().detect(np.zeros((60, 60, 3), np.uint8)).scores)


def test_features_have_the_padding_of_tensorflow(open_teacher, backbone):
    from safetensors.torch import load_file
    from torch.nn import functional
    weights = load_file(backbone)
    picture = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    first = {}
    teacher = open_teacher()
    teacher._backbone.get_submodule('features.0.2').register_forward_hook(
        lambda _, inputs, output: first.setdefault('map', output))
    teacher.detect(picture)
    rgb = torch.from_numpy(picture[:, :, ::-1].copy()).permute(2, 0, 1).float()[None]
    # With an even side and a stride of 2, TensorFlow pads one pixel, at the end.
    map_ = functional.conv2d(functional.pad(rgb / 127.5 - 1, (0, 1, 0, 1)),
                             weights['features.0.0.weight'], stride=2)
    map_ = functional.batch_norm(map_, weights['features.0.1.running_mean'],
                                 weights['features.0.1.running_var'],
                                 weights['features.0.1.weight'], weights['features.0.1.bias'])
    np.testing.assert_allclose(first['map'].numpy(), map_.clamp(0, 6).numpy(), atol=1e-4)


def test_files_that_do_not_fit_are_one_line(open_teacher, heads, backbone, tmp_path):
    with pytest.raises(TeacherError, match=r'heads\.safetensors: gives .* boxes and .* scores'):
        open_teacher((None, 'dog'))
    del heads['extra.1.0.weight']
    with pytest.raises(TeacherError, match=r'heads\.safetensors: does not fit: .*extra\.1\.0'):
        open_teacher()
    with pytest.raises(TeacherError, match='no such file'):
        SsdTeacher(tmp_path / 'no.safetensors', backbone, CLASSES)
    (tmp_path / 'bad.safetensors').write_bytes(b'no weights')
    with pytest.raises(TeacherError, match='is no safetensors file'):
        SsdTeacher(tmp_path / 'bad.safetensors', backbone, CLASSES)
    save_file({'a': torch.zeros(1)}, tmp_path / 'other.safetensors')
    with pytest.raises(TeacherError, match=r'other\.safetensors: does not fit MobileNetV2'):
        SsdTeacher(tmp_path / 'other.safetensors', backbone, CLASSES)
