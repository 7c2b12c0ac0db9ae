# SPDX-License-Identifier: Apache-2.0
"""Sequences with one object, videos from COCO-video files, and labels attached to others."""

import json

from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.evaluation.sequences import (
    as_frame,
    attach_labels,
    EvaluationError,
    load_annotated,
    load_davis,
    pick,
    picture,
    thin,
)
import pytest

CLASSES = ('cat', 'dog', 'train')


@pytest.fixture
def labelled(davis, tmp_path):
    """Write two frames, and a COCO-video file with three boxes of the first one."""
    root = davis(walk=('dog', 2))
    document = {
        'images': [{'id': i + 1, 'file_name': f'walk/frames/{i:05d}.png', 'width': 80,
                    'height': 48, 'video': 'walk', 'frame_index': i} for i in range(2)],
        'categories': [{'id': 7, 'name': 'train'}, {'id': 9, 'name': 'cat'}],
        'annotations': [
            {'id': 1, 'image_id': 1, 'category_id': 7, 'bbox': [0, 0, 10, 10], 'score': 0.9},
            {'id': 2, 'image_id': 1, 'category_id': 9, 'bbox': [20, 0, 10, 10], 'score': 0.4},
            {'id': 3, 'image_id': 1, 'category_id': 9, 'bbox': [40, 0, 10, 10], 'score': 0.3}]}
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps(document))
    return root, path, document


def test_score_decides_between_objects_and_others(labelled):
    root, path, _ = labelled
    (item,) = load_annotated(path, root, CLASSES, 0.4, 0.4)
    assert item.labelled is item.truth
    assert item.truth.frames.tolist() == [0, 0]
    assert item.truth.boxes.tolist() == [[0, 0, 10, 10], [20, 0, 30, 10]]
    assert item.truth.labels.tolist() == [2, 0]
    assert len(item.truth.ignore_boxes) == 0


def test_weak_boxes_become_ignore_regions_on_demand(labelled):
    root, path, _ = labelled
    (item,) = load_annotated(path, root, CLASSES, 0.4, 0.2)
    assert len(item.truth) == 2
    assert item.truth.ignore_frames.tolist() == [0]
    assert item.truth.ignore_boxes.tolist() == [[40, 0, 50, 10]]


def test_labels_join_videos_by_file(labelled):
    root, path, _ = labelled
    (item,) = attach_labels(load_davis(root, CLASSES), path, root, CLASSES, 0.4, 0.4)
    assert item.truth.labels.tolist() == [1, 1]
    assert item.labelled.labels.tolist() == [2, 0]


def test_frame_without_labels_is_refused(labelled):
    root, path, document = labelled
    del document['images'][1]
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r'00001\.png is not among them'):
        attach_labels(load_davis(root, CLASSES), path, root, CLASSES, 0.4, 0.4)


def test_sequences_are_picked_by_name(davis):
    everything = load_davis(davis(a=('dog', 1), b=('dog', 1), c=('dog', 1)), CLASSES)
    assert [item.name for item in pick(everything, ['c', 'a'])] == ['a', 'c']
    assert [item.name for item in pick(everything, ['[bc]'])] == ['b', 'c']
    assert pick(everything, []) == everything
    with pytest.raises(EvaluationError, match="sequence 'd' is not there; there are a, b, c"):
        pick(everything, ['d'])


def test_pictures_are_decoded_and_wrapped(davis):
    (item,) = load_davis(davis(walk=('dog', 1)), CLASSES)
    pixels = picture(item.frames[0])
    frame = as_frame(pixels)
    assert frame.size == (48, 80) and frame.load() is pixels


def test_broken_picture_is_named(davis):
    root = davis(walk=('dog', 1))
    (root / 'walk/frames/00000.png').write_bytes(b'no picture')
    (item,) = load_davis(root, CLASSES)
    with pytest.raises(DataError, match=r'00000\.png'):
        picture(item.frames[0])


def test_thinned_sequences_hold_every_frame_and_box_once(davis):
    (item,) = load_davis(davis(walk=('dog', 5)), CLASSES)
    assert [part.name for part in thin(item, 1)] == ['walk']
    parts = thin(item, 2)
    assert [part.name for part in parts] == ['walk', 'walk+1']
    assert [part.frames for part in parts] == [item.frames[::2], item.frames[1::2]]
    # The object moves by a pixel per frame.
    assert [part.truth.boxes[:, 0].tolist() for part in parts] == [[5, 7, 9], [6, 8]]
    assert [part.truth.frames.tolist() for part in parts] == [[0, 1, 2], [0, 1]]
    assert len(thin(item, 9)) == 5


def test_thinned_regions_stay_in_their_frames(labelled):
    root, path, document = labelled
    document['annotations'][0]['image_id'] = 2
    path.write_text(json.dumps(document))
    (item,) = load_annotated(path, root, CLASSES, 0.4, 0.2)
    first, second = thin(item, 2)
    assert first.labelled.ignore_boxes.tolist() == [[40, 0, 50, 10]]
    assert (len(second.labelled.ignore_boxes), second.truth.labels.tolist()) == (0, [2])


@pytest.mark.parametrize('complete', [True, False])
def test_recall_uses_true_boxes_alone(labelled, complete):
    root, path, document = labelled
    over = path.with_name('truth.json')
    over.write_text(json.dumps({
        **document, 'videos': [{'name': 'walk', 'complete': complete}], 'annotations': [
            {'id': 1, 'image_id': 1, 'category_id': 7, 'bbox': [1, 0, 10, 10], 'track_id': 4}]}))
    (item,) = load_annotated(path, root, CLASSES, 0.4, 0.4, over)
    assert item.truth.boxes.tolist() == [[1, 0, 11, 10]]
    assert item.truth.tracks.tolist() == [4]
    # The true train replaces the teacher's. The teacher's cat stays unless the video is complete.
    assert sorted(item.labelled.boxes[:, 0].tolist()) == ([1] if complete else [1, 20])


def test_sequences_without_true_boxes_keep_the_others(labelled):
    root, path, document = labelled
    over = path.with_name('truth.json')
    for image in document['images']:
        image['video'] = image['file_name']
    path.write_text(json.dumps(document))
    over.write_text(json.dumps({**document, 'annotations': [],
                                'images': document['images'][1:]}))
    first, second = load_annotated(path, root, CLASSES, 0.4, 0.4, over)
    assert (len(first.truth), len(second.truth)) == (2, 0)


def test_true_boxes_of_only_some_frames_are_refused(labelled):
    root, path, document = labelled
    over = path.with_name('truth.json')
    over.write_text(json.dumps({**document, 'images': document['images'][:1],
                                'annotations': []}))
    with pytest.raises(DataError, match='video walk: must have all 2 frames, has 1'):
        load_annotated(path, root, CLASSES, 0.4, 0.4, over)


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


def test_unknown_category_accepts_no_class(davis):
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
def test_faults_of_a_sequence_are_named_in_one_line(davis, changes, words):
    root = davis(walk=('dog', 1))
    edit(root, 'walk', **changes)
    with pytest.raises(DataError, match=words) as caught:
        load_davis(root, CLASSES)
    assert 'boxes.json' in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('text', ['{', '[]', ''])
def test_invalid_annotation_file(davis, text):
    root = davis(walk=('dog', 1))
    (root / 'walk/boxes.json').write_text(text)
    with pytest.raises(DataError, match=r'boxes\.json: .*JSON'):
        load_davis(root, CLASSES)


def test_folder_without_sequences(tmp_path):
    with pytest.raises(DataError, match=r'no SEQUENCE/boxes\.json'):
        load_davis(tmp_path, CLASSES)


@pytest.mark.parametrize('also, words', [
    ({'run': ['dog']}, "no sequence 'run'; there are walk"),
    ({'walk': ['whale']}, "'whale' is accepted in walk, but the detector has only cat"),
])
def test_unknown_further_classes_are_refused(davis, also, words):
    with pytest.raises(DataError, match=words):
        load_davis(davis(walk=('dog', 1)), CLASSES, also)
