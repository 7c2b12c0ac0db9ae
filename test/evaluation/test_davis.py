# SPDX-License-Identifier: Apache-2.0
"""Sequences with one annotated object: what is read, and how faults are told."""

import json

from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.evaluation.sequences import load_davis
import pytest

CLASSES = ('cat', 'dog', 'train')


def edit(root, sequence, **changes):
    path = root / sequence / 'boxes.json'
    document = json.loads(path.read_text())
    for key, value in changes.items():
        if value is ...:
            del document[key]
        else:
            document[key] = value
    path.write_text(json.dumps(document))


def test_boxes_become_corners_of_numbered_frames(davis):
    (item,) = load_davis(davis(walk=('dog', 3)), CLASSES)
    assert item.name == 'walk' and item.labelled is None
    assert [record.path.name for record in item.frames] == ['00000.png', '00001.png', '00002.png']
    assert (item.frames[0].width, item.frames[0].height) == (80, 48)
    assert item.truth.frames.tolist() == [0, 1, 2]
    assert item.truth.boxes.tolist() == [[5 + i, 10, 35 + i, 30] for i in range(3)]
    assert item.truth.accepted.tolist() == [[False, True, False]] * 3


def test_frame_without_object_has_no_box(davis):
    root = davis(walk=('dog', 2))
    document = json.loads((root / 'walk/boxes.json').read_text())
    document['frames'][0]['box_xywh'] = None
    edit(root, 'walk', frames=document['frames'])
    (item,) = load_davis(root, CLASSES)
    assert len(item.frames) == 2 and item.truth.frames.tolist() == [1]


def test_sequences_come_in_the_order_of_their_names(davis):
    root = davis(zoo=('cat', 1), alley=('dog', 1))
    assert [item.name for item in load_davis(root, CLASSES)] == ['alley', 'zoo']


def test_category_may_be_a_list_and_further_classes_may_count(davis):
    root = davis(ride=(['dog', 'cat'], 1), walk=('dog', 1))
    ride, walk = load_davis(root, CLASSES, {'walk': ['train']})
    assert ride.truth.accepted.tolist() == [[True, True, False]]
    assert walk.truth.accepted.tolist() == [[False, True, True]]


def test_category_that_the_detector_does_not_know_accepts_nothing(davis):
    (item,) = load_davis(davis(swim=('whale', 1)), CLASSES)
    assert item.truth.accepted.tolist() == [[False, False, False]]


@pytest.mark.parametrize('changes, words', [
    ({'category': 7}, 'category is 7'),
    ({'category': []}, r'category is \[\]'),
    ({'width': 0}, 'width is 0'),
    ({'height': ...}, 'height is None'),
    ({'frames': []}, 'frames must be a list'),
    ({'frames': [{}]}, r'frames\[0\]: must have file'),
    ({'frames': [{'file': 'frames/9.png'}]}, r'frames\[0\]: no file'),
    ({'frames': [{'file': 'frames/00000.png', 'box_xywh': [0, 0, 0, 5]}]}, 'box_xywh is'),
    ({'frames': [{'file': 'frames/00000.png', 'box_xywh': [0, 0, 5]}]}, 'box_xywh is'),
])
def test_faults_are_named_in_one_line(davis, changes, words):
    root = davis(walk=('dog', 1))
    edit(root, 'walk', **changes)
    with pytest.raises(DataError, match=words) as caught:
        load_davis(root, CLASSES)
    assert 'boxes.json' in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('text', ['{', '[]', ''])
def test_file_that_is_no_annotation(davis, text):
    root = davis(walk=('dog', 1))
    (root / 'walk/boxes.json').write_text(text)
    with pytest.raises(DataError, match=r'boxes\.json: .*JSON'):
        load_davis(root, CLASSES)


def test_folder_without_sequences(tmp_path):
    with pytest.raises(DataError, match=r'no SEQUENCE/boxes\.json'):
        load_davis(tmp_path, CLASSES)


@pytest.mark.parametrize('also, words', [
    ({'run': ['dog']}, "no sequence 'run'; there are walk"),
    ({'walk': ['whale']}, "'whale' is accepted in walk, but the detector knows only cat"),
])
def test_further_classes_must_make_sense(davis, also, words):
    with pytest.raises(DataError, match=words):
        load_davis(davis(walk=('dog', 1)), CLASSES, also)
