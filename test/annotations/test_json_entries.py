# SPDX-License-Identifier: Apache-2.0
"""True boxes replace those of a teacher: boxes, tracks, ignore regions and mistakes."""

import json

import cv2
from forecast_detector_ros.annotations.findings import Collected, DataError, Kind
from forecast_detector_ros.annotations.video_json import load_video_json
import numpy as np
import pytest

CLASSES = ('cat', 'dog')
CATEGORIES = [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}, {'id': 3, 'name': 'whale'}]


@pytest.fixture
def load(tmp_path, document, write):
    """Return a function that reads a teacher's document together with a file of true boxes."""
    def function(truth, findings=None):
        (tmp_path / 'truth.json').write_text(json.dumps({'categories': CATEGORIES} | truth))
        return load_video_json(write(document), tmp_path, CLASSES, 0.5, 0.2, findings,
                               tmp_path / 'truth.json')
    return function


def frame(index=7, **more):
    return {'id': 1, 'file_name': 'v/1.png', 'width': 40, 'height': 30, 'video': 'v',
            'frame_index': index, **more}


def still(name='still.png', **more):
    return {'id': 2, 'file_name': name, 'width': 40, 'height': 30, **more}


def true(box, category=1, image=1, **more):
    return {'image_id': image, 'category_id': category, 'bbox': list(box), **more}


def taught(box, score, category=9, image=10, **more):
    """Return a box of the teacher, whose category 9 is cat and 5 is dog."""
    return {'image_id': image, 'category_id': category, 'bbox': list(box), 'score': score, **more}


def test_true_box_replaces_only_the_teachers_box_of_its_object(document, load):
    # The teacher's document already has a cat at (4, 5, 20, 10).
    document['annotations'] += [
        taught((5, 5, 20, 10), 0.3), taught((4, 5, 20, 10), 0.9, 5),
        taught((30, 20, 8, 8), 0.7), taught((30, 2, 8, 8), 0.3), taught((30, 12, 5, 5), 0.1)]
    video, other = load({'images': [frame()], 'annotations': [true((4, 6, 20, 10))]})
    seen = video.frames[1]
    np.testing.assert_array_equal(seen.boxes, [[4, 6, 24, 16], [4, 5, 24, 15], [30, 20, 38, 28]])
    assert seen.labels.tolist() == [0, 1, 0]
    assert seen.scores.tolist() == pytest.approx([1, 0.9, 0.7])
    np.testing.assert_array_equal(seen.ignore, [[30, 2, 38, 10]])
    assert len(video.frames) == 2 and other.name == 'still.png'


def test_boxes_that_overlap_a_true_box_a_little_are_ignored(document, load):
    # The IoU of (0, 0, 10, 10) with (5, 0, 10, 10) is 1 / 3, with (8, 0, 10, 10) 1 / 9.
    document['annotations'] = [taught((5, 0, 10, 10), 0.9), taught((8, 0, 10, 10), 0.8)]
    seen = load({'images': [frame()], 'annotations': [true((0, 0, 10, 10))]})[0].frames[1]
    np.testing.assert_array_equal(seen.boxes, [[0, 0, 10, 10], [8, 0, 18, 10]])
    np.testing.assert_array_equal(seen.ignore, [[5, 0, 15, 10]])


def test_complete_video_has_only_its_true_boxes(document, load):
    document['annotations'] += [taught((30, 20, 8, 8), 0.9), taught((30, 2, 8, 8), 0.9, 5),
                                taught((30, 20, 8, 8), 0.9, image=11)]
    truth = {'videos': [{'name': 'v', 'complete': True}],
             'images': [frame(), frame(2, id=3, file_name='v/2.png')],
             'annotations': [true((4, 6, 20, 10))]}
    first, second = load(truth)[0].frames
    np.testing.assert_array_equal(second.boxes, [[4, 6, 24, 16]])
    # The video has no true dog, so dogs may be without true boxes.
    np.testing.assert_array_equal(second.ignore, [[30, 2, 38, 10]])
    assert not len(first.boxes) and not len(first.ignore)
    truth['images'].pop()
    # A frame that is not in the file of true boxes has the teacher's boxes.
    assert len(load(truth)[0].frames[0].boxes) == 1


@pytest.mark.parametrize(('labels', 'kept'), [
    ('cat', [1]), (['cat', 'dog'], []), ('20 VOC classes', []), ('80 COCO classes', []),
    (None, [0, 1])])
def test_labels_of_a_still_name_the_boxed_classes(document, load, labels, kept):
    document['annotations'] = [taught((1, 1, 8, 8), 0.9, image=12),
                               taught((20, 1, 8, 8), 0.9, 5, 12)]
    picture = load({'images': [still(labels=labels)], 'annotations': []})[1].frames[0]
    assert picture.labels.tolist() == kept


@pytest.mark.parametrize('mark', ['ignore', 'iscrowd'])
def test_marked_true_boxes_are_ignored(document, load, mark):
    document['annotations'] = [taught((1, 1, 8, 8), 0.9, image=12)]
    picture = load({'images': [still()], 'annotations': [
        true((1, 1, 8, 9), image=2, **{mark: 1}), true((20, 1, 8, 8), 3, 2)]})[1].frames[0]
    assert not len(picture.boxes)
    np.testing.assert_array_equal(picture.ignore, [[1, 1, 9, 10], [20, 1, 28, 9]])


def test_tracks_of_true_and_teachers_boxes_are_distinct(document, load):
    document['annotations'] = [taught((30, 20, 8, 8), 0.9, track_id=1),
                               taught((30, 20, 8, 8), 0.9, image=11, track_id=4)]
    frames = load({'images': [frame(), frame(2, id=3, file_name='v/2.png')], 'annotations': [
        true((4, 6, 20, 10), track_id=1), true((4, 6, 9, 10), image=3, track_id=1),
        true((20, 6, 9, 10), image=3)]})[0].frames
    assert frames[1].tracks.tolist() == [6, 1]
    assert frames[0].tracks.tolist() == [6, -1, 4]


def test_pictures_only_in_the_file_of_true_boxes_are_added(document, tmp_path, load):
    cv2.imwrite(str(tmp_path / 'new.png'), np.zeros((30, 40, 3), np.uint8))
    findings = Collected()
    # The teacher uses this id too, but file names identify the pictures.
    records = load({'images': [still('new.png', id=12, labels='cat')],
                    'annotations': [true((1, 1, 8, 8), image=12)]}, findings)
    assert [record.name for record in records] == ['v', 'still.png', 'new.png']
    assert records[2].frames[0].path == tmp_path / 'new.png'
    assert [len(record.frames[-1].boxes) for record in records] == [1, 0, 1]
    (line,) = findings.lines[Kind.UNLABELLED_CLASS]
    assert 'labels of 1 pictures that only this file has leave out dog' in line


def test_groups_of_videos_are_read(document, load):
    document['videos'] = [{'name': 'v', 'group': 'walk'}]
    assert [record.group for record in load({'images': [], 'annotations': []})] == ['walk', '']
    truth = {'videos': [{'name': 'v', 'group': 'run'}], 'images': [], 'annotations': []}
    assert load(truth)[0].group == 'run'


@pytest.mark.parametrize(('truth', 'words'), [
    ({'images': [frame(width=20)]}, 'v/1.png: width is 20, but 40 in the file that it is laid'),
    ({'images': [frame(3)]}, 'v/1.png: frame_index is 3, but 7 in the file'),
    ({'images': [frame(), frame(id=3)]}, 'file_name v/1.png is used twice'),
    ({'images': [still(labels='zebra')]}, "still.png: labels is 'zebra'; it must be a category"),
    ({'images': [still(labels=4)]}, 'still.png: labels is 4; it must be a category'),
    ({'images': [], 'videos': [{'name': 'v', 'complete': 'yes'}]},
     "videos: complete of v is 'yes'; it must be true or false"),
    ({'images': [still('no.png')]}, 'no file'),
    ({'images': [], 'annotations': [true((1, 1, 2, 2))]}, r'annotations[0]: image_id 1 is not in'),
])
def test_mistakes_are_one_line_with_the_file_of_true_boxes(tmp_path, load, truth, words):
    with pytest.raises(DataError) as caught:
        load({'annotations': []} | truth)
    assert str(caught.value).startswith(str(tmp_path / 'truth.json'))
    assert words in str(caught.value)
    # A reader that collects mistakes reads the other entries.
    if 'complete' not in words:
        assert len(load({'annotations': []} | truth, Collected())) >= 2
