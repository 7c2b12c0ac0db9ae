# SPDX-License-Identifier: Apache-2.0
"""Match annotations with the images of a bag, by order, stamp or header."""

import json

from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.annotations.records import UNKNOWN_TRACK
from forecast_detector_ros.errors import InputError
from forecast_detector_ros.images.bag_images import ImageBag
from forecast_detector_ros.recording.output_files import vision_typestore
from forecast_detector_ros.replay.truth import (
    FrameKey,
    load_annotated_camera,
    ORDER,
    recorded_truth,
    STAMP,
)
import pytest

from ..helpers.bags import raw_message, truth_message, write_bag

LABELS = ('cat', 'dog')
KEYS = [FrameKey(n, 1000 + n, 'camera') for n in range(5)]


@pytest.fixture
def annotations(tmp_path):
    """Return a function that writes a COCO-video file with two boxes."""
    def write(change=lambda document: None):
        document = {
            'categories': [{'id': 1, 'name': 'dog'}, {'id': 2, 'name': 'horse'}],
            'images': [{'id': n, 'file_name': f'walk/{n}.jpg', 'width': 80, 'height': 48,
                        'video': 'walk', 'frame_index': n, 'stamp_ns': 1000 + n}
                       for n in (1, 3, 9)],
            'annotations': [
                {'id': 1, 'image_id': 3, 'category_id': 1, 'bbox': [2, 3, 10, 20]},
                {'id': 2, 'image_id': 3, 'category_id': 2, 'bbox': [20, 3, 10, 20]},
                {'id': 3, 'image_id': 9, 'category_id': 1, 'bbox': [2, 3, 10, 20]}]}
        change(document)
        path = tmp_path / 'truth.json'
        path.write_text(json.dumps(document))
        return path
    return write


@pytest.mark.parametrize('match', [ORDER, STAMP])
def test_boxes_of_a_file_by_order_and_by_stamp(annotations, match):
    camera = load_annotated_camera(annotations(), 'bag', True, match, LABELS, 0.4)
    truth = camera.truth(2, KEYS)
    assert truth.frames.tolist() == [1, 3] and truth.unmatched == 1
    assert truth.table.frames.tolist() == [3] and truth.table.labels.tolist() == [1]
    assert truth.table.boxes.tolist() == [[2, 3, 12, 23]]
    # The detector has no class horse, so a missing horse is not an error.
    assert truth.table.ignore_frames.tolist() == [3]
    assert truth.table.ignore_boxes.tolist() == [[20, 3, 30, 23]]


def add_video(document):
    document['images'].append({**document['images'][0], 'id': 20, 'file_name': 'run/1.jpg',
                               'video': 'run'})


def test_video_must_be_named_if_there_are_several(annotations):
    path = annotations(add_video)
    assert load_annotated_camera(path, 'run', True, ORDER, LABELS, 0.4).record.name == 'run'
    with pytest.raises(DataError, match="no video 'bag'; there is .*run"):
        load_annotated_camera(path, 'bag', True, ORDER, LABELS, 0.4)


def without_stamp(document):
    del document['images'][1]['stamp_ns']


def same_file(document):
    document['images'][1]['file_name'] = 'walk/1.jpg'


def same_stamp(document):
    document['images'][1]['stamp_ns'] = 1001


def one_still(document):
    del document['images'][1:], document['images'][0]['video'], document['images'][0]['stamp_ns']
    document['annotations'] = []


@pytest.mark.parametrize('change, match, words', [
    (without_stamp, STAMP, r'images\[1\]: stamp_ns is None; to match by stamp'),
    (same_file, ORDER, 'walk/1.jpg'),
    (same_stamp, STAMP, r'images\[1\]: stamp_ns 1001 is used twice'),
    (one_still, STAMP, r'images\[0\]: stamp_ns is None; to match by stamp'),
    (lambda d: d.pop('images'), ORDER, 'images'),
])
def test_faulty_files_are_one_line(annotations, change, match, words):
    with pytest.raises(DataError, match=words) as caught:
        load_annotated_camera(annotations(change), 'bag', True, match, LABELS, 0.4)
    assert '\n' not in str(caught.value) and 'truth.json' in str(caught.value)


def test_annotations_of_other_images_are_a_mistake(annotations):
    camera = load_annotated_camera(annotations(), 'bag', True, STAMP, LABELS, 0.4)
    with pytest.raises(DataError, match='none of its 3 frames is in the bag by stamp'):
        camera.truth(2, [FrameKey(0, 7, 'camera')])


@pytest.mark.parametrize(('name', 'numbers', 'match', 'doubt'), [
    ('walk', (1, 3), ORDER, ''),
    ('walk', (0, 1, 2, 3, 4), ORDER, ''),
    ('walk', (0, 1, 2), STAMP, ''),
    ('walk', (0, 1, 2), ORDER, 'its 3 frames are taken for the first of 5 images'),
    ('walk', (1, 3, 9), ORDER, '1 of its 3 frames have no image'),
    ('run', (0, 1, 2, 3, 4), ORDER, 'is taken for run, as the only one there is'),
    ('run', (4, 5), STAMP, 'is taken for run, as the only one there is, and 1 of its 2 frames '
     'have no image')])
def test_annotations_that_may_be_those_of_other_images(annotations, name, numbers, match, doubt):
    def change(document):
        document['annotations'] = []
        document['images'] = [{**document['images'][0], 'id': n, 'file_name': f'walk/{n}.jpg',
                               'frame_index': n, 'stamp_ns': 1000 + n} for n in numbers]

    path = annotations(change)
    found = load_annotated_camera(path, name, True, match, LABELS, 0.4).truth(2, KEYS).doubt
    assert found == (doubt and f'{path}: video walk: {doubt}')


def keys(count):
    return [FrameKey(n, 100 * 10**9 + n * 10**8, 'camera') for n in range(count)]


def recorded(tmp_path, messages, topic='/truth', only=True):
    path = write_bag(tmp_path / 'walk', {'/camera': [raw_message(n) for n in range(4)],
                                         '/truth': messages})
    with ImageBag(path, vision_typestore()) as bag:
        return recorded_truth(bag, topic, LABELS, keys(4), only)


BOX = [[1, 2, 11, 22]]


def test_numbers_of_a_topic_identify_objects(tmp_path):
    messages = [truth_message(n, [*BOX, [3, 3, 9, 9]], ['dog', 'cat']) for n in range(3)]
    for message, ids in zip(messages, (('a', 'b'), ('b', 'a'), ('', 'a'))):
        for detection, number in zip(message.detections, ids):
            detection.id = number
    tracks = recorded(tmp_path, messages).table.tracks.tolist()
    assert tracks[:2] == tracks[3:1:-1] and tracks[4:] == [UNKNOWN_TRACK, tracks[0]]
    assert len(set(tracks)) == 3
    (tmp_path / 'plain').mkdir()
    unknown = recorded(tmp_path / 'plain', [truth_message(0, BOX, ['dog'])]).table.tracks
    assert unknown.tolist() == [UNKNOWN_TRACK]


def test_boxes_of_a_topic_are_matched_by_the_header(tmp_path):
    truth = recorded(tmp_path, [
        truth_message(0, [], []), truth_message(2, [*BOX, [3, 3, 9, 9]], ['dog', 'horse']),
        truth_message(9, BOX, ['dog']), truth_message(1, BOX, ['cat'], frame_id='other')])
    assert truth.frames.tolist() == [0, 2] and truth.unmatched == 2 and truth.doubt == ''
    assert truth.table.frames.tolist() == [2] and truth.table.labels.tolist() == [1]
    assert truth.table.boxes.tolist() == BOX
    assert truth.table.ignore_boxes.tolist() == [[3, 3, 9, 9]]


@pytest.mark.parametrize('messages, topic, words', [
    ([truth_message(0, BOX, ['dog'])], '/detections', 'no topic /detections with .*is /truth'),
    ([truth_message(8, BOX, ['dog'])], '/truth', 'no message on /truth has the header of an im'),
    ([truth_message(1, BOX, ['dog']), truth_message(1, [], [])], '/truth',
     'two messages for one image, with stamp 100.100000000'),
])
def test_topics_that_do_not_fit_are_one_line(tmp_path, messages, topic, words):
    with pytest.raises(InputError, match=words) as caught:
        recorded(tmp_path, messages, topic)
    assert '\n' not in str(caught.value)


def test_unusable_boxes_of_a_topic_are_left_out_and_reported(tmp_path):
    odd = [[float('nan'), 2, 11, 22], [1, 2, float('inf'), 22]]
    truth = recorded(tmp_path, [truth_message(0, [*odd, *BOX], ['horse', 'dog', 'dog'])])
    assert truth.table.boxes.tolist() == BOX and not len(truth.table.ignore_boxes)
    assert '/truth: 2 boxes are left out' in truth.doubt


def test_a_second_camera_may_be_without_annotations(tmp_path):
    truth = recorded(tmp_path, [truth_message(8, BOX, ['dog'])], only=False)
    assert len(truth.frames) == len(truth.table) == 0
