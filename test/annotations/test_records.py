# SPDX-License-Identifier: Apache-2.0
"""Paths of pictures, boxes that are cut to their picture, and the reader of frames."""
from dataclasses import replace
import math
from pathlib import Path

import cv2
from forecast_detector_ros.annotations.findings import Collected, DataError, Kind, Strict
from forecast_detector_ros.annotations.records import (
    box_in_picture,
    FrameBoxes,
    FrameReader,
    FrameRecord,
    PictureFolder,
    VideoRecord,
)
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a folder of pictures, and beside it a folder that must not be read."""
    (tmp_path / 'images/walk').mkdir(parents=True)
    (tmp_path / 'images/walk/1.png').touch()
    (tmp_path / 'secret').mkdir()
    (tmp_path / 'secret/1.png').touch()
    (tmp_path / 'images/file.png').symlink_to(tmp_path / 'secret/1.png')
    (tmp_path / 'images/folder').symlink_to(tmp_path / 'secret')
    (tmp_path / 'images/inner').symlink_to(tmp_path / 'images/walk')
    return tmp_path / 'images'


@pytest.mark.parametrize('name', ['walk/1.png', 'walk/../walk/1.png', 'inner/1.png', 'none.png',
                                  'images..png', 'walk'])
def test_paths_inside_the_folder_are_found(root: Path, name: str) -> None:
    assert PictureFolder(root).place(name, 'a.json') == root / name


@pytest.mark.parametrize('name', ['../secret/1.png', 'walk/../../secret/1.png', '..',
                                  '/etc/passwd', 'file.png', 'folder/1.png', 'folder/none.png',
                                  '../images2/a'])
def test_paths_outside_are_refused_unless_allowed(root: Path, name: str) -> None:
    with pytest.raises(DataError, match=r'^a\.json: file_name .* leads out of .*outside') as told:
        PictureFolder(root).place(name, 'a.json')
    assert told.value.kind is Kind.OUTSIDE
    assert PictureFolder(root, outside=True).place(name, 'a.json') == root / name


def test_the_folder_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    link = tmp_path / 'link'
    link.symlink_to(root)
    assert PictureFolder(link).place('walk/1.png', 'a.json') == link / 'walk/1.png'
    with pytest.raises(DataError, match='leads out'):
        PictureFolder(link).place('../secret/1.png', 'a.json')


@pytest.mark.parametrize('name', ['a' * 256, 'a' * 5000, 'a/' * 2500 + 'a', 'a\0b', 'ö' * 200])
@pytest.mark.parametrize('outside', [False, True])
def test_invalid_file_name_is_one_short_line(root: Path, name: str, outside: bool) -> None:
    with pytest.raises(DataError, match=r'^a\.json: file_name .* cannot be the name') as caught:
        PictureFolder(root, outside).place(name, 'a.json')
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


WIDTH, HEIGHT = 40, 30
corner = st.floats(-100, 100, width=32)


@given(st.tuples(corner, corner, corner, corner))
def test_a_box_is_cut_to_the_picture(corners):
    findings = Collected()
    box = box_in_picture(corners, WIDTH, HEIGHT, 'f', findings)
    x0, y0, x1, y1 = corners
    # A point is in the cut box if and only if it is in the box and in the picture.
    for x in (-0.5, 0.5, 20.0, 39.5, 40.5):
        for y in (-0.5, 0.5, 15.0, 29.5, 30.5):
            expected = x0 <= x <= x1 and y0 <= y <= y1 and 0 <= x <= WIDTH and 0 <= y <= HEIGHT
            if x0 < x1 and y0 < y1:
                inside = box is not None and box[0] <= x <= box[2] and box[1] <= y <= box[3]
                assert inside == expected
    if box is None:
        assert sum(findings.counts.values()) == 1 and Kind.NO_AREA in findings.counts
    else:
        assert box[2] > box[0] and box[3] > box[1]
        assert box_in_picture(box, WIDTH, HEIGHT, 'f', Strict()) == box
        moved = max(abs(a - b) for a, b in zip(box, corners))
        assert (Kind.BEYOND in findings.counts) == (moved > 1)


@pytest.mark.parametrize('place', range(4))
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite(place, value):
    corners = [1.0, 2.0, 3.0, 4.0]
    corners[place] = value
    findings = Collected()
    assert box_in_picture(corners, WIDTH, HEIGHT, 'f: entry', findings) is None
    assert findings.lines == {
        Kind.NOT_FINITE: ['f: entry: box with numbers that are not finite']}


@pytest.mark.parametrize('corners, kind, line', [
    ((3, 4, 3, 8), Kind.NO_AREA, 'f: box without area, 0 x 4'),
    ((41, 4, 50, 8), Kind.NO_AREA, 'f: box from (41, 4) to (50, 8) lies outside of the 40x30 '
                                   'picture'),
    ((35, 4, 50, 8), Kind.BEYOND, 'f: box from (35, 4) to (50, 8) reaches beyond the 40x30 '
                                  'picture and is cut')])
def test_messages_about_boxes(corners, kind, line):
    findings = Collected()
    box_in_picture(corners, WIDTH, HEIGHT, 'f', findings)
    assert findings.lines == {kind: [line]}


def test_the_same_box_twice_is_noted_and_kept():
    findings, boxes = Collected(), FrameBoxes()
    boxes.add((1, 2, 3, 4), 0, 'first', findings, track=5)
    boxes.add((1, 2, 3, 4), 1, 'other class', findings)
    boxes.add((1, 2, 3, 4), 0, 'again', findings)
    assert findings.lines == {Kind.DUPLICATE: [
        'again: class and box are those of another object in the picture']}
    record = boxes.record('p', WIDTH, HEIGHT)
    np.testing.assert_array_equal(record.labels, [0, 1, 0])
    np.testing.assert_array_equal(record.tracks, [5, -1, -1])


def test_faults_stop_strict_reading_and_are_collected_otherwise():
    error = DataError('no such file', Kind.MISSING_FILE)
    with pytest.raises(DataError, match='no such file'):
        Strict().fault(error)
    findings = Collected(most=1)
    for _ in range(3):
        findings.fault(error)
    assert findings.lines == {Kind.MISSING_FILE: ['no such file']}
    assert findings.counts == {Kind.MISSING_FILE: 3}


NONE = np.zeros((0, 4), np.float32)


@pytest.fixture
def record(tmp_path):
    """Return a frame of 8x6 pixels, all of one colour."""
    path = tmp_path / 'picture.png'
    cv2.imwrite(str(path), np.full((6, 8, 3), (10, 20, 30), np.uint8))
    return FrameRecord(NONE, np.zeros(0, np.int64), np.zeros(0, np.float32), NONE, path=path,
                       width=8, height=6)


def test_pictures_are_rgb(record):
    image = FrameReader().read(record)
    assert image.shape == (6, 8, 3) and image.dtype == np.uint8
    assert image[3, 4].tolist() == [30, 20, 10]


def test_preloaded_frames_are_read_once_and_cannot_be_changed(record):
    reader = FrameReader()
    video = VideoRecord('v', (record, record))
    assert reader.preload([video]) == reader.preload([video]) == 8 * 6 * 3
    record.path.unlink()
    image = reader.read(record)
    assert reader.read(record) is image
    with pytest.raises(ValueError, match='read-only'):
        image[0, 0] = 0


def test_unusable_pictures_are_named(record):
    with pytest.raises(DataError, match=r'picture\.png: is 8x6 pixels, .* says 9x6'):
        FrameReader().read(replace(record, width=9))
    record.path.write_bytes(record.path.read_bytes()[:20])
    with pytest.raises(DataError, match=r'picture\.png: not a picture'):
        FrameReader().read(record)
    record.path.write_bytes(b'')
    with pytest.raises(DataError, match=r'picture\.png: not a picture'):
        FrameReader().read(record)
    record.path.unlink()
    with pytest.raises(DataError, match=r'picture\.png: cannot be read: No such file'):
        FrameReader().preload([VideoRecord('v', (record,))])
