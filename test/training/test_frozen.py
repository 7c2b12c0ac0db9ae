# SPDX-License-Identifier: Apache-2.0
"""Frozen blocks give the network's features, and kept features give the same training."""

from dataclasses import replace
import logging

from forecast_detector_ros.clips.dataset import Clip, collate
from forecast_detector_ros.model.config import preset
from forecast_detector_ros.model.network import ForecastDetector
from forecast_detector_ros.training.clip_step import clip_losses
from forecast_detector_ros.training.config import GroupConfig, load_recipe, StageConfig
from forecast_detector_ros.training.frozen import (
    describe_memory,
    drawn_in,
    feature_batches,
    FrozenFeatures,
)
from forecast_detector_ros.training.loader import ClipLoader, load_sources
from forecast_detector_ros.training.losses import LossConfig
from forecast_detector_ros.training.machine import ALONE, Processes
from forecast_detector_ros.training.snapshot import load_snapshot
from forecast_detector_ros.training.stage_run import build_network, StageRun
from forecast_detector_ros.training.trainer import SNAPSHOT, Trainer
import pytest
import torch


@pytest.fixture
def network() -> ForecastDetector:
    torch.manual_seed(0)
    return ForecastDetector(replace(
        preset('features', 2), input_size=(64, 96), width=0.35, feature_channels=(16, 24),
        lstm_channels=(8, 12), extra_channels=(16,))).eval()


@pytest.fixture
def images() -> torch.Tensor:
    # The images fill more than one chunk, the last one in part.
    return torch.randint(0, 256, (6, 3, 64, 96), dtype=torch.uint8)


@pytest.mark.parametrize('blocks', [None, 1, 7])
def test_features_are_those_of_the_network(network, images, blocks):
    expected = network.extract(network.normalise(images))
    for wanted, found in zip(expected, FrozenFeatures(network, blocks)(images)):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_blocks_that_are_not_frozen_get_gradients_and_the_others_none(network, images):
    features = FrozenFeatures(network, 7)(images)
    sum(level.sum() for level in features).backward()
    for name, parameter in network.extractor.named_parameters():
        part, index = name.split('.')[:2]
        frozen = part == 'stem' and index.isdigit() and int(index) < 7
        assert (parameter.grad is None) == frozen, name


def test_features_in_bfloat16_are_close(network, images):
    expected = network.extract(network.normalise(images))
    found = FrozenFeatures(network, None, torch.bfloat16)(images)
    for wanted, level in zip(expected, found):
        assert level.dtype == torch.bfloat16
        assert not level.requires_grad
        assert (level.float() - wanted).abs().mean() < 0.02 * wanted.abs().mean()


@pytest.fixture
def recipe(recipe_file):
    """Return a recipe with only the stage of the encoders; each clip is used in two epochs."""
    recipe = load_recipe(recipe_file)
    stage = replace(recipe.stages[1], epochs=4, reuse=2, plain_epochs=0, warmup=0)
    return replace(recipe, stages=(stage,))


@pytest.fixture
def sources(recipe, data_root):
    return load_sources(recipe, data_root)


def rows(batch, features):
    """Return the features and boxes of each row of a batch, which identify the row."""
    return [(tuple(level[row] for level in features), [frame.tolist() for frame in
                                                       batch.boxes[row]])
            for row in range(len(batch.counts))]


def draw(recipe, sources, start=0, processes=ALONE):
    network = build_network(recipe.network_config(), recipe.seed).eval()
    frozen = FrozenFeatures(network, None)

    def extract(batch):
        return tuple(level.unflatten(0, batch.images.shape[:2])
                     for level in frozen(batch.images.flatten(0, 1)))

    stage = recipe.stages[0]
    return network, list(feature_batches(ClipLoader(sources, recipe, stage, processes), extract,
                                         recipe, stage, start, processes))


def test_each_clip_is_used_in_two_epochs_before_new_ones(recipe, sources):
    _, found = draw(recipe, sources)
    # An epoch has two batches.
    epochs = [[row for pair in found[2 * i:2 * i + 2] for row in rows(*pair)] for i in range(4)]

    def bag(epoch):
        return sorted((float(features[0].double().sum()), boxes) for features, boxes in epoch)

    assert bag(epochs[0]) == bag(epochs[1]) != bag(epochs[2]) == bag(epochs[3])
    assert found[2][0].images.shape == (4, 4, 3, 0, 0)


def test_losses_are_those_of_the_same_pictures(recipe, sources):
    network, found = draw(recipe, sources)
    # The losses are computed from the first epoch's pictures, in the second epoch's order.
    drawn = list(ClipLoader(sources, recipe, recipe.stages[0]).epoch(0))
    clips = [Clip(batch.images[row], batch.boxes[row], batch.labels[row], batch.scores[row],
                  batch.ignore[row]) for batch in drawn for row in range(4)]
    known = [row for pair in found[:2] for row in rows(*pair)]
    for batch, features in found[2:4]:
        order = [next(i for i, (other, _) in enumerate(known) if torch.equal(other[0], mine[0]))
                 for mine, _ in rows(batch, features)]
        pictures = collate([clips[i] for i in order])
        with torch.no_grad():
            kept, again = (clip_losses(
                network, each, LossConfig(rollout=0.5), torch.Generator().manual_seed(4), True,
                True, frozen=FrozenFeatures(network, None), features=maps)
                for each, maps in ((batch, features), (pictures, None)))
        assert kept.parts == pytest.approx(again.parts, rel=1e-5)
        assert torch.equal(kept.reliable, again.reliable)


@pytest.mark.parametrize('start', range(1, 8))
def test_batches_do_not_depend_on_the_start(recipe, sources, start):
    whole, late = (draw(recipe, sources, at)[1] for at in (0, start))
    assert len(late) == len(whole) - start
    for expected, found in zip(whole[start:], late):
        for a, b in zip(expected[1], found[1]):
            assert torch.equal(a, b) and a.stride() == b.stride()
        assert torch.equal(expected[0].all_boxes, found[0].all_boxes)


def test_processes_share_the_rows(recipe, sources):
    whole = draw(recipe, sources)[1]
    parts = [draw(recipe, sources, processes=Processes(rank, 2))[1] for rank in (0, 1)]
    for (batch, features), first, second in zip(whole, *parts):
        assert rows(batch, features)[0][1] == rows(*first)[0][1]
        boxes = [row[1] for part in (first, second) for row in rows(*part)]
        assert boxes == [row[1] for row in rows(batch, features)]
        torch.testing.assert_close(torch.cat([first[1][0], second[1][0]]), features[0])


class Stopped(BaseException):
    pass


def test_resume_in_the_middle_is_exact(recipe, sources, tmp_path, monkeypatch):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    Trainer(recipe, sources, whole).run()
    step, stops = StageRun._step, [3, 5]

    def stopping(self, *batch):
        if self.iteration in stops:
            stops.remove(self.iteration)
            raise Stopped
        return step(self, *batch)

    monkeypatch.setattr(StageRun, '_step', stopping)
    while stops:
        with pytest.raises(Stopped):
            # The trainer writes a snapshot after every iteration.
            Trainer(recipe, sources, broken).run(snapshot_every=0.0)
    Trainer(recipe, sources, broken).run()
    expected, found = (load_snapshot(folder / SNAPSHOT) for folder in (whole, broken))
    assert expected.iteration == found.iteration == 8
    for name in ('network', 'average'):
        for key, value in getattr(expected, name).items():
            assert torch.equal(value, getattr(found, name)[key]), key


def test_clips_change_with_the_thinning():
    stage = StageConfig('s', 10, 8, 4, {'head': GroupConfig(1.0)}, reuse=3, plain_epochs=2)
    assert [drawn_in(stage, epoch) for epoch in range(10)] == [0, 0, 0, 3, 3, 3, 6, 6, 8, 8]
    always = replace(stage, reuse=1)
    assert [drawn_in(always, epoch) for epoch in range(10)] == list(range(10))


def test_the_log_has_the_size_of_kept_features(recipe, sources, tmp_path, caplog):
    stage = replace(recipe.stages[0], clips_per_epoch=1000, clip_length=5, reuse=4)
    full = replace(recipe, network={})
    assert describe_memory(full, stage, 2, Processes()) == (
        'stage two: keeps the features of 1000 clips for 4 epochs in 0.83 GB (288x384, 96+256 '
        'channels: 138 kB a frame in 16 bit)')
    caplog.set_level(logging.INFO)
    assert Trainer(recipe, sources, tmp_path).run()
    assert 'keeps the features of 8 clips for 2 epochs' in caplog.text
