# SPDX-License-Identifier: Apache-2.0
"""What `--start` takes, and what it refuses in one line."""

from dataclasses import replace

from forecast_detector_ros.detector.checkpoint import Card, CheckpointError, save_checkpoint
from forecast_detector_ros.training.config import load_recipe, RecipeError
from forecast_detector_ros.training.loader import load_sources
from forecast_detector_ros.training.stage_run import build_network
from forecast_detector_ros.training.start import load_start
from forecast_detector_ros.training.trainer import SNAPSHOT, Trainer
import pytest
import torch


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file)


@pytest.fixture
def write(recipe, tmp_path):
    """Give a function that writes a checkpoint of the recipe's network, or of a changed one."""
    def checkpoint(variant='complete', classes=('yellow', 'blue'), **shape):
        changed = replace(recipe, classes=classes, network={**recipe.network, **shape})
        network = build_network(changed, variant)
        path = tmp_path / 'start.safetensors'
        save_checkpoint(path, network, Card('start', classes, network.config), torch.float32)
        return path, network.state_dict()
    return checkpoint


def refused(path, recipe):
    with pytest.raises((RecipeError, CheckpointError)) as caught:
        load_start(path, recipe)
    message = str(caught.value)
    assert '\n' not in message and str(path.parent) in message
    return message


@pytest.mark.parametrize('variant', ['complete', 'baseline', 'recurrent'])
def test_weights_of_the_same_shape_are_taken(write, recipe, variant):
    path, weights = write(variant)
    found = load_start(path, recipe)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], value) for key, value in weights.items())


def test_a_part_that_the_first_stage_does_not_have_is_named(write, recipe, caplog):
    assert recipe.stages[0].variant == 'baseline'
    load_start(write()[0], recipe)
    for part in ('encoder1', 'encoder2', 'scheduler'):
        assert f'{part} is not used: the variant baseline of stage one has none' in caplog.text
    caplog.clear()
    load_start(write()[0], replace(recipe, stages=recipe.stages[1:]))
    assert not caplog.records


def test_other_classes(write, recipe):
    assert 'class 1 is red, must be blue' in refused(write(classes=('yellow', 'red'))[0], recipe)
    assert 'class 2 is red, must be none' in refused(
        write(classes=('yellow', 'blue', 'red'))[0], recipe)
    # The head would fit.
    assert 'class 0 is blue, must be yellow' in refused(
        write(classes=('blue', 'yellow'))[0], recipe)


def test_a_snapshot(recipe, data_root, tmp_path):
    run = tmp_path / 'run'
    assert not Trainer(recipe, load_sources(recipe, data_root), run).run(stop_after=0.0)
    assert 'snapshot of a run' in refused(run / SNAPSHOT, recipe)


def test_weights_that_have_no_place_or_are_missing_or_of_another_shape(write, recipe):
    more = {'extra_channels': [16, 16]}
    assert 'head.extra.1.0.0.weight has no place in the recipe' in refused(
        write(**more)[0], recipe)
    assert 'lacks head.extra.1.0.0.weight of the recipe' in refused(
        write()[0], replace(recipe, network={**recipe.network, **more}))
    path = write(lstm_channels=[8, 8])[0]
    assert 'encoder1.1' in refused(path, recipe) and 'must be' in refused(path, recipe)


def test_a_checkpoint_needs_its_card(write, recipe):
    path = write()[0]
    path.with_suffix('.yaml').unlink()
    assert 'needs its card' in refused(path, recipe)
