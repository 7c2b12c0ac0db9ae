# SPDX-License-Identifier: Apache-2.0
"""Reading annotation files: targets, ignore regions, tracks, and a line for each mistake."""

import copy
import json
import logging
import math

from forecast_detector_ros.annotations.findings import Collected, DataError, Kind
from forecast_detector_ros.annotations.records import PictureFolder, Targets, UNKNOWN_TRACK
from forecast_detector_ros.annotations.video_json import load_video_json
import numpy as np
import pytest

CLASSES = ('cat', 'dog')


def load(path, **scores):
    return load_video_json(path, path.parent, CLASSES, **scores)


def annotation(score, box=(1, 2, 10, 10), category=5, **more):
    return {'id': 2, 'image_id': 12, 'category_id': category, 'bbox': list(box), 'score': score,
            **more}


def test_frames_are_in_order_and_a_still_is_a_video_of_one_frame(document, write):
    video, still = load(write(document))
    assert [frame.path.name for frame in video.frames] == ['2.png', '1.png']
    assert (video.name, still.name, len(still.frames)) == ('v', 'still.png', 1)
    frame = video.frames[1]
    np.testing.assert_array_equal(frame.boxes, [[4, 5, 24, 15]])
    assert frame.boxes.dtype == np.float32
    assert frame.labels.tolist() == [0] and frame.labels.dtype == np.int64
    assert frame.scores.tolist() == [0.75] and frame.scores.dtype == np.float32
    assert (frame.width, frame.height) == (40, 30)
    assert still.frames[0].boxes.shape == (0, 4) and still.frames[0].ignore.shape == (0, 4)


def test_missing_score_is_one(document, write):
    del document['annotations'][0]['score']
    assert load(write(document), min_score=0.9)[0].frames[1].scores.tolist() == [1.0]


def test_tracks_are_kept_for_targets(document, write):
    document['annotations'][0]['track_id'] = 4
    document['annotations'] += [annotation(0.9), annotation(0.9, track_id=0),
                                annotation(0.1, track_id=7)]
    video, still = load(write(document), min_score=0.5)
    assert video.frames[1].tracks.tolist() == [4] and video.frames[1].tracks.dtype == np.int64
    assert still.frames[0].tracks.tolist() == [UNKNOWN_TRACK, 0]


def test_region_to_ignore_may_have_the_track_of_a_target(document, write):
    target = document['annotations'][0] | {'track_id': 4}
    crowd = annotation(0.9, track_id=4, iscrowd=1) | {'image_id': target['image_id']}
    for entries in ([target, crowd], [crowd, target]):
        document['annotations'] = entries
        frame = load(write(document))[0].frames[1]
        assert frame.tracks.tolist() == [4] and len(frame.ignore) == 1


def test_box_without_picture_is_refused_with_true_boxes_too(document, write, tmp_path):
    document['annotations'].append(annotation(0.9) | {'image_id': 13})
    extra = {**document['images'][2], 'id': 1, 'file_name': 'more.png'}
    (tmp_path / 'more.png').write_bytes((tmp_path / 'still.png').read_bytes())
    truth = tmp_path / 'truth.json'
    truth.write_text(json.dumps({'images': [extra], 'categories': document['categories'],
                                 'annotations': []}))
    with pytest.raises(DataError, match='image_id 13 is not in images'):
        load(write(document), truth=truth)


@pytest.mark.parametrize('change, words', [
    (lambda document: document['images'][0].update(file_name='\ud800.jpg'),
     'cannot be the name of a file'),
    (lambda document: [document['images'].append(
        {**document['images'][2], 'id': 77, 'frame_index': None}),
        document['images'][2].update(frame_index=None)], 'is used twice')])
def test_odd_entries_are_one_line(document, write, change, words):
    change(document)
    with pytest.raises(DataError, match=words):
        load(write(document))


def test_missing_tracks_are_unknown(document, write):
    frame = load(write(document))[0].frames[1]
    assert frame.tracks.tolist() == [UNKNOWN_TRACK]
    made = Targets(frame.boxes, frame.labels, frame.scores, frame.ignore)
    assert made.tracks.tolist() == [UNKNOWN_TRACK]


def test_record_needs_a_track_for_every_box(document, write):
    frame = load(write(document))[0].frames[1]
    with pytest.raises(ValueError, match='2 tracks for 1 boxes'):
        Targets(frame.boxes, frame.labels, frame.scores, frame.ignore, np.array([1, 2]))


@pytest.mark.parametrize('track', [-1, 1.5, 'a', True])
def test_track_must_be_a_whole_number(document, write, track):
    document['annotations'].append(annotation(0.9, track_id=track))
    with pytest.raises(DataError, match=r'annotations\[1\]: track_id is .* from 0 on'):
        load(write(document))


def test_track_names_one_object_of_a_picture(document, write):
    document['annotations'] += [annotation(0.9, track_id=3), annotation(0.8, track_id=3)]
    with pytest.raises(DataError, match='track_id 3 is used twice in still.png'):
        load(write(document))


@pytest.mark.parametrize(('score', 'targets', 'ignored'), [
    (0.5, 1, 0), (0.49, 0, 1), (0.2, 0, 1), (0.19, 0, 0)])
def test_score_decides_between_target_ignore_and_nothing(document, write, score, targets,
                                                         ignored):
    document['annotations'].append(annotation(score))
    frame = load(write(document), min_score=0.5, ignore_score=0.2)[1].frames[0]
    assert (len(frame.boxes), len(frame.ignore)) == (targets, ignored)


@pytest.mark.parametrize('mark', ['iscrowd', 'ignore', 'label_conflict'])
def test_marked_boxes_are_ignore_regions(document, write, mark):
    document['annotations'].append(annotation(0.9, **{mark: 1}))
    frame = load(write(document))[1].frames[0]
    assert len(frame.boxes) == 0
    np.testing.assert_array_equal(frame.ignore, [[1, 2, 11, 12]])


def test_other_categories_and_ignore_annotations_are_ignore_regions(document, write):
    document['categories'].append({'id': 1, 'name': 'whale'})
    document['annotations'].append(annotation(0.9, category=1))
    document['ignore_annotations'] = [
        {'image_id': 12, 'bbox': [0, 0, 5, 5], 'score': 0.3},
        {'image_id': 12, 'bbox': [0, 0, 5, 5], 'score': 0.1}]
    frame = load(write(document), ignore_score=0.2)[1].frames[0]
    assert len(frame.boxes) == 0
    np.testing.assert_array_equal(frame.ignore, [[1, 2, 11, 12], [0, 0, 5, 5]])


def test_boxes_are_cut_to_the_picture(document, write):
    document['annotations'].append(annotation(0.9, box=(-5, 20, 100, 100)))
    np.testing.assert_array_equal(load(write(document))[1].frames[0].boxes, [[0, 20, 40, 30]])


@pytest.mark.parametrize('box', [
    (1, 1, 0, 5), (1, 1, 5, -2), (50, 1, 5, 5), (1, 1, math.inf, 5), (math.nan, 1, 5, 5)])
def test_boxes_without_area_are_dropped_and_counted(document, write, caplog, box):
    document['annotations'] += [annotation(0.9, box), annotation(0.9, box), annotation(0.9)]
    with caplog.at_level(logging.WARNING):
        frame = load(write(document))[1].frames[0]
    assert len(frame.boxes) == 1
    assert 'dropped 2 boxes without area, in 1 images: still.png' in caplog.text


def remove(*keys):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]
    return change


def put(value, *keys):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value
    return change


def repeat_still(document):
    document['images'].append(document['images'][2] | {'id': 13})


@pytest.mark.parametrize(('change', 'words'), [
    (remove('images'), 'images: missing'),
    (remove('annotations'), 'annotations: missing'),
    (remove('categories'), 'categories: missing'),
    (put({}, 'images'), 'images: not a list of objects'),
    (put([3], 'annotations'), 'annotations: not a list of objects'),
    (put('x', 'ignore_annotations'), 'ignore_annotations: not a list of objects'),
    (remove('images', 0, 'id'), 'images[0]: id is missing'),
    (put('7', 'images', 0, 'id'), "images[0]: id is '7'; it must be of type int"),
    (put(11, 'images', 0, 'id'), 'images[1]: id 11 is used twice'),
    (remove('images', 1, 'file_name'), 'images[1]: file_name is missing'),
    (remove('images', 1, 'width'), 'images[1]: width is missing'),
    (put(0, 'images', 1, 'height'), 'images[1]: height is 0; it must be at least 1'),
    (put(True, 'images', 1, 'height'), 'images[1]: height is True'),
    (put('v/3.png', 'images', 1, 'file_name'), 'v/3.png'),
    (put(5, 'images', 0, 'video'), 'images[0]: video is 5'),
    (remove('images', 0, 'frame_index'), 'images[0]: frame_index is missing'),
    (put(7, 'images', 1, 'frame_index'), 'video v has two images with frame_index 7'),
    (put(41, 'images', 1, 'width'), 'video v changes its size at frame_index 7'),
    (repeat_still, 'images: file_name still.png is used twice'),
    (remove('categories', 0, 'name'), 'categories[0]: name is missing'),
    (put(9, 'categories', 0, 'id'), 'categories[1]: id 9 is used twice'),
    (put([{'id': 9, 'name': 'whale'}], 'categories'), 'none of the classes (cat, dog) is here'),
    (remove('annotations', 0, 'image_id'), 'annotations[0]: image_id is missing'),
    (put(99, 'annotations', 0, 'image_id'), 'annotations[0]: image_id 99 is not in images'),
    (put(99, 'annotations', 0, 'category_id'), 'category_id 99 is not in categories'),
    (remove('annotations', 0, 'bbox'), 'annotations[0]: bbox is None'),
    (put([1, 2, 3], 'annotations', 0, 'bbox'), 'bbox is [1, 2, 3]; it must be 4 numbers'),
    (put([1, 2, 3, 'x'], 'annotations', 0, 'bbox'), 'it must be 4 numbers'),
    (put(1.5, 'annotations', 0, 'score'), 'annotations[0]: score is 1.5'),
    (put('high', 'annotations', 0, 'score'), "annotations[0]: score is 'high'"),
    (put(math.nan, 'annotations', 0, 'score'), 'annotations[0]: score is nan'),
])
def test_each_mistake_is_one_line_that_names_it(document, write, change, words):
    change(document)
    path = write(document)
    with pytest.raises(DataError) as caught:
        load(path)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(path))
    assert '\n' not in message


@pytest.mark.parametrize(('content', 'words'), [
    (b'{"images": [', 'not valid JSON: line 1 column 13'), (b'\xff\xfe\x00', 'not UTF-8'),
    (b'[' * 100_000, 'nested too deeply'),
    (b'{"images": [{"id": 1' + b'0' * 400 + b'}]}', 'an integer of 401 digits'),
    (b'[1, 2]', 'must hold a JSON object'), (b'', 'not valid JSON'),
    (b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}',
     'images: empty')])
def test_invalid_annotation_file_is_one_line(tmp_path, content, words):
    path = tmp_path / 'broken.json'
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load(path)
    assert words in str(caught.value) and str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_missing_files_are_named(tmp_path, document, write):
    with pytest.raises(DataError, match='absent.json: cannot be read: No such file'):
        load(tmp_path / 'absent.json')
    path = write(document)
    (tmp_path / 'still.png').unlink()
    with pytest.raises(DataError, match=r'images\[2\]: no file .*still\.png'):
        load(path)


@pytest.mark.parametrize(('name', 'reason'), [
    ('../still.png', 'leads out of'), ('/etc/hostname', 'leads out of'),
    ('a' * 5000, 'cannot be the name'), ('a\0b', 'cannot be the name')])
def test_names_outside_the_folder_are_one_line(document, write, name, reason):
    document['images'][2]['file_name'] = name
    path = write(document)
    with pytest.raises(DataError, match=rf'images\[2\]: file_name .* {reason}') as caught:
        load(path)
    assert len(str(caught.value)) < 600 and '\n' not in str(caught.value)


def test_pictures_outside_are_read_if_allowed(tmp_path, document, write):
    path = write(document)
    (tmp_path / 'still.png').rename(tmp_path.parent / 'elsewhere.png')
    document['images'][2]['file_name'] = '../elsewhere.png'
    write(document)
    with pytest.raises(DataError, match='leads out of'):
        load(path)
    videos = load_video_json(path, PictureFolder(path.parent, outside=True), CLASSES)
    assert videos[-1].frames[0].path.resolve() == tmp_path.parent / 'elsewhere.png'


@pytest.mark.parametrize('number', [1e400, -1e400, float('nan'), 2**62])
def test_huge_numbers_are_one_line_or_no_box(document, write, number):
    for key in ('bbox', 'score', 'track_id'):
        broken = copy.deepcopy(document)
        broken['annotations'][0][key] = [number, 1, 5, 5] if key == 'bbox' else number
        try:
            load(write(broken))
        except DataError as error:
            assert key in str(error) and '\n' not in str(error)


def test_plain_coco_gives_stills_and_crowds_are_ignored(document, write):
    for image in document['images']:
        image.pop('video', None)
        image.pop('frame_index', None)
    plain = {'segmentation': [[1, 2, 3, 4]], 'area': 12.0, 'iscrowd': 0}
    document['annotations'] = [
        {**plain, 'id': 1, 'image_id': 10, 'category_id': 9, 'bbox': [4.5, 5, 20, 10]},
        {**plain, 'id': 2, 'image_id': 10, 'category_id': 5, 'bbox': [1, 2, 3, 4], 'iscrowd': 1,
         'segmentation': {'counts': [1], 'size': [30, 40]}}]
    document |= {'info': {}, 'licenses': []}
    records = load(write(document))
    assert [(record.name, len(record.frames)) for record in records] == [
        ('v/1.png', 1), ('v/2.png', 1), ('still.png', 1)]
    frame = records[0].frames[0]
    np.testing.assert_array_equal(frame.boxes, [[4.5, 5, 24.5, 15]])
    np.testing.assert_array_equal(frame.ignore, [[1, 2, 4, 6]])


def test_collecting_continues_where_training_stops(document, write):
    document['images'][0]['width'] = 0
    del document['categories'][0]['name']
    document['annotations'] += [annotation(2), annotation(0.5, category=9)]
    findings = Collected()
    path = write(document)
    records = load_video_json(path, path.parent, ('cat',), findings=findings)
    # The box of the unusable picture is no further mistake.
    assert findings.lines == {Kind.BROKEN: [
        f'{path}: categories[0]: name is missing; it must be of type str',
        f'{path}: images[0]: width is 0; it must be at least 1',
    ], Kind.UNKNOWN_CATEGORY: [f'{path}: annotations[1]: category_id 5 is not in categories']}
    assert [(record.name, len(record.frames)) for record in records] == [
        ('v', 1), ('still.png', 1)]
    assert records[1].frames[0].scores.tolist() == [0.5]
