# SPDX-License-Identifier: Apache-2.0
"""Footage from COCO-video files, and labels attached to footage of another source."""

import json

from forecast_detector_ros.annotations.errors import DataError
from forecast_detector_ros.evaluation.davis import load_davis
from forecast_detector_ros.evaluation.sequences import (
    as_frame,
    attach_labels,
    EvaluationError,
    load_annotated,
    pick,
    picture,
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


def test_score_decides_what_is_an_object(labelled):
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


def test_labels_join_footage_by_file(labelled):
    root, path, _ = labelled
    (item,) = attach_labels(load_davis(root, CLASSES), path, root, CLASSES, 0.4, 0.4)
    assert item.truth.labels.tolist() == [1, 1]
    assert item.labelled.labels.tolist() == [2, 0]


def test_frame_without_labels_is_a_fault(labelled):
    root, path, document = labelled
    del document['images'][1]
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r'00001\.png is not among them'):
        attach_labels(load_davis(root, CLASSES), path, root, CLASSES, 0.4, 0.4)


def test_sequences_are_picked_by_name(davis):
    everything = load_davis(davis(a=('dog', 1), b=('dog', 1), c=('dog', 1)), CLASSES)
    assert [item.name for item in pick(everything, ['c', 'a'])] == ['a', 'c']
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
