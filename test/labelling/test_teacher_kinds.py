# SPDX-License-Identifier: Apache-2.0
"""The kind of a teacher follows from its outputs or is given; ensembles fuse their boxes."""

from forecast_detector_ros.files import find_share
from forecast_detector_ros.labelling.teacher import TEACHER_CLASSES, TeacherBoxes, TeacherError
from forecast_detector_ros.labelling.teacher_kinds import (
    fuse_boxes,
    KINDS,
    load_ensemble,
    open_teacher,
)
import numpy as np
import pytest
import yaml

SHAPE = [1, 3, 64, 96]
CELLS = 8 * 12 + 4 * 6 + 2 * 3


def networks():
    """Return the outputs of a network of each kind."""
    raw = np.zeros((1, CELLS, 85), np.float32)
    raw[..., :2] = 0.5
    decoded = np.zeros((1, CELLS, 85), np.float32)
    decoded[..., 0], decoded[..., 1] = np.linspace(0, 96, CELLS), np.linspace(0, 64, CELLS)
    return {'yolox': {'output': raw}, 'yolox-decoded': {'output': decoded},
            'yolo11': {'output0': np.zeros((1, 84, CELLS), np.float32)},
            'nanodet': {'output': np.zeros((1, CELLS + 2, 112), np.float32)},
            'torchvision': {'boxes': np.zeros((1, 4), np.float32),
                            'scores': np.zeros(1, np.float32), 'labels': np.ones(1, np.int64)}}


@pytest.mark.parametrize('kind', list(KINDS))
@pytest.mark.parametrize('told', [True, False])
def test_each_kind_is_recognised(write_onnx, kind, told):
    path = write_onnx(networks()[kind], SHAPE)
    teacher = open_teacher(path, kind if told else 'auto', min_score=0.3)
    assert teacher.kind == kind
    assert len(teacher.detect(np.zeros((30, 40, 3), np.uint8)).scores) == 0


def test_file_of_unknown_kind_is_one_clear_line(write_onnx):
    path = write_onnx({'logits': np.zeros((1, 1000), np.float32)}, [1, 3, 224, 224])
    with pytest.raises(TeacherError) as caught:
        open_teacher(path)
    text = str(caught.value)
    assert '\n' not in text
    for words in ('teacher.onnx', '[1, 3, 224, 224]', '[1, 1000]', 'yolox', 'torchvision'):
        assert words in text


def test_file_of_another_kind_than_given_is_refused(write_onnx):
    path = write_onnx(networks()['yolo11'], SHAPE)
    with pytest.raises(TeacherError, match=r'a YOLOX of this input size .* \[1, 126, 85\]'):
        open_teacher(path, 'yolox')


@pytest.fixture
def member(write_onnx):
    """Return a function that writes a detector that finds the same boxes in every picture."""
    def function(name, *rows):
        values = np.array(rows, np.float32).reshape(-1, 6)
        write_onnx({'boxes': values[:, :4], 'labels': values[:, 4].astype(np.int64),
                    'scores': values[:, 5].copy()}, [1, 3, 'H', 'W'], name)
        return {'kind': 'torchvision', 'model': name}
    return function


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the YAML file beside the networks."""
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
    # The second member has no cats among its classes, so its cat is left out.
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
    ({'members': [{**NANODET, 'size': 3}]}, 'unknown key members[0].size'),
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
def test_mistakes_are_one_line_with_the_name_of_the_file(write, values, words):
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


CLASSES = 3


def found(*rows):
    """Make a detector's boxes of rows (x0, y0, x1, y1, label, score)."""
    values = np.array(rows, float).reshape(-1, 6)
    return TeacherBoxes(values[:, :4].astype(np.float32), values[:, 4].astype(np.int64),
                        values[:, 5].astype(np.float32))


def fuse(*members, knows=None, weights=None, min_score=0.0, **settings):
    knows = np.ones((len(members), CLASSES), bool) if knows is None else np.array(knows)
    return fuse_boxes(members, knows, weights or [1.0] * len(members), min_score, **settings)


def plain_loop(members, knows, weights, iou):
    """Fuse boxes as defined, object by object; return rows, best score first."""
    entries = sorted(((*box, label, score, m) for m, member in enumerate(members)
                      for box, label, score in zip(member.boxes.tolist(), member.labels.tolist(),
                                                   member.scores.tolist())),
                     key=lambda entry: -entry[5] * weights[entry[6]])
    objects = []
    for *box, label, score, m in entries:
        best, best_overlap = None, iou
        for thing in (thing for thing in objects if thing['label'] == label):
            low, high = np.maximum(box[:2], thing['box'][:2]), np.minimum(box[2:],
                                                                          thing['box'][2:])
            inner = np.prod(np.maximum(high - low, 0))
            area = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, thing['box'])]
            if inner / (sum(area) - inner) > best_overlap:
                best, best_overlap = thing, inner / (sum(area) - inner)
        if best is None:
            best = {'label': label, 'members': {}}
            objects.append(best)
        elif m in best['members']:
            continue
        best['members'][m] = (np.array(box), score)
        best['box'] = np.average([b for b, _ in best['members'].values()], axis=0,
                                 weights=[s * weights[k]
                                          for k, (_, s) in best['members'].items()])
    rows = [(*thing['box'], thing['label'],
             sum(s * weights[k] for k, (_, s) in thing['members'].items())
             / sum(w for w, known in zip(weights, knows) if known[thing['label']]))
            for thing in objects]
    return np.array(sorted(rows, key=lambda row: -row[5]))


@pytest.mark.parametrize('seed', range(8))
def test_fused_boxes_are_as_defined(seed):
    rng = np.random.default_rng(seed)
    objects = rng.uniform(0, 80, (9, 2))
    members = []
    for _ in range(3):
        low = objects[rng.integers(0, 9, 14)] + rng.normal(0, 2.0, (14, 2))
        size = rng.uniform(16, 24, (14, 2))
        members.append(found(*np.column_stack((low, low + size, rng.integers(0, CLASSES, 14),
                                               rng.uniform(0.1, 1.0, 14)))))
    knows = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1]], bool)
    weights = [1.0, 2.0, 0.5]
    wanted = plain_loop(members, knows, weights, 0.55)
    result = fuse(*members, knows=knows, weights=weights)
    assert len(wanted) < 3 * 14
    np.testing.assert_allclose(result.boxes, wanted[:, :4], atol=1e-3)
    assert result.labels.tolist() == wanted[:, 4].tolist()
    np.testing.assert_allclose(result.scores, wanted[:, 5], atol=1e-5)
    assert result.boxes.dtype == result.scores.dtype == np.float32


def test_boxes_of_one_object_are_averaged_by_their_scores():
    result = fuse(found((0, 0, 10, 10, 1, 0.6)), found((0, 0, 10, 14, 1, 0.3)))
    np.testing.assert_allclose(result.boxes, [[0, 0, 10, (0.6 * 10 + 0.3 * 14) / 0.9]], rtol=1e-6)
    assert result.scores == pytest.approx([0.45]) and result.labels.tolist() == [1]


def test_an_object_that_one_detector_does_not_see_loses_score():
    result = fuse(found((0, 0, 10, 10, 1, 0.6)), found((20, 0, 30, 10, 1, 0.9)),
                  found((0, 0, 10, 10, 2, 0.3)))
    assert result.scores == pytest.approx([0.3, 0.2, 0.1])
    assert result.boxes[:, 0].tolist() == [20, 0, 0]


def test_a_detector_without_the_class_is_not_counted():
    knows = [[True] * 3, [True, False, True]]
    result = fuse(found((0, 0, 10, 10, 1, 0.6), (0, 0, 10, 10, 2, 0.6)), found(), knows=knows)
    assert result.labels.tolist() == [1, 2] and result.scores == pytest.approx([0.6, 0.3])


def test_a_detector_gives_one_box_to_an_object():
    result = fuse(found((0, 0, 10, 10, 0, 0.8), (0, 0, 10, 9, 0, 0.4)), found())
    assert result.boxes.tolist() == [[0, 0, 10, 10]] and result.scores == pytest.approx([0.4])


def test_weights_count_for_place_and_score():
    result = fuse(found((0, 0, 10, 10, 0, 0.5)), found((0, 0, 10, 12, 0, 0.5)), weights=[3.0, 1.0])
    np.testing.assert_allclose(result.boxes, [[0, 0, 10, 10.5]])
    assert result.scores == pytest.approx([0.5])
    result = fuse(found((0, 0, 10, 10, 0, 0.5)), found(), weights=[3.0, 1.0])
    assert result.scores == pytest.approx([0.375])


def test_overlap_and_score_have_limits():
    pair = found((0, 0, 10, 10, 0, 0.5)), found((0, 0, 10, 12, 0, 0.5))
    assert len(fuse(*pair, iou=0.8).scores) == 1 and len(fuse(*pair, iou=0.9).scores) == 2
    assert len(fuse(*pair, min_score=0.5).scores) == 1
    assert len(fuse(*pair, min_score=0.51).scores) == 0


def test_nothing_gives_nothing():
    result = fuse(found(), found())
    assert result.boxes.shape == (0, 4) and len(result.labels) == len(result.scores) == 0
