# SPDX-License-Identifier: Apache-2.0
"""Clips drawn on the device: boxes follow the pixels, and draws depend on the seed alone."""
from dataclasses import replace

import cv2
from forecast_detector_ros.annotations.records import (
    FrameReader,
    FrameRecord,
    UNKNOWN_TRACK,
    VideoRecord,
)
from forecast_detector_ros.clips import augment, drawn_clips
from forecast_detector_ros.clips.augment import AugmentConfig, FILL
from forecast_detector_ros.clips.drawn_clips import ClipDrawer, load_bank
import numpy as np
import pytest
import torch
from torch.nn import functional

SIDE, SIZE = 128, (96, 128)
NOTHING = AugmentConfig(flip_probability=0.0, zoom_out_probability=0.0, crop_probability=0.0,
                        photometric_probability=0.0, still_motion_probability=0.0)


def write(folder, name, boxes, size=(96, 128), ignore=()):
    """Write a grey picture with a white block in each box."""
    image = np.full((*size, 3), 60, np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[y0:y1, x0:x1] = 250
    path = folder / f'{name}.png'
    assert cv2.imwrite(str(path), image)
    count = len(boxes)
    return FrameRecord(np.array(boxes, np.float32).reshape(-1, 4),
                       np.zeros(count, np.int64), np.ones(count, np.float32),
                       np.array(ignore, np.float32).reshape(-1, 4),
                       np.arange(10, 10 + count), path=path, width=size[1], height=size[0])


@pytest.fixture
def records(tmp_path):
    """Return a video of one block that moves right by 4 a frame, and a still of two blocks."""
    frames = [write(tmp_path, f'v{t}', [(8 + 4 * t, 30, 40 + 4 * t, 70)]) for t in range(12)]
    still = write(tmp_path, 's', [(4, 4, 40, 40), (60, 40, 120, 90)])
    return [VideoRecord('video', frames), VideoRecord('still', [still])]


def drawer(records, config, weights=(1.0, 1.0), strides=(1,)):
    """Return a drawer over the two records."""
    bank = load_bank(records, FrameReader(), SIDE)
    return ClipDrawer(bank, 1, np.array(weights), SIZE, config, strides)


def block(image):
    """Return the box of the white pixels of ``(3, H, W)``."""
    rows, columns = (image.float().mean(0) > 150).nonzero(as_tuple=True)
    return [float(columns.min()), float(rows.min()), float(columns.max()) + 1,
            float(rows.max()) + 1]


def test_bank_holds_pictures_boxes_and_tracks(records):
    """Pictures are in the upper left corner of a grey square; a still's boxes get tracks."""
    bank = load_bank(records, FrameReader(), 160)
    assert bank.pixels.shape == (13, 3, 160, 160)
    assert bank.lengths.tolist() == [12, 1] and bank.first.tolist() == [0, 12]
    assert bank.pixels[0, :, 130, 150].tolist() == list(FILL)
    assert block(bank.pixels[3, :, :96, :128]) == bank.boxes[3, 0].tolist()
    assert bank.tracks[3].tolist() == [10, UNKNOWN_TRACK]
    assert bank.tracks[12].tolist() == [0, 1]


def test_large_pictures_are_shrunk_with_their_boxes(records):
    """Boxes are in pixels of the shrunk picture."""
    bank = load_bank(records, FrameReader(), 64)
    assert bank.sizes[0].tolist() == [48, 64]
    torch.testing.assert_close(bank.boxes[0, 0], torch.tensor([4., 15., 20., 35.]))


def test_without_augmentation_a_frame_is_unchanged(records):
    """The whole picture fills the output."""
    clips = drawer(records, None, (1.0, 0.0)).draw((1,), 3, np.zeros((1, 1), np.int64))
    for image, boxes in zip(clips.images[:, 0], clips.boxes[:, 0]):
        assert block(image) == pytest.approx(boxes[0].tolist(), abs=0.6)


@pytest.mark.parametrize('change', [
    {'flip_probability': 1.0}, {'zoom_out_probability': 1.0, 'zoom_out_max': 2.0},
    {'crop_probability': 1.0, 'crop_min_side': 0.7},
    {'still_motion_probability': 1.0, 'video_motion_probability': 1.0}])
def test_boxes_follow_the_pixels(records, change):
    """With any augmentation, a box encloses its block."""
    config = replace(NOTHING, min_visible=0.0, min_side=0.0, **change)
    clips = drawer(records, config, (1.0, 0.0)).draw((7,), 16, np.array([[0, 2, 5]]))
    for image, labels, boxes in zip(clips.images.flatten(0, 1), clips.labels.flatten(0, 1),
                                    clips.boxes.flatten(0, 1)):
        if labels[0] == 0 and (boxes[0, 2:] - boxes[0, :2]).min() > 4:
            assert block(image) == pytest.approx(boxes[0].tolist(), abs=1.6)


def test_mosaic_has_the_boxes_of_four(records):
    """Boxes of all tiles are inside their tiles and have distinct tracks."""
    config = replace(NOTHING, mosaic_probability=1.0, min_side=1.0, min_visible=0.1)
    clips = drawer(records, config, (0.0, 1.0)).draw((3,), 8, np.array([[0, 1]]))
    assert (clips.labels >= 0).sum(2).max() > 4
    for tracks, labels in zip(clips.tracks.flatten(0, 1), clips.labels.flatten(0, 1)):
        own = tracks[labels >= 0].tolist()
        assert len(own) == len(set(own))
    assert clips.boxes.min() >= 0 and clips.boxes[..., 2].max() <= SIZE[1]


def test_hidden_boxes_are_ignored_not_background(records):
    """A box that is mostly hidden becomes an ignore region."""
    config = replace(NOTHING, crop_probability=1.0, crop_min_side=0.4, min_visible=0.9)
    packed = drawer(records, config).draw((5,), 32, np.zeros((1, 1), np.int64)).packed()
    assert int(packed.ignore_counts.sum()) > 0
    assert len(packed.all_boxes) == int(packed.counts.sum()) == len(packed.all_tracks)


def test_draws_depend_on_the_seed_alone(records):
    """Equal seeds give equal batches, different seeds different ones."""
    config = AugmentConfig(mosaic_probability=0.5)
    first, second, other = (drawer(records, config).draw(seed, 4, np.array([[0, 1]]))
                            for seed in ((1, 2), (1, 2), (1, 3)))
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert not torch.equal(first.images, other.images)


def test_steps_and_strides_choose_frames(records):
    """A clip has the frames of its steps times the stride, and their times."""
    clips = drawer(records, None, (1.0, 0.0), (3,)).draw((2,), 2, np.array([[0, 1, 3], [0, 2, 3]]))
    assert clips.times.tolist() == [[0.0, 3.0, 9.0], [0.0, 6.0, 9.0]]
    left = clips.boxes[:, :, 0, 0]
    assert (left[:, 1:] - left[:, :1]).tolist() == [[12.0, 36.0], [24.0, 36.0]]
    assert (clips.tracks[..., 0] == 10).all()


def test_a_whole_video_is_one_clip(records):
    """The clip has all frames in order, from one view."""
    clips = drawer(records, None).draw_video((4,), 0)
    assert clips.images.shape[:2] == (1, 12)
    assert clips.boxes[0, :, 0, 0].diff().tolist() == [4.0] * 11


def test_a_long_video_is_drawn_in_parts(tmp_path, monkeypatch):
    """A long video in floats could exceed the memory, so it is drawn in parts."""
    frames = [write(tmp_path, f'p{t}', [(8 + t, 30, 40 + t, 70)]) for t in range(5)] * 14
    config = AugmentConfig(noise_probability=1.0, video_motion_probability=1.0)
    counts = {'grid_sample': [], 'randn': []}

    def spy(module, name):
        function = getattr(module, name)

        def counting(first, *args, **kwargs):
            counts[name].append(getattr(first, 'shape', first)[0])
            return function(first, *args, **kwargs)
        monkeypatch.setattr(module, name, counting)
    spy(functional, 'grid_sample')
    spy(torch, 'randn')
    long = drawer([VideoRecord('video', frames)], config, (1.0,))
    parts = long.draw_video((4,), 0)
    assert counts == {'grid_sample': [32, 32, 6], 'randn': [32, 32, 6]}
    for module in (augment, drawn_clips):
        monkeypatch.setattr(module, 'FRAMES', 100)
    assert torch.equal(parts.images, long.draw_video((4,), 0).images)
    assert counts['grid_sample'][3:] == [70]


def test_a_pause_is_one_frame_with_new_noise(records):
    """The pictures differ only in noise of bounded deviation."""
    config = replace(NOTHING, noise_probability=1.0, noise_max=6.0)
    clips = drawer(records, config).draw_pause((4,), 0, 5)
    assert clips.images.shape[:2] == (1, 5)
    assert (clips.boxes == clips.boxes[:, :1]).all()
    images = clips.images[0].float()
    assert not torch.equal(images[0], images[1])
    deviation = images.std(0).mean()
    assert 0.2 < deviation < 6.0
    quiet = drawer(records, NOTHING).draw_pause((4,), 0, 5)
    assert (quiet.images == quiet.images[:, :1]).all()


def test_noise_is_part_of_the_draw(records):
    """Equal seeds give equal noise."""
    config = replace(NOTHING, noise_probability=1.0)
    one, two = (drawer(records, config).draw((9,), 3, np.array([[0, 1]])) for _ in range(2))
    plain = drawer(records, NOTHING).draw((9,), 3, np.array([[0, 1]]))
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.images, plain.images)
    assert torch.equal(one.boxes, plain.boxes)


def test_narrow_boxes_are_ignored_and_regions_stay(tmp_path):
    """A box below `min_side` and an annotated region of any width are ignore regions."""
    record = write(tmp_path, 'n', [(20, 20, 23, 60), (60, 20, 90, 60)],
                   ignore=[(100, 10, 102, 40)])
    clips = drawer([VideoRecord('video', [record])], None, (1.0,)).draw((1,), 1, np.array([[0]]))
    assert clips.labels[0, 0].tolist() == [-1, 0]
    regions = clips.ignore[0, 0]
    assert regions[regions[:, 2] > regions[:, 0]].tolist() == [
        [20.0, 20.0, 23.0, 60.0], [100.0, 10.0, 102.0, 40.0]]


def test_a_drawn_motion_turns_back(tmp_path):
    """In a long video the camera turns back, and is as fast as in a short one."""
    frame = write(tmp_path, 'l', [(40, 30, 80, 60)])
    config = replace(NOTHING, video_motion_probability=1.0, motion_pan=0.004, motion_zoom=0.0,
                     min_visible=0.0)
    clips = drawer([VideoRecord('video', [frame] * 97)], config, (1.0,)).draw_video((6,), 0)
    left = clips.boxes[0, :, 0, 0]
    step = left.diff()
    torch.testing.assert_close(step[:24], step[:1].expand(24), atol=1e-3, rtol=0)
    torch.testing.assert_close(step[24:48], -step[:24], atol=1e-3, rtol=0)
    torch.testing.assert_close(left[48:96], left[:48], atol=1e-3, rtol=0)
    assert step[0].abs() > 0.05
