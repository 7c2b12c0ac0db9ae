# SPDX-License-Identifier: Apache-2.0
"""The dataset: boxes follow the pixels, a clip has one geometry, and the seed decides."""

from dataclasses import replace

import cv2
from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.annotations.records import FrameReader, VideoRecord
from forecast_detector_ros.clips.augment import AugmentConfig
from forecast_detector_ros.clips.dataset import (
    ClipDataset,
    collate,
    draw_indices,
    largest_thinning,
    THINNING,
    worker_init,
)
from forecast_detector_ros.clips.scene import make_cutout
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

NO_COLOURS = {'photometric_probability': 0.0}
MOSAIC = {'mosaic_probability': 1.0}
COURSE = [(20 + 12 * step, 30 + 6 * step, 80 + 12 * step, 70 + 6 * step) for step in range(10)]


def same(first, second):
    names = ('boxes', 'labels', 'scores', 'ignore')
    return torch.equal(first.images, second.images) and all(
        torch.equal(one, other) for name in names
        for one, other in zip(getattr(first, name), getattr(second, name), strict=True))


def picture(clip, frame):
    return clip.images[frame].permute(1, 2, 0).numpy()


def cutout_of(label=2):
    result = make_cutout(np.full((40, 60, 4), 255, np.uint8), label)
    assert result is not None
    return result


def test_shapes_and_types(synthetic):
    dataset = ClipDataset(synthetic, clip_length=4, input_size=(96, 128), augment=AugmentConfig())
    clip = dataset[0]
    assert clip.images.shape == (5, 3, 96, 128) and clip.images.dtype == torch.uint8
    assert len(clip.boxes) == len(clip.labels) == len(clip.scores) == len(clip.ignore) == 5
    for frame in range(5):
        count = len(clip.boxes[frame])
        assert clip.boxes[frame].shape == (count, 4) and clip.boxes[frame].dtype == torch.float32
        assert clip.labels[frame].shape == (count,) and clip.labels[frame].dtype == torch.int64
        assert clip.scores[frame].shape == (count,) and clip.scores[frame].dtype == torch.float32
        assert clip.ignore[frame].shape[1] == 4 and clip.ignore[frame].dtype == torch.float32


def test_single_frames_for_the_baseline(synthetic):
    dataset = ClipDataset(synthetic, clip_length=1, extra_frame=False)
    assert dataset[0].images.shape == (1, 3, 320, 320)
    assert len(dataset) == 48


def test_without_augmentation_frames_are_only_stretched(paint_video, measure):
    dataset = ClipDataset([paint_video([(30, 40, 90, 100)] * 3)], clip_length=2, length=5,
                          augment=None)
    for clip in (dataset[index] for index in range(5)):
        for frame in range(3):
            expected = np.array([30, 40, 90, 100]) * (4 / 3, 16 / 9, 4 / 3, 16 / 9)
            np.testing.assert_allclose(clip.boxes[frame][0], expected, rtol=1e-5)
            np.testing.assert_allclose(measure(picture(clip, frame)), expected, atol=1.0)


@pytest.mark.parametrize('settings', [{}, {'zoom_out_probability': 1.0}, {'min_visible': 0.0}])
def test_boxes_follow_the_pixels_through_augmentation(paint_video, measure, settings):
    config = AugmentConfig(**NO_COLOURS, **{'min_side': 0.0, **settings})
    dataset = ClipDataset([paint_video(COURSE)], clip_length=3, augment=config, length=80, seed=4)
    targets = ignored = 0
    for index in range(len(dataset)):
        clip = dataset[index]
        for frame in range(4):
            found = measure(picture(clip, frame))
            told = torch.cat([clip.boxes[frame], clip.ignore[frame]]).numpy()
            targets, ignored = targets + len(clip.boxes[frame]), ignored + len(clip.ignore[frame])
            if found is None:
                # Without a visible object, only boxes narrower than a pixel may occur.
                assert len(told) == 0 or (told[0, 2:] - told[0, :2]).min() < 1
            else:
                assert len(told) == 1
                # The error is up to 1, and more in corners, where two edges share a pixel.
                np.testing.assert_allclose(told[0], found, atol=1.25)
    assert targets > 150
    assert (ignored > 0) == (config.min_visible > 0)


def test_boxes_follow_the_pixels_in_mosaics(paint_video):
    config = AugmentConfig(**NO_COLOURS, **MOSAIC, min_visible=0.0, min_side=0.0)
    videos = [paint_video(COURSE), paint_video([None] * 10, name='empty')]
    dataset = ClipDataset(videos, clip_length=3, augment=config, length=100)
    several = 0
    for index in range(len(dataset)):
        clip = dataset[index]
        for frame in range(4):
            image = picture(clip, frame).astype(int)
            red = image[:, :, 0] - image[:, :, 1] > 127
            inside, around = np.zeros_like(red), np.zeros_like(red)
            for x0, y0, x1, y1 in clip.boxes[frame].round().int().tolist():
                inside[y0 + 1:max(y0 + 1, y1 - 1), x0 + 1:max(x0 + 1, x1 - 1)] = True
                around[max(0, y0 - 1):y1 + 1, max(0, x0 - 1):x1 + 1] = True
            assert red[inside].all() and not red[~around].any()
            several += len(clip.boxes[frame]) > 1
    assert several > 100


@pytest.mark.parametrize('settings', [{}, MOSAIC])
def test_geometry_and_colours_are_drawn_once_per_clip(paint_video, settings):
    video = paint_video([(60, 50, 160, 120)] * 6)
    config = AugmentConfig(**settings)
    dataset = ClipDataset([video], clip_length=5, augment=config, length=40, seed=1)
    first_frames = []
    for index in range(len(dataset)):
        clip = dataset[index]
        for frame in range(1, 6):
            assert torch.equal(clip.images[frame], clip.images[0])
            assert torch.equal(clip.boxes[frame], clip.boxes[0])
            assert torch.equal(clip.ignore[frame], clip.ignore[0])
        first_frames.append(clip.images[0])
    differing = sum(not torch.equal(one, other)
                    for one, other in zip(first_frames, first_frames[1:]))
    assert differing > 35


def test_stills_become_clips_with_motion(paint_video, measure):
    still = VideoRecord('still', paint_video([(70, 60, 150, 110)], ellipse=True).frames)
    config = AugmentConfig(**NO_COLOURS, still_motion_probability=1.0, motion_pan=0.05,
                           motion_rotation=2.0, min_visible=0.0, min_side=0.0)
    dataset = ClipDataset([], [still], clip_length=5, augment=config, length=60)
    moving = checked = 0
    for index in range(len(dataset)):
        clip = dataset[index]
        moving += not torch.equal(clip.images[0], clip.images[5])
        for frame in range(6):
            found = measure(picture(clip, frame))
            if found is not None and found.min() > 1 and found.max() < 319:
                checked += 1
                # A pixel of the ellipse is magnified up to five times, and so is the error.
                scale = (found[2:] - found[:2]).max() / 80
                np.testing.assert_allclose(clip.boxes[frame][0], found, atol=1 + scale)
    assert moving > 50 and checked > 100


def test_ignore_regions_go_along(paint_video):
    video = paint_video([None] * 4)
    region = np.array([[24, 18, 120, 90]], np.float32)
    video = replace(video, frames=tuple(replace(frame, ignore=region) for frame in video.frames))
    clip = ClipDataset([video], clip_length=3)[0]
    for frame in range(4):
        assert len(clip.boxes[frame]) == 0
        np.testing.assert_allclose(clip.ignore[frame], [[32, 32, 160, 160]], rtol=1e-5)


@pytest.mark.parametrize(('settings', 'kind', 'expected'), [
    ({'paste_still_probability': 1.0}, 'still', True),
    ({'paste_still_probability': 0.0}, 'still', False),
    ({'paste_video_probability': 1.0}, 'video', True),
    ({'paste_video_probability': 0.0}, 'video', False),
    ({'paste_empty_probability': 1.0}, 'empty', True),
    ({'paste_empty_probability': 0.0}, 'empty', False)])
def test_cutouts_are_pasted_only_if_enabled(paint_video, settings, kind, expected):
    off = {'paste_still_probability': 0.0, 'paste_video_probability': 0.0,
           'paste_empty_probability': 0.0}
    config = AugmentConfig(**{**off, **settings}, crop_probability=0, zoom_out_probability=0)
    box = None if kind == 'empty' else (60, 50, 160, 120)
    video = paint_video([box] * (1 if kind == 'still' else 5))
    videos, stills = ([], [video]) if kind == 'still' else ([video], [])
    dataset = ClipDataset(videos, stills, [cutout_of()], 3, augment=config, length=20)
    found = sum(2 in torch.cat(dataset[index].labels).tolist() for index in range(20))
    assert found > 15 if expected else found == 0


def test_classes_of_cutouts_are_drawn_evenly(paint_video):
    config = AugmentConfig(paste_empty_probability=1.0, paste_max_objects=1, crop_probability=0)
    cutouts = [cutout_of(0)] * 9 + [cutout_of(1)]
    dataset = ClipDataset([paint_video([None] * 2)], [], cutouts, 1, augment=config, length=200)
    first = [dataset[index].labels[0][:1].tolist() for index in range(200)]
    assert 60 < first.count([1]) < 130


@pytest.mark.parametrize('augment', [
    None, AugmentConfig(), AugmentConfig(mosaic_probability=0.5, video_motion_probability=0.5)])
def test_a_sample_depends_on_seed_epoch_and_index_alone(synthetic, augment):
    def dataset(seed=5):
        return ClipDataset(synthetic, [], [cutout_of()], 3, (96, 96), augment=augment, seed=seed,
                           length=12)
    one, two = dataset(), dataset()
    clips = [one[index] for index in range(12)]
    two.set_epoch(3)
    later = two[7]
    two.set_epoch(0)
    for index in (7, 2, 11, 7):
        assert same(two[index], clips[index])
    assert not same(later, clips[7])
    one.set_epoch(3)
    assert same(one[7], later)
    assert sum(same(dataset(seed=6)[index], clips[index]) for index in range(12)) <= 2


def test_opencv_uses_one_thread_before_workers_are_forked(synthetic):
    cv2.setNumThreads(2)
    ClipDataset(synthetic)
    assert cv2.getNumThreads() == 1


def test_workers_give_the_clips_of_the_parent_in_every_epoch(synthetic):
    reader = FrameReader()
    reader.preload(synthetic)
    dataset = ClipDataset(synthetic, [], [cutout_of()], 2, (64, 64), augment=AugmentConfig(),
                          length=6, reader=reader)
    loader = DataLoader(dataset, batch_size=3, num_workers=2, collate_fn=collate,
                        worker_init_fn=worker_init, persistent_workers=True, timeout=300)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        dataset.set_thinning(0 if epoch == 2 else 25)
        for batch, start in zip(loader, (0, 3), strict=True):
            expected = collate([dataset[index] for index in range(start, start + 3)])
            assert torch.equal(batch.images, expected.images)
            for ours, theirs in zip(batch.boxes, expected.boxes, strict=True):
                assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_thinning_can_be_switched_off_for_the_last_epochs(paint_video):
    # The position of the rectangle identifies the frame.
    video = paint_video([(4 * index, 20, 4 * index + 60, 80) for index in range(40)])
    dataset = ClipDataset([video], clip_length=4, length=40)

    def strides():
        starts = [dataset[index].boxes for index in range(40)]
        return {round(float(boxes[1][0, 0] - boxes[0][0, 0]) / (4 * 320 / 240))
                for boxes in starts}
    assert max(strides()) > 5
    dataset.set_thinning(0)
    assert strides() == {1}


def test_collate_keeps_every_frames_boxes(synthetic):
    config = AugmentConfig(zoom_out_probability=0)
    dataset = ClipDataset(synthetic, clip_length=2, input_size=(64, 96), augment=config, length=8)
    clips = [dataset[index] for index in range(8)]
    batch = collate(clips)
    assert batch.images.shape == (8, 3, 3, 64, 96)
    for b, clip in enumerate(clips):
        assert torch.equal(batch.images[b], clip.images)
        for name in ('boxes', 'labels', 'scores', 'ignore'):
            for t in range(3):
                assert torch.equal(getattr(batch, name)[b][t], getattr(clip, name)[t])
    assert sum(map(len, batch.boxes[0])) + sum(map(len, batch.ignore[0])) > 0
    assert batch.to('cpu').boxes[3][1].tolist() == batch.boxes[3][1].tolist()
    # A loss reads these lists for every frame, so they are split only once.
    assert batch.boxes is batch.boxes and batch.ignore is batch.ignore


def test_an_epoch_takes_videos_in_proportion(paint_video):
    videos = [paint_video([(10 * (number + 1), 20, 200, 80)] * length, name=str(number))
              for number, length in enumerate((10, 30))]
    stills = [paint_video([(100, 20, 200, 80)], name='still')]

    def counts(length=80, **options):
        dataset = ClipDataset(videos, stills, clip_length=1, length=length, **options)
        lefts = [round(float(dataset[index].boxes[0][0, 0]) * 0.75) for index in range(length)]
        return [lefts.count(left) for left in (10, 20, 100)]
    # Each count differs by at most one from its share.
    np.testing.assert_allclose(counts(still_fraction=0.5), [10, 30, 40], atol=1)
    np.testing.assert_allclose(counts(82), [20, 60, 2], atol=1)
    np.testing.assert_allclose(counts(still_fraction=0, video_weights=[3, 1]), [60, 20, 0], atol=1)
    np.testing.assert_allclose(counts(still_fraction=1), [0, 0, 80], atol=1)


def test_a_shared_reader_shares_its_frames(paint_video):
    video = paint_video([None] * 3)
    reader = FrameReader()
    reader.preload([video])
    for frame in video.frames:
        frame.path.unlink()
    assert ClipDataset([video], clip_length=2, reader=reader)[0].images.shape[0] == 3
    with pytest.raises(DataError, match=r'\.png: cannot be read'):
        ClipDataset([video], clip_length=2)[0]


@pytest.mark.parametrize(('options', 'words'), [
    ({'videos': []}, 'no training data'), ({'clip_length': 0}, 'clip_length is 0'),
    ({'thinning': -1}, 'thinning is -1'), ({'length': 0}, 'length is 0'),
    ({'input_size': (320, 8)}, 'input_size is 8'),
    ({'video_weights': [1.0]}, 'video_weights has 1 entries; it must have 4'),
    ({'video_weights': [0, 0, 0, 0]}, 'video_weights must be'),
    ({'video_weights': [1, 1, 1, -1]}, 'video_weights must be'),
    ({'still_fraction': 1.5}, 'still_fraction is 1.5')])
def test_arguments_out_of_range_are_named(synthetic, options, words):
    with pytest.raises(DataError, match=words):
        ClipDataset(**{'videos': synthetic, **options})


def test_an_index_below_zero_is_refused(synthetic):
    dataset = ClipDataset(synthetic, clip_length=2, length=3, input_size=(32, 32))
    assert len(list(iter(dataset))) == 3
    with pytest.raises(IndexError):
        dataset[-1]


def test_the_bound_is_that_of_the_paper():
    assert THINNING == 25
    # The bound is floor((l - 1) / n) - 1.
    assert largest_thinning(101, 10, 25) == 9
    assert largest_thinning(100, 10, 25) == 8
    # The bound is at most r.
    assert largest_thinning(1000, 10, 25) == 25
    # The bound is at least 0.
    assert largest_thinning(5, 10, 25) == 0
    assert largest_thinning(1000, 10, 0) == 0


@given(length=st.integers(1, 400), clip_length=st.integers(1, 20), extra=st.booleans(),
       limit=st.integers(0, 30), seed=st.integers(0, 2 ** 32))
def test_frames_are_evenly_spaced_and_within_the_video(length, clip_length, extra, limit, seed):
    indices = draw_indices(length, clip_length, extra, limit, np.random.default_rng(seed))
    assert len(indices) == clip_length + extra
    assert indices.min() >= 0 and indices.max() < length
    steps = np.diff(indices)
    if length >= clip_length + extra:
        bound = max(0, min((length - 1) // clip_length - 1, limit))
        assert (steps == steps[:1]).all()
        assert all(1 <= step <= bound + 1 for step in steps)
    else:
        # A short video gives all its frames in order, and only the first and last repeat.
        assert set(indices.tolist()) == set(range(length))
        assert set(steps.tolist()) <= {0, 1}
        repeated = {int(index) for index, step in zip(indices, steps) if step == 0}
        assert repeated <= {0, length - 1}


def test_every_stride_and_every_start_is_drawn():
    rng = np.random.default_rng(0)
    draws = [draw_indices(41, 10, True, 25, rng) for _ in range(2000)]
    strides = [int(draw[1] - draw[0]) for draw in draws]
    assert set(strides) == {1, 2, 3, 4}
    counts = np.bincount(strides)[1:]
    assert counts.min() > 0.85 * 500
    assert {int(draw[0]) for draw, stride in zip(draws, strides) if stride == 1} == set(range(31))
    assert max(int(draw[-1]) for draw in draws) == 40


def test_consecutive_frames_without_thinning():
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert (np.diff(draw_indices(300, 10, True, 0, rng)) == 1).all()
