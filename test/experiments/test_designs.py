# SPDX-License-Identifier: Apache-2.0
"""Designs of the network: their file, shared trainings and measurements."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.detector.checkpoint import CheckpointError
from forecast_detector_ros.evaluation.policy_sweep import PolicyRun
from forecast_detector_ros.evaluation.sequences import EvaluationError, load_annotated, Video
from forecast_detector_ros.experiments import designs
from forecast_detector_ros.experiments.designs import (
    compare_designs,
    describe_designs,
    Design,
    design_rows,
    design_trainings,
    DesignPlan,
    HEAD,
    load_designs,
    measure_design,
)
from forecast_detector_ros.metrics.tables import DetectionTable, one_hot, TruthTable
from forecast_detector_ros.model.config import NetworkConfig, preset, PRESETS
from forecast_detector_ros.model.network import ForecastDetector
from forecast_detector_ros.training.config import load_recipe, Recipe
from forecast_detector_ros.training.recipe_file import RecipeError
import numpy as np
import pytest
import torch

CONFIG = Path(__file__).resolve().parents[2] / 'config'

#: Without a measurement no frame is read.
VIDEOS = [Video('empty', (), TruthTable(
    np.zeros(0, int), np.zeros((0, 4)), one_hot(np.zeros(0, int), 6), np.zeros(0, int),
    np.zeros((0, 4))))]

IMAGENET: dict[str, torch.Tensor] = {}  #: Without a training no weight is used


@pytest.fixture(scope='module')
def recipe() -> Recipe:
    return load_recipe(CONFIG / 'training' / 'designs.yaml')


def test_recipe_is_for_the_weights_and_the_input_of_the_designs(recipe: Recipe) -> None:
    assert recipe.backbone_range == 'imagenet'
    assert recipe.cache_side >= max(preset('features', 1).input_size)


def plan_of(recipe: Recipe, *found: Design, imagenet: Any = IMAGENET) -> DesignPlan:
    return DesignPlan(recipe, found, Path(), Path(), [], imagenet)


def test_shipped_designs_include_the_preset(recipe: Recipe) -> None:
    found = {item.name: item for item in load_designs(CONFIG / 'designs.yaml', recipe)}
    shapes = {name: designs.design_recipe(recipe, item).network_config()
              for name, item in found.items()}
    assert shapes['default'] == preset('features', len(recipe.classes))
    assert shapes['default'] in [shapes[name] for name in shapes if name.startswith('lstm_')]
    todo = design_trainings(plan_of(recipe, *found.values()))
    assert {name: item.name for name, item in todo.items()} == {
        name: 'default' if name.startswith('lstm_') else name for name in found}
    assert {name for name, item in todo.items() if item.start == 'none'} == {
        name for name, shape in shapes.items() if shape.width != 1.0}


def test_a_random_start_freezes_nothing(recipe: Recipe) -> None:
    wide, narrow = Design('wide'), Design('narrow', {'width': 0.75})
    todo = design_trainings(plan_of(recipe, wide, narrow))
    assert {name: item.start for name, item in todo.items()} == {
        'wide': 'imagenet', 'narrow': 'none'}
    assert todo['wide'].recipe.stages == recipe.stages[:1]
    todo = design_trainings(plan_of(recipe, wide, narrow, imagenet=None))
    assert {item.start for item in todo.values()} == {'random'}
    for item in todo.values():
        stage = item.recipe.stages[0]
        assert (stage.frozen_blocks, stage.freeze_bn) == (0, 'none')


@pytest.mark.parametrize('override', [
    {'lstm_channels': [4, 6]}, {'forecast_mode': 'direct'}, {'state_update': 'hold'},
    {'scheduler_reference': 'fused'}, {'scheduler_channels': 8}, {'scheduler_norm': False},
    {'motion_channels': 8}, {'motion_from_boxes': True}], ids=str)
def test_parts_unused_on_single_frames_are_not_trained_again(
        recipe: Recipe, override: dict[str, Any]) -> None:
    other = Design('other', override)
    assert design_trainings(plan_of(recipe, Design('one'), other))['other'].name == 'one'
    networks = []
    for design in (Design('one'), other):
        torch.manual_seed(0)
        config = designs.design_recipe(recipe, design).network_config().to_dict()
        networks.append(ForecastDetector(
            NetworkConfig.from_dict({**config, 'variant': 'baseline'})).state_dict())
    assert networks[0].keys() == networks[1].keys()
    assert all(torch.equal(networks[0][key], networks[1][key]) for key in networks[0])


@pytest.mark.parametrize('override', [
    {'feature_channels': [64, 128]}, {'input_size': [192, 256]}, {'width': 0.75},
    {'upsample_channels': 96}, {'extra_channels': [64]}, {'anchor_scales': [0.2, 0.95]},
    {'levels': [32], 'feature_channels': [256], 'lstm_channels': [128]}], ids=str)
def test_parts_used_on_single_frames_are_trained(recipe: Recipe, override: dict[str, Any]) -> None:
    found = (Design('one'), Design('other', override))
    assert design_trainings(plan_of(recipe, *found))['other'].name == 'other'


@pytest.mark.parametrize('text, words', [
    ('one: {}\nwrong: {lstm_chanels: [1, 2]}', ('design wrong', "'lstm_chanels'")),
    ('wrong: {levels: [32]}', ('design wrong', 'feature_channels')),
    ('wrong: {width: 0.8}', ('design wrong', 'width is 0.8')),
    ('wrong: {classes: 3}', ('design wrong', 'classes')),
    ('wrong: {variant: baseline}', ('design wrong', 'variant')),
    ('wrong:', ('design wrong', 'mapping')),
    ('../wrong: {}', ("'../wrong'", 'letters')),
    ('32: {}', ('design 32', 'letters')),
    ('[a, b]', ('must be a mapping',)),
    ('{}', ('must be a mapping',)),
    ('a: [', ('cannot be read as YAML',)),
    ('[' * 1000, ('cannot be read as YAML',)),
    ('a: 2020-99-99', ('cannot be read as YAML',))])
def test_wrong_designs_are_named_in_one_line(
        recipe: Recipe, tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = tmp_path / 'designs.yaml'
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_designs(path, recipe)
    message = str(caught.value)
    assert str(path) in message and '\n' not in message
    assert all(word in message for word in words)


def test_a_folder_is_refused_after_a_change_of_the_preset(
        recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(plan_of(recipe, Design('one')), output=tmp_path, videos=VIDEOS)
    (tmp_path / 'one').mkdir()
    (tmp_path / 'one' / designs.ACCURACY).write_text('{"recall": 0.5, "ap50": null}')
    # Nothing was trained, so the timing finds no checkpoint.
    for overrides in ({}, {'lstm_channels': [4, 6]}):
        with pytest.raises(CheckpointError):
            compare_designs(replace(plan, designs=[Design('one', overrides)]), timings_only=True)
    changed = replace(PRESETS['features'], extra_channels=(64,))
    monkeypatch.setitem(PRESETS, 'features', changed)
    with pytest.raises(EvaluationError, match='another shape'):
        compare_designs(plan, timings_only=True)


@pytest.mark.parametrize('text', [
    '[' * 100_000, '{"recall": 1' + '0' * 400 + '}', '[1]', '{', '{}'])
def test_damaged_figures_are_one_line(
        recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    plan = replace(plan_of(recipe, Design('one')), output=tmp_path, videos=VIDEOS)
    (tmp_path / 'one').mkdir()
    (tmp_path / 'one' / designs.ACCURACY).write_text(text)
    with pytest.raises(EvaluationError, match='remove it to measure again') as caught:
        compare_designs(plan, timings_only=True)
    assert designs.ACCURACY in str(caught.value) and '\n' not in str(caught.value)


def test_recall_counts_shown_detections_and_ap50_all(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = write_synthetic_videos(tmp_path, seed=1, videos=3, frames=4)
    videos = load_annotated(truth, tmp_path, CLASSES, 0.0, 0.0)
    boxes = [len(item.truth) for item in videos]
    assert len(set(boxes)) > 1
    # All boxes of the first sequence are shown, half of the second and one of the third. The other
    # detections are right, but their score is too low to be shown.
    shown = [boxes[0], boxes[1] // 2, 1]

    def run(network: Any, card: Any, items: Any, settings: Any, policies: Any) -> Any:
        assert list(map(str, policies)) == ['always_read'] and items is videos
        return {'always_read': [
            PolicyRun(DetectionTable(
                item.truth.frames, item.truth.boxes, item.truth.labels,
                np.where(np.arange(len(item.truth)) < count, 0.4, 0.3).astype(np.float32)),
                np.ones(len(item.frames), bool)) for item, count in zip(items, shown)]}

    monkeypatch.setattr(designs, 'run_policies', run)
    monkeypatch.setattr(designs, 'load_checkpoint', lambda path: (None, None))
    monkeypatch.setattr(designs, 'SCORE', 0.35)
    found = measure_design(tmp_path / 'any.safetensors', videos, 1)
    assert found == {'recall': pytest.approx((1 + 0.5 + 1 / boxes[2]) / 3),
                     'ap50': pytest.approx(1.0)}


def test_table_shows_points_and_milliseconds() -> None:
    step = {'median_ms': 12.345, 'macs': 815_600_000}
    report = {
        'iterations': 350, 'batch': 32, 'sequences': ['a', 'b'], 'frames': 40, 'boxes': 50,
        'backend': 'openvino', 'rounds': 100, 'designs': [{
            'name': 'one', 'start': 'imagenet', 'recall': 0.5, 'ap50': None, 'read': step,
            'forecast': {'median_ms': 1.5, 'macs': 96_200_000}}]}
    assert design_rows(report) == [
        list(HEAD), ['one', 'imagenet', '12.35', '1.50', '816', '96', '50.0', '-']]
    text = describe_designs(report)
    assert all(word in text for word in ('350 iterations', 'openvino', '2 held-out', '40 frames'))
