# SPDX-License-Identifier: Apache-2.0
"""Cut-outs: their boxes are those of what is seen, and broken files are named."""

import logging

import cv2
from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.clips.affine import rotation_about, scale_and_shift
from forecast_detector_ros.clips.cutouts import load_cutouts, make_cutout, paste
import numpy as np
import pytest


def disc():
    """Return RGBA (60, 80): a blue disc, opaque from (20, 10) to (60, 50), red where unseen."""
    image = np.zeros((60, 80, 4), np.uint8)
    image[:, :, 0] = 255
    rows, columns = np.mgrid[:60, :80] + 0.5
    image[(columns - 40) ** 2 + (rows - 30) ** 2 <= 20 ** 2] = 0, 0, 255, 255
    return image


@pytest.fixture
def cutout():
    """Give the disc as a cut-out of class 1."""
    result = make_cutout(disc(), 1)
    assert result is not None
    return result


def test_the_box_is_that_of_the_opaque_pixels(cutout):
    np.testing.assert_array_equal(cutout.box(np.eye(3)), [20, 10, 60, 50])
    np.testing.assert_array_equal(cutout.box(scale_and_shift(-2, 1, 200, 5)), [80, 15, 160, 55])
    assert cutout.fill == pytest.approx(np.pi / 4, abs=0.01)
    assert make_cutout(np.zeros((5, 5, 4), np.uint8), 0) is None


@pytest.mark.parametrize(('matrix', 'visible'), [
    (scale_and_shift(1, 1, 13.3, 20.7), True),
    (scale_and_shift(0.2, 0.3, 50, 60), True),
    (scale_and_shift(-1.7, 1.7, 180, 10), True),
    (rotation_about(40, 30, 33, 1.2), True),
    (scale_and_shift(1, 1, -200, 0), False),
    (scale_and_shift(1, 1, 0, 500), False),
])
def test_what_is_drawn_is_where_its_box_says(cutout, matrix, visible, measure):
    picture = np.full((140, 180, 3), 90, np.uint8)
    paste(picture, cutout, matrix)
    found = measure(picture, colour=2)
    if visible:
        np.testing.assert_allclose(found, cutout.box(matrix), atol=1.0)
    else:
        assert (picture == 90).all()
    # The colour under transparent pixels does not bleed into the border.
    assert picture[:, :, 0].max() <= 90


def test_partly_outside_is_cut(cutout, measure):
    picture = np.full((140, 180, 3), 90, np.uint8)
    paste(picture, cutout, scale_and_shift(1, 1, -40, 100))
    np.testing.assert_allclose(measure(picture, colour=2), [0, 110, 20, 140], atol=1.0)


def test_gain_changes_the_cutout_alone(cutout):
    picture = np.full((60, 80, 3), 90, np.uint8)
    paste(picture, cutout, np.eye(3), gain=0.5)
    assert picture[30, 40].tolist() == [0, 0, 128]
    assert picture[0, 0].tolist() == [90, 90, 90]
    paste(picture, cutout, np.eye(3), gain=1.3)
    assert picture[30, 40].tolist() == [0, 0, 255]


def test_folders_are_classes(tmp_path, caplog):
    for name in ('cat', 'dog', 'whale'):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'b.png'), cv2.cvtColor(disc(), cv2.COLOR_RGBA2BGRA))
    with caplog.at_level(logging.WARNING):
        cutouts = load_cutouts(tmp_path, ('dog', 'cat', 'horse'))
    assert [cutout.label for cutout in cutouts] == [1, 0]
    assert cutouts[0].image[30, 40].tolist() == [0, 0, 255, 255]
    assert 'left out, not among the classes: whale' in caplog.text


@pytest.mark.parametrize(('content', 'words'), [
    (disc()[:, :, :3], 'must have 8-bit colour and an alpha channel'),
    (disc()[:, :, 0], 'must have 8-bit colour and an alpha channel'),
    (disc().astype(np.uint16), 'must have 8-bit colour and an alpha channel'),
    (np.zeros((5, 5, 4), np.uint8), 'nothing in it is opaque'),
    (None, 'not a picture')])
def test_broken_files_are_named(tmp_path, content, words):
    (tmp_path / 'cat').mkdir()
    path = tmp_path / 'cat' / 'broken.png'
    if content is None:
        path.write_bytes(b'no picture')
    else:
        cv2.imwrite(str(path), content)
    with pytest.raises(DataError, match=f'broken.png: .*{words}') as caught:
        load_cutouts(tmp_path, ('cat',))
    assert '\n' not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match='absent: no such folder'):
        load_cutouts(tmp_path / 'absent', ('cat',))
