# SPDX-License-Identifier: Apache-2.0
"""Folders with pictures: their names, and the order of the pictures."""

import cv2
from forecast_detector_ros.labelling.label_folders import picture_folders
from forecast_detector_ros.labelling.teacher import TeacherError
import numpy as np
import pytest


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))


def test_folders_are_named_and_their_pictures_ordered(tmp_path):
    for name in ('b/frames/frame10.png', 'b/frames/frame9.png', 'a/1.JPG', 'a/deep/2.png'):
        write(tmp_path / name)
    (tmp_path / 'a/notes.txt').write_text('no picture')
    folders = picture_folders(tmp_path)
    assert {name: [path.name for path in paths] for name, paths in folders.items()} == {
        'a': ['1.JPG'], 'a/deep': ['2.png'], 'b': ['frame9.png', 'frame10.png']}


def test_pictures_of_equal_numbers_have_one_order(tmp_path):
    names = [f'{"0" * zeros}1.png' for zeros in range(9, -1, -1)]
    for name in names:
        write(tmp_path / 'a' / name)
    assert [path.name for path in picture_folders(tmp_path)['a']] == names


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


def test_two_folders_of_one_name_are_refused(tmp_path):
    for name in ('walk/1.png', 'walk/walk/2.png'):
        write(tmp_path / name)
    with pytest.raises(TeacherError, match='another folder is called walk'):
        picture_folders(tmp_path / 'walk')


def test_linked_folders_are_searched_without_cycles(tmp_path):
    write(tmp_path / 'elsewhere/1.png')
    write(tmp_path / 'root/a/2.png')
    (tmp_path / 'root/b').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'root/a/above').symlink_to(tmp_path / 'root')
    assert set(picture_folders(tmp_path / 'root')) == {'a', 'b'}


@pytest.mark.parametrize('name', ['/tmp', '../x', 'a/../../x'])
def test_folders_outside_the_root_are_refused(tmp_path, name):
    write(tmp_path / 'a/1.png')
    with pytest.raises(TeacherError, match='must be a folder below'):
        picture_folders(tmp_path, [name])


def test_folder_without_pictures_or_missing(tmp_path):
    with pytest.raises(TeacherError, match='no pictures'):
        picture_folders(tmp_path)
    with pytest.raises(TeacherError, match='x: no such folder'):
        picture_folders(tmp_path, ['x'])
