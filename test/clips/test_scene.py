# SPDX-License-Identifier: Apache-2.0
"""
Scenes: boxes follow the pixels, and hidden objects are ignored.

Cut-outs: boxes enclose the visible pixels, and broken files are named.
"""

import logging

import cv2
from forecast_detector_ros.annotations.findings import Collected, DataError, Kind
from forecast_detector_ros.annotations.records import Targets
from forecast_detector_ros.clips.affine import rotation_about, scale_and_shift, view_to_output
from forecast_detector_ros.clips.augment import AugmentConfig, FILL
from forecast_detector_ros.clips.scene import (
    add_camera,
    add_cutout,
    load_cutouts,
    make_cutout,
    make_scene,
    paste,
    render,
)
import numpy as np
import pytest

SIZE = (180, 240)
OUTPUT = (160, 160)


def scene_of(*boxes, ellipse=True):
    """Make a scene with a frame for each box, which a red ellipse or rectangle fills."""
    images, targets = [], []
    for x0, y0, x1, y1 in boxes:
        image = np.full((*SIZE, 3), 90, np.uint8)
        rows, columns = np.mgrid[:SIZE[0], :SIZE[1]] + 0.5
        across = np.abs(columns - (x0 + x1) / 2) / ((x1 - x0) / 2)
        down = np.abs(rows - (y0 + y1) / 2) / ((y1 - y0) / 2)
        inside = across ** 2 + down ** 2 <= 1 if ellipse else np.maximum(across, down) <= 1
        image[inside] = 255, 0, 0
        images.append(image)
        targets.append(Targets(np.array([[x0, y0, x1, y1]], np.float32), np.zeros(1, np.int64),
                               np.ones(1, np.float32), np.zeros((0, 4), np.float32)))
    return make_scene(images, targets)


def blue_square():
    image = np.zeros((40, 40, 4), np.uint8)
    image[:, :] = 0, 0, 255, 255
    cutout = make_cutout(image, 2)
    assert cutout is not None
    return cutout


def whole(scene):
    return view_to_output(np.array([0, 0, scene.size[1], scene.size[0]]), OUTPUT)


@pytest.mark.parametrize('seed', range(25))
def test_boxes_follow_the_camera(seed, measure):
    config = AugmentConfig(motion_pan=0.05, motion_zoom=0.05, motion_rotation=2.0)
    scene = scene_of(*[(70, 60, 150, 110)] * 6)
    moved = add_camera(scene, config, np.random.default_rng(seed))
    images, targets = render(moved, whole(scene), OUTPUT, 0.0, 0.0)
    for image, target in zip(images, targets):
        found = measure(image)
        if found is None:
            assert len(target.boxes) == 0
        elif found.min() > 1 and found.max() < 159:
            np.testing.assert_allclose(target.boxes[0], found, atol=1.3)


def test_the_camera_moves_things():
    config = AugmentConfig(motion_pan=0.05)
    scene = scene_of(*[(70, 60, 150, 110)] * 6)
    still = 0
    for seed in range(20):
        moved = add_camera(scene, config, np.random.default_rng(seed))
        first, last = moved.targets[0].boxes[0], moved.targets[-1].boxes[0]
        still += np.abs(last - first).max() < 0.5
    assert still < 10


@pytest.mark.parametrize('seed', range(25))
def test_boxes_follow_pasted_cutouts(seed, measure):
    config = AugmentConfig(paste_speed=0.1, paste_min_size=0.15, paste_max_size=0.5)
    scene = scene_of(*[(70, 60, 150, 110)] * 5)
    pasted = add_cutout(scene, blue_square(), config, np.random.default_rng(seed))
    images, targets = render(pasted, whole(scene), OUTPUT, 0.0, 0.0)
    for image, target in zip(images, targets):
        found = measure(image, colour=2)
        ours = target.boxes[target.labels == 2]
        if found is None:
            assert len(ours) == 0
        elif found.min() > 1 and found.max() < 159:
            np.testing.assert_allclose(ours[0], found, atol=1.3)
            assert target.scores[target.labels == 2].tolist() == [1.0]


def test_covered_objects_are_ignored_in_the_covered_frames():
    # A large square covers a small rectangle in some frames.
    config = AugmentConfig(paste_min_size=0.6, paste_max_size=0.6, paste_speed=0.2)
    scene = scene_of(*[(110, 80, 130, 100)] * 8, ellipse=False)
    covered_frames = clear_frames = 0
    for seed in range(30):
        pasted = add_cutout(scene, blue_square(), config, np.random.default_rng(seed))
        images, targets = render(pasted, np.eye(3), SIZE, 0.0, 0.0)
        for image, target in zip(images, targets):
            red = int((image[:, :, 0] > 200).sum())
            if red == 0:
                covered_frames += 1
                assert target.labels.tolist() in ([2], [])
                np.testing.assert_array_equal(target.ignore, [[110, 80, 130, 100]])
            elif red == 400:
                clear_frames += 1
                assert 0 in target.labels.tolist()
    assert covered_frames > 10 and clear_frames > 10


def test_repeated_frames_get_their_own_cutouts():
    scene = scene_of((70, 60, 150, 110))
    scene = make_scene([scene.images[0]] * 4, [scene.targets[0]] * 4)
    config = AugmentConfig(paste_speed=0.2)
    for seed in range(10):
        pasted = add_cutout(scene, blue_square(), config, np.random.default_rng(seed))
        images, _ = render(pasted, np.eye(3), SIZE, 0.0, 0.0)
        for index, image in enumerate(images):
            alone = make_scene([scene.images[0]], [scene.targets[0]])
            alone = type(alone)(
                alone.images, alone.maps, alone.targets, alone.size,
                tuple(type(item)(item.cutout, item.maps[index:index + 1], item.gain)
                      for item in pasted.pasted))
            np.testing.assert_array_equal(image, render(alone, np.eye(3), SIZE, 0, 0)[0][0])


def test_outside_of_the_canvas_is_the_mean_colour():
    scene = scene_of((70, 60, 150, 110))
    images, _ = render(scene, view_to_output(np.array([-240, -180, 240, 180]), OUTPUT), OUTPUT,
                       0.0, 0.0)
    assert (images[0, :75, :75] == FILL).all()
    assert (images[0, 82:, 82:] != FILL).any(axis=2).all()


def disc():
    """Return RGBA (60, 80): an opaque blue disc from (20, 10) to (60, 50) on transparent red."""
    image = np.zeros((60, 80, 4), np.uint8)
    image[:, :, 0] = 255
    rows, columns = np.mgrid[:60, :80] + 0.5
    image[(columns - 40) ** 2 + (rows - 30) ** 2 <= 20 ** 2] = 0, 0, 255, 255
    return image


@pytest.fixture
def cutout():
    """Return the disc as a cut-out of class 1."""
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
def test_boxes_match_drawn_cutouts(cutout, matrix, visible, measure):
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


def test_a_check_collects_all_mistakes(tmp_path):
    for folder, name in (('cat', 'a.png'), ('cat', 'b.png'), ('Cat', 'a.png')):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(b'no picture')
    findings = Collected()
    assert load_cutouts(tmp_path, ('cat',), findings) == []
    assert len(findings.lines[Kind.BROKEN]) == 2
    assert findings.lines[Kind.NOT_TRAINED][0].endswith('not among the classes: Cat')


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match='absent: no such folder'):
        load_cutouts(tmp_path / 'absent', ('cat',))
