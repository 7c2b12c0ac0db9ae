# SPDX-License-Identifier: Apache-2.0
"""From folders of pictures to a COCO-video document."""

import json

import cv2
from forecast_detector_ros.data.video_json import load_video_json
from forecast_detector_ros.training.labelling import label_folders, picture_folders
from forecast_detector_ros.training.teacher import TEACHER_CLASSES, TeacherBoxes, TeacherError
import numpy as np
import pytest


def write(path, size=(20, 30), value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


def see(image):
    """Find a dog, a truck and a chair in every picture but black ones."""
    if not image.any():
        return TeacherBoxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64),
                            np.zeros(0, np.float32))
    names = ('dog', 'truck', 'chair')
    return TeacherBoxes(
        np.array([[1, 2, 11.256, 8], [0, 0, 5, 5], [3, 3, 9, 9]], np.float32),
        np.array([TEACHER_CLASSES.index(name) for name in names]),
        np.array([0.9, 0.8, 0.7], np.float32))


def label(root, classes=('cat', 'dog'), ignore=('truck',), videos=True, **options):
    return label_folders(see, root, picture_folders(root), classes, ignore, videos, **options)


def test_folders_are_named_and_their_pictures_ordered(tmp_path):
    for name in ('b/frames/frame10.png', 'b/frames/frame9.png', 'a/1.JPG', 'a/deep/2.png'):
        write(tmp_path / name)
    (tmp_path / 'a/notes.txt').write_text('no picture')
    folders = picture_folders(tmp_path)
    assert {name: [path.name for path in paths] for name, paths in folders.items()} == {
        'a': ['1.JPG'], 'a/deep': ['2.png'], 'b': ['frame9.png', 'frame10.png']}


def test_frames_keep_their_name_beside_other_pictures(tmp_path):
    write(tmp_path / 'a/cover.png')
    write(tmp_path / 'a/frames/1.png')
    assert set(picture_folders(tmp_path)) == {'a', 'a/frames'}


def test_pictures_in_the_root_itself_are_named_after_it(tmp_path):
    write(tmp_path / 'walk/1.png')
    assert set(picture_folders(tmp_path / 'walk')) == {'walk'}


def test_chosen_folders_only_and_none_twice(tmp_path):
    for name in ('a/1.png', 'a/b/2.png', 'c/3.png'):
        write(tmp_path / name)
    folders = picture_folders(tmp_path, ['a', 'a/b'])
    assert {name: len(paths) for name, paths in folders.items()} == {'a': 1, 'a/b': 1}


def test_folder_without_pictures_or_missing(tmp_path):
    with pytest.raises(TeacherError, match='no pictures'):
        picture_folders(tmp_path)
    with pytest.raises(TeacherError, match='x: no such folder'):
        picture_folders(tmp_path, ['x'])


def test_document_by_hand(tmp_path):
    write(tmp_path / 'walk/1.png', value=200)
    write(tmp_path / 'walk/2.png', value=0)
    told = []
    document = label(tmp_path, description='by hand', progress=lambda *args: told.append(args))
    assert document['info'] == {'description': 'by hand'}
    assert document['videos'] == [{'name': 'walk', 'fps': None, 'frames': 2}]
    assert document['images'] == [
        {'id': 1, 'file_name': 'walk/1.png', 'width': 30, 'height': 20, 'video': 'walk',
         'frame_index': 0},
        {'id': 2, 'file_name': 'walk/2.png', 'width': 30, 'height': 20, 'video': 'walk',
         'frame_index': 1}]
    assert document['categories'] == [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}]
    assert document['annotations'] == [
        {'id': 1, 'image_id': 1, 'bbox': [1.0, 2.0, 10.26, 6.0], 'score': 0.9, 'category_id': 2,
         'area': 61.5, 'iscrowd': 0}]
    assert document['ignore_annotations'] == [
        {'image_id': 1, 'bbox': [0.0, 0.0, 5.0, 5.0], 'score': 0.8, 'coco_class': 'truck'}]
    assert told == [('walk', 1)]


def test_the_loader_reads_what_is_written(tmp_path):
    write(tmp_path / 'walk/1.png', value=200)
    write(tmp_path / 'walk/2.png', value=0)
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps(label(tmp_path)))
    (video,) = load_video_json(path, tmp_path, ['dog'])
    assert video.name == 'walk' and len(video.frames) == 2
    assert video.frames[0].scores == pytest.approx([0.9])
    assert video.frames[0].ignore.tolist() == [[0, 0, 5, 5]]
    assert len(video.frames[1].boxes) == 0


def test_stills_belong_to_no_video_and_may_differ_in_size(tmp_path):
    write(tmp_path / 'dogs/1.png', (20, 30))
    write(tmp_path / 'dogs/2.png', (30, 20))
    with pytest.raises(TeacherError, match=r'2\.png: is 20x30 pixels.*--stills'):
        label(tmp_path)
    document = label(tmp_path, videos=False)
    assert document['videos'] == []
    assert all('video' not in image for image in document['images'])


def test_unknown_class_and_broken_picture(tmp_path):
    write(tmp_path / 'walk/1.png')
    with pytest.raises(TeacherError, match="class 'whale' is unknown to the teacher"):
        label(tmp_path, classes=['whale'])
    (tmp_path / 'walk/1.png').write_bytes(b'')
    with pytest.raises(TeacherError, match=r'1\.png: not a picture'):
        label(tmp_path)


def test_box_without_area_is_left_out(tmp_path):
    write(tmp_path / 'walk/1.png', value=200)
    flat = TeacherBoxes(np.array([[5, 5, 5, 9]], np.float32),
                        np.array([TEACHER_CLASSES.index('dog')]), np.array([0.9], np.float32))
    document = label_folders(lambda image: flat, tmp_path, picture_folders(tmp_path), ['dog'],
                             [], True)
    assert document['annotations'] == []
