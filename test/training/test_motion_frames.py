# SPDX-License-Identifier: Apache-2.0
"""Kept features of frames, and the clips that are drawn from them."""

from dataclasses import fields, replace
import json

from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.training.config import build_recipe, PAUSE
from forecast_detector_ros.training.loader import load_sources
from forecast_detector_ros.training.machine import Processes
from forecast_detector_ros.training.recipe_file import RecipeError
from forecast_detector_ros.training.run_log import draw_examples, TRUTH
from forecast_detector_ros.training.stage_run import StageRun
import numpy as np
import pytest
import torch
from torch.nn import functional

from .conftest import FRAMES


@pytest.fixture
def stage_run(data_root, recipe_values):
    """Start a stage that keeps frames, with noise and pauses."""
    def start(processes=1, sources=None, **changes):
        values = {**recipe_values, 'preset': 'default', 'cache': 'device', 'network': {
            'input_size': [64, 64], 'width': 0.35, 'feature_channels': [8, 16, 24],
            'neck_channels': 16, 'extra_channels': [16, 16, 16]}}
        values['stages'] = [{
            **recipe_values['stages'][2], 'keep': 2, 'gaps': [1, 2], 'horizons': [1, 2, 3],
            'extra_frame': True, 'thinning': 0, 'plain_epochs': 0,
            'loss': {'detection': 'quality'},
            'augment': {'noise_probability': 1.0, 'noise_max': 8.0, 'crop_probability': 0.0,
                        'video_motion_probability': 0.0}, **changes}]
        recipe = build_recipe(values)
        return StageRun(recipe, recipe.stages[0], sources or load_sources(recipe, data_root),
                        Processes(0, processes), None, None, None, 0.0)
    return start


def kept(run):
    """Return the frames that a stage keeps."""
    next(iter(run._batches()))
    return next(iter(run.sources.kept.values()))


def test_clips_depend_on_the_generator_and_have_their_times(stage_run):
    """The same generator gives the same clips, and boxes move in proportion to the times."""
    frames = kept(stage_run())
    steps = np.array([[0, 1, 3], [0, 2, 3]])
    first, second = (frames.clips(np.random.default_rng(5), steps, (1,)) for _ in range(2))
    assert torch.equal(first.frames.boxes, second.frames.boxes)
    assert first.times.tolist() == [[0., 1., 3.], [0., 2., 3.]]
    left = first.frames.boxes[:, :, 0, 0]
    moved = (left[:, 1:] - left[:, :1]).abs()
    torch.testing.assert_close(moved[:, 1], moved[:, 0] * first.times[:, 2] / first.times[:, 1],
                               atol=0.5, rtol=0.1)


def test_a_stride_is_limited_by_the_length_of_the_video(stage_run):
    """A stride that is too long for the video is shortened, and the times have the new stride."""
    frames = kept(stage_run())
    last = FRAMES - 1
    for span, expected in ((1, last), (2, last // 2), (last, 1), (last + 3, 1)):
        clips = frames.clips(np.random.default_rng(3), np.array([[0, span]]), (last,))
        assert clips.times.tolist() == [[0.0, float(span * expected)]]
    assert frames.clips(np.random.default_rng(3), np.array([[0, 1]]), (2,)).times[0, 1] == 2.0


def test_padding_of_the_bank_changes_nothing(stage_run):
    """Padding for pictures with more boxes does not change the clips."""
    run, padded = stage_run(), stage_run()
    bank = padded.sources.bank
    assert bank is not None

    def wider(values, fill):
        return functional.pad(values, (*(0, 0) * (values.dim() - 2), 0, 5), value=fill)
    padded.sources.bank = replace(
        bank, boxes=wider(bank.boxes, 0), labels=wider(bank.labels, -1),
        scores=wider(bank.scores, 0), tracks=wider(bank.tracks, -1),
        ignore=wider(bank.ignore, 0))
    padded.network.load_state_dict(run.network.state_dict())
    steps = np.array([[0, 1, 3]])
    one, other = (kept(each).clips(np.random.default_rng(5), steps, (1,)).frames
                  for each in (run, padded))
    for field in fields(one):
        if field.name != 'features':
            assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name


@pytest.mark.parametrize('left, words', [(0, 'none has one'), (1, '1 of 2 videos have no')])
def test_videos_without_tracks(data_root, recipe_values, caplog, left, words):
    """Data without any track is refused; a warning counts videos without tracks."""
    document = json.loads((data_root / 'train.json').read_text())
    for item in document['annotations']:
        if item['category_id'] > left:
            del item['track_id']
    (data_root / 'untracked.json').write_text(json.dumps(document))
    values = {**recipe_values, 'preset': 'default', 'cache': 'device', 'network': {},
              'sources': [{'annotations': 'untracked.json', 'images': '.'}]}
    values['stages'] = [{**recipe_values['stages'][2], 'gaps': [1], 'horizons': [1]}]
    if left:
        load_sources(build_recipe(values), data_root)
        assert words in caplog.text
    else:
        with pytest.raises(DataError, match=words):
            load_sources(build_recipe(values), data_root)


def test_examples_of_a_forecast_of_motion_are_drawn(stage_run):
    """Without `keep`, the pictures are available, and true boxes are drawn in their colour."""
    run = stage_run(keep=0)
    batch, _ = next(iter(run._batches()))
    picture = draw_examples(batch, run.network.eval(), ('yellow', 'blue'))
    assert picture.dtype == torch.uint8 and picture.shape[2] > 2 * 64
    colour = torch.tensor(list(bytes.fromhex(TRUTH[1:])), dtype=torch.uint8).view(3, 1, 1)
    assert (picture == colour).all(0).sum() > 100


def test_a_pause_shows_one_frame_with_fresh_noise(stage_run):
    """Boxes stay, features differ, and time goes on."""
    frames = kept(stage_run(pauses=1.0))
    steps = np.tile(np.array([[0, 1, 2, 4]]), (8, 1))
    clips = frames.clips(np.random.default_rng(0), steps, (1, 3), 1.0)
    assert (clips.times[:, 1:] > clips.times[:, :-1]).all()
    boxes = clips.frames.boxes
    assert torch.equal(boxes, boxes[:, :1].expand_as(boxes)) and boxes.any()
    deep = clips.frames.features[2].float()
    assert (deep[:, 1:] != deep[:, :-1]).flatten(2).any(2).all()


def test_pauses_have_the_set_frequency(stage_run):
    """The fraction of paused clips is as set: 0 and about 0.5."""
    for part in (0.0, 0.5):
        frames = kept(stage_run(pauses=part))
        # Objects of both videos move in every frame.
        clips = frames.clips(np.random.default_rng(2), np.tile([[0, 1]], (200, 1)), (1,), part)
        boxes = clips.frames.boxes
        still = (boxes == boxes[:, :1]).flatten(1).all(1)
        seen = boxes.flatten(2).any(2).all(1)
        assert float(still[seen].float().mean()) == pytest.approx(part, abs=0.12)
    assert PAUSE < FRAMES


def test_stages_share_frames_but_not_pauses(stage_run):
    """A later stage with the same frames has its own fraction of pauses."""
    def paused(run):
        boxes = next(iter(run._batches()))[0].frames.boxes
        return int((boxes == boxes[:, :1]).flatten(1).all(1).sum())

    size = {'batch': 100, 'clips_per_epoch': 100}
    first = stage_run(pauses=1.0, **size)
    second = stage_run(sources=first.sources, pauses=0.01, **size)
    assert paused(first) == 100 and paused(second) < 50
    assert len(first.sources.kept) == 1


def test_frames_of_one_stage_are_kept_at_a_time(stage_run):
    """A stage with other pictures replaces the kept frames."""
    first = stage_run(keep=1)
    before = kept(first)
    assert kept(stage_run(sources=first.sources, keep=1)) is before
    assert kept(stage_run(sources=first.sources, keep=2)) is not before
    assert len(first.sources.kept) == 1


def test_processes_cannot_share_kept_frames(stage_run):
    """Each process would train on the whole batch."""
    with pytest.raises(RecipeError, match='cache is device, which is for one process'):
        stage_run(processes=2)


def test_a_training_that_keeps_frames_resumes_exactly(stage_run):
    """A batch depends on its number alone, not on earlier draws."""
    run = stage_run(pauses=0.5)
    whole = list(run._batches())
    run.iteration = len(whole) - 1
    again = list(run._batches())
    assert len(again) == 1
    assert torch.equal(again[0][0].frames.boxes, whole[-1][0].frames.boxes)
