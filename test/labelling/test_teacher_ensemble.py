# SPDX-License-Identifier: Apache-2.0
"""A YAML file names several teachers, and they label as one."""

from forecast_detector_ros.files import find_share
from forecast_detector_ros.labelling.teacher import TEACHER_CLASSES, TeacherError
from forecast_detector_ros.labelling.teacher_ensemble import load_ensemble
from forecast_detector_ros.labelling.teacher_kinds import open_teacher
import numpy as np
import pytest
import yaml


@pytest.fixture
def member(write_onnx):
    """Give a function that writes a detector that sees the same boxes in every picture."""
    def function(name, *rows):
        values = np.array(rows, np.float32).reshape(-1, 6)
        write_onnx({'boxes': values[:, :4], 'labels': values[:, 4].astype(np.int64),
                    'scores': values[:, 5].copy()}, [1, 3, 'H', 'W'], name)
        return {'kind': 'torchvision', 'model': name}
    return function


@pytest.fixture
def write(tmp_path):
    """Give a function that writes the YAML file beside the networks."""
    def function(**values):
        path = tmp_path / 'teacher.yaml'
        path.write_text(yaml.safe_dump(values))
        return path
    return function


def look(path, **settings):
    return open_teacher(path, **settings).detect(np.zeros((40, 60, 3), np.uint8))


def test_members_are_fused(member, write):
    # COCO's id 18 is a dog, 17 a cat.
    first = member('a.onnx', (0, 0, 20, 20, 18, 0.8), (30, 0, 50, 20, 17, 0.5))
    second = member('b.onnx', (0, 0, 20, 24, 18, 0.4))
    found = look(write(members=[first, second]))
    assert [TEACHER_CLASSES[label] for label in found.labels] == ['dog', 'cat']
    assert found.scores == pytest.approx([0.6, 0.25])
    np.testing.assert_allclose(found.boxes[0], [0, 0, 20, (0.8 * 20 + 0.4 * 24) / 1.2], rtol=1e-5)
    assert len(look(write(members=[first, second]), min_score=0.3).scores) == 1
    assert len(look(write(members=[first, second], iou=0.9)).scores) == 3
    assert look(write(members=[first, second], member_score=0.45)).scores == pytest.approx(
        [0.4, 0.25])


def test_members_count_for_their_classes_and_by_their_weights(member, write):
    first = member('a.onnx', (0, 0, 20, 20, 18, 0.8), (30, 0, 50, 20, 17, 0.5))
    second = member('b.onnx', (0, 0, 20, 20, 18, 0.4), (30, 20, 50, 40, 17, 0.9))
    path = write(members=[{**first, 'weight': 3}, {**second, 'classes': ['dog', 'car']}])
    found = look(path)
    assert found.scores == pytest.approx([0.7, 0.5])
    # A cat of the second, which is not asked for cats, is nowhere.
    assert found.boxes[:, 1].tolist() == [0, 0]
    assert open_teacher(path).kind == 'ensemble: torchvision a.onnx x 3, torchvision b.onnx'


def test_a_member_in_openvinos_format(member, write, tmp_path):
    openvino = pytest.importorskip('openvino')
    entry = member('a.onnx', (0, 0, 20, 20, 18, 0.8))
    openvino.save_model(openvino.convert_model(tmp_path / 'a.onnx'), tmp_path / 'b.xml',
                        compress_to_fp16=False)
    found = look(write(members=[entry, {'kind': 'torchvision', 'model': 'b.xml'}]))
    assert found.scores == pytest.approx([0.8])


def test_the_packaged_file_is_sound():
    config = load_ensemble(find_share('config/teachers/ensemble.yaml'))
    assert [item.kind for item in config.members] == ['nanodet', 'nanodet', 'ssd-mobilenet-v2']
    assert len(config.members[2].classes) == 24


NANODET = {'kind': 'nanodet', 'model': 'n.xml'}


@pytest.mark.parametrize('values, words', [
    ({}, 'members is missing'),
    ({'members': []}, 'members is empty'),
    ({'members': [{'kind': 'yolox'}]}, 'members[0].model is missing'),
    ({'members': [NANODET], 'iou': 1.5}, 'iou is 1.5, must be between 0 and 1'),
    ({'members': [NANODET], 'member_score': 'a'}, "member_score is 'a', must be a number"),
    ({'members': [{**NANODET, 'size': 3}]}, 'members[0].size is unknown'),
    ({'members': [{**NANODET, 'weight': 0}]}, 'weight is 0, must be above 0'),
    ({'members': [{**NANODET, 'colour': 'grey'}]}, "colour is 'grey', must be bgr or rgb"),
    ({'members': [{**NANODET, 'classes': ['cow']}]}, "classes has 'cow', must be of person, "),
    ({'members': [{**NANODET, 'heads': 'h'}]}, 'heads is needed for ssd-mobilenet-v2'),
    ({'members': [{'kind': 'yolox', 'model': 'a.onnx', 'colour': 'rgb'}]},
     'colour is for nanodet'),
    ({'members': [{'kind': 'yolox', 'model': 'a.onnx', 'input_size': [32, 32]}]},
     "input_size and float_activations are for OpenVINO's .xml"),
    ({'members': [{'kind': 'oracle', 'model': 'a.onnx'}]}, "members[0]: kind is 'oracle', must"),
    ({'members': [{'kind': 'yolox', 'model': 'a.onnx'}]}, 'a.onnx: no such file'),
])
def test_mistakes_are_one_line_that_names_the_file(write, values, words):
    path = write(**values)
    with pytest.raises(TeacherError) as caught:
        open_teacher(path)
    text = str(caught.value)
    assert text.startswith(f'{path}: ') and words in text and '\n' not in text


def test_files_that_are_no_yaml(tmp_path):
    path = tmp_path / 'teacher.yaml'
    with pytest.raises(TeacherError, match=r'teacher\.yaml: no such file'):
        open_teacher(path)
    path.write_text('members: [')
    with pytest.raises(TeacherError, match='cannot be read as YAML'):
        open_teacher(path)
    path.write_text('3')
    with pytest.raises(TeacherError, match=r'teacher\.yaml: the document is 3'):
        open_teacher(path)
    with pytest.raises(TeacherError, match='kinds of its members, so it cannot be yolox'):
        open_teacher(path, 'yolox')
