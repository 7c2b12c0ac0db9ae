# SPDX-License-Identifier: Apache-2.0
"""Trainings on a tiny set: checkpoints of every stage, exact resume, divergence."""

from dataclasses import replace
from datetime import date
import json
import logging
import re

from forecast_detector_ros.cli.train import main
from forecast_detector_ros.detector.checkpoint import load_checkpoint
from forecast_detector_ros.training.config import build_recipe, load_recipe
from forecast_detector_ros.training.loader import (
    batches,
    ClipLoader,
    load_sources,
    picture_weights,
)
from forecast_detector_ros.training.recipe_file import RecipeError
from forecast_detector_ros.training.snapshot import (
    load_snapshot,
    recipe_digest,
    recipe_values,
    save_snapshot,
    SnapshotError,
)
from forecast_detector_ros.training.trainer import SNAPSHOT, Trainer, TrainingDivergedError
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
import torch
from torchvision.models import mobilenet_v2


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file)


@pytest.fixture
def sources(recipe, data_root):
    return load_sources(recipe, data_root)


def test_every_stage_leaves_a_checkpoint_that_the_runtime_loads(recipe, sources, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert Trainer(recipe, sources, tmp_path).run(log_every=1)
    variants = {}
    for name in ('one', 'two', 'three'):
        network, card = load_checkpoint(tmp_path / f'{name}.safetensors')
        variants[name] = network.config.variant
        assert card.classes == ('yellow', 'blue')
        assert card.licence == 'CC0-1.0'
        assert card.provenance['stage'] == name
    assert variants == {'one': 'baseline', 'two': 'complete', 'three': 'complete'}
    text = caplog.text
    assert re.search(r'cpu with \S.*, 1 threads; computes in float32\n', text)
    assert 'loc' in text and 'persistence' in text and 'y_t' in text and 'ETA' in text


def test_stages_train_only_their_groups(recipe, sources, tmp_path):
    Trainer(recipe, sources, tmp_path).run()
    one, two, three = (load_file(tmp_path / f'{name}.safetensors')
                       for name in ('one', 'two', 'three'))
    for key, value in one.items():
        if key.startswith('extractor'):
            assert torch.equal(value, two[key]), key
    assert any(not torch.equal(value, two[key]) for key, value in one.items()
               if key.startswith('head'))
    # The counters of BatchNorm are no weights; those of frozen norms do not change.
    for key, value in two.items():
        if key.endswith('num_batches_tracked'):
            continue
        assert torch.equal(value, three[key]) == (
            not key.startswith('scheduler.') or '.running_' in key), key


def test_resume_is_exact(recipe, sources, tmp_path, monkeypatch):
    whole = tmp_path / 'whole'
    Trainer(recipe, sources, whole).run()

    from forecast_detector_ros.training import stage_run as module
    broken = tmp_path / 'broken'
    step, count = module.StageRun._step, 0
    # A stage has four iterations, an epoch two. The stops are inside epochs and at their ends.
    stops = [1, 2, 3, 5, 7, 11]

    class Killed(BaseException):
        pass

    def dying(self, *batch):
        nonlocal count
        if stops and count == stops[0]:
            raise Killed
        count += 1
        return step(self, *batch)

    monkeypatch.setattr(module.StageRun, '_step', dying)
    while stops:
        with pytest.raises(Killed):
            # The trainer writes a snapshot after every iteration.
            Trainer(recipe, sources, broken).run(snapshot_every=0.0)
        assert count == stops.pop(0)
    assert Trainer(recipe, sources, broken).run()
    # No iteration was repeated.
    assert count == 12
    expected, found = (load_snapshot(folder / SNAPSHOT) for folder in (whole, broken))
    assert expected.iteration == found.iteration
    for key, value in expected.network.items():
        assert torch.equal(value, found.network[key]), key
    for name in ('one', 'two', 'three'):
        if not (broken / f'{name}.safetensors').exists():
            pytest.fail(f'{name} left no checkpoint')
        a, b = (load_file(folder / f'{name}.safetensors') for folder in (whole, broken))
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_resume_keeps_the_parts_that_a_stage_lacks(recipe_values, sources, tmp_path, caplog):
    """Encoders stay the same across a stage without encoders and across a resume."""
    one, two, three = recipe_values['stages']
    recipe = build_recipe({**recipe_values, 'stages': [
        {**two, 'name': 'encoders'}, {**one, 'name': 'detector'}, three]})
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    assert Trainer(recipe, sources, whole).run()
    caplog.set_level(logging.INFO)
    while not Trainer(recipe, sources, parts).run(stop_after=0.0):
        pass
    assert f'{parts / SNAPSHOT}: continues in stage encoders after iteration 1' in caplog.text
    expected, found = (load_file(folder / 'three.safetensors') for folder in (whole, parts))
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    first = load_file(whole / 'encoders.safetensors')
    encoders = [key for key in first if key.startswith('encoder1')]
    assert encoders and all(torch.equal(first[key], found[key]) for key in encoders)


def test_batches_do_not_depend_on_the_start(recipe, sources):
    stage = recipe.stages[1]
    every = list(batches(ClipLoader(sources, recipe, stage), stage))
    late = list(batches(ClipLoader(sources, recipe, stage), stage, start=3))
    assert len(every) == 4
    assert len(late) == 1
    assert torch.equal(late[0].images, every[3].images)
    assert not torch.equal(every[0].images, every[1].images)


def test_a_backbone_of_another_width(recipe, sources, tmp_path):
    assert recipe.network['width'] == 0.35
    backbone = mobilenet_v2(weights=None).state_dict()
    with pytest.raises(RecipeError, match='network.width is 0.35, must be 1 for weights of the'):
        Trainer(recipe, sources, tmp_path / 'run', backbone).run()
    assert not (tmp_path / 'run').exists()


def test_rare_classes_weigh_more(sources):
    videos = sources.videos
    short = replace(videos[1], frames=videos[1].frames[:1])
    flat = picture_weights([videos[0], short], 2, 0.0)
    assert flat == [8.0, 1.0]
    # The classes have 8 and 1 pictures; the count adds one.
    assert picture_weights([videos[0], short], 2, 1.0) == pytest.approx([8 / 9, 1 / 2])


def test_a_loss_of_nan_ends_the_run_with_advice(recipe, sources, tmp_path):
    stage = replace(recipe.stages[0], groups={
        name: replace(group, lr=1e12) for name, group in recipe.stages[0].groups.items()},
        optimizer='sgd', epochs=20)
    with pytest.raises(TrainingDivergedError, match='lower the learning rates'):
        Trainer(replace(recipe, stages=(stage,)), sources, tmp_path).run()


@pytest.mark.parametrize('times', [1, 99])
def test_a_nan_gradient_is_skipped_and_many_end_the_run(
        recipe, sources, tmp_path, caplog, monkeypatch, times):
    from forecast_detector_ros.training.machine import Processes
    from forecast_detector_ros.training.stage_run import MOST_SKIPPED
    calls = []
    add = Processes.add_gradients

    def spoil(self, parameters):
        add(self, parameters)
        calls.append(len(calls))
        if len(calls) <= times:
            parameters[0].grad[0] = float('nan')

    monkeypatch.setattr(Processes, 'add_gradients', spoil)
    trainer = Trainer(replace(recipe, stages=recipe.stages[:1]), sources, tmp_path)
    if times > 1:
        stage = replace(recipe.stages[0], epochs=20)
        trainer = Trainer(replace(recipe, stages=(stage,)), sources, tmp_path)
        with pytest.raises(TrainingDivergedError, match=f'{MOST_SKIPPED} times in a row'):
            trainer.run()
        assert len(calls) == MOST_SKIPPED
        return
    assert trainer.run()
    warned = [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']
    assert len(warned) == 1
    assert 'iteration 0: the gradient is nan (' in warned[0]
    weights = load_file(tmp_path / f'{recipe.stages[0].name}.safetensors')
    assert all(value.isfinite().all() for value in weights.values())


def test_a_scheduler_with_nothing_to_learn_is_logged(recipe, sources, tmp_path, caplog):
    # No detection reaches this score, so every forecast agrees with its frame.
    stage = replace(recipe.stages[2], epochs=18, loss=replace(
        recipe.stages[2].loss, reliable_against='read', reliable_score=0.999, reliable_margin=0.0))
    Trainer(replace(recipe, stages=(stage,)), sources, tmp_path).run()
    warned = [record for record in caplog.records if record.levelname == 'WARNING']
    assert len(warned) == 1
    assert 'learns never to read: raise thinning' in warned[0].getMessage()


def test_deterministic_mode_holds_for_the_run_alone(recipe, sources, tmp_path, monkeypatch):
    seen = []

    def step(self, *batch):
        seen.append(torch.are_deterministic_algorithms_enabled())
        raise TrainingDivergedError('enough')

    from forecast_detector_ros.training import stage_run as module
    monkeypatch.setattr(module.StageRun, '_step', step)
    for wanted in (True, False):
        with pytest.raises(TrainingDivergedError):
            Trainer(replace(recipe, deterministic=wanted), sources, tmp_path).run()
    assert seen == [True, False]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_snapshot_without_the_newer_keys_is_loaded(recipe, sources, tmp_path):
    assert not Trainer(recipe, sources, tmp_path).run(stop_after=0.0)
    path = tmp_path / SNAPSHOT
    with safe_open(path, 'pt') as file:
        about = json.loads(file.metadata()['about'])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for key in ('scaler', 'best_score'):
        del about[key]
    save_file(tensors, path, {'about': json.dumps(about)})
    snapshot = load_snapshot(path)
    assert (snapshot.iteration, snapshot.scaler, snapshot.best, snapshot.best_score) == (
        1, {}, {}, None)
    assert Trainer(recipe, sources, tmp_path).run()


def test_a_damaged_snapshot_is_named(recipe, sources, tmp_path):
    (tmp_path / SNAPSHOT).write_bytes(b'nothing')
    with pytest.raises(SnapshotError, match=SNAPSHOT):
        Trainer(recipe, sources, tmp_path).run()


@pytest.mark.parametrize('word, instead', [
    (b'\\"stage\\"', b'\\"stXge\\"'), (b'"optimizer/0/', b'"optimizer/X/'),
    (b'"network/', b'"networX/')])
def test_a_snapshot_with_a_wrong_byte_is_named(recipe, sources, tmp_path, word, instead):
    assert not Trainer(recipe, sources, tmp_path).run(stop_after=0.0)
    path = tmp_path / SNAPSHOT
    data = path.read_bytes()
    assert word in data
    path.write_bytes(data.replace(word, instead, 1))
    with pytest.raises(SnapshotError, match=f'{SNAPSHOT}: not a snapshot .*, or damaged'):
        Trainer(recipe, sources, tmp_path).run()


def test_command(recipe_file, data_root, tmp_path, capsys):
    arguments = [str(recipe_file), '--data', str(data_root), '--output', str(tmp_path / 'run')]
    assert main([*arguments, '--stop-after', '0']) == 0
    assert main(arguments) == 0
    assert (tmp_path / 'run' / 'three.safetensors').exists()
    assert main([*arguments[:2], str(tmp_path), *arguments[3:], '--fresh']) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith('train: ') and 'train.json' in message


def test_command_names_a_missing_recipe(tmp_path, capsys):
    assert main([str(tmp_path / 'none.yaml'), '--data', '.', '--output', '.']) == 2
    assert 'none.yaml: no such file' in capsys.readouterr().err


def test_loss_falls(recipe, sources, tmp_path):
    stage = replace(recipe.stages[0], epochs=20, clips_per_epoch=32, batch=8, freeze_bn='none',
                    name='long', augment=None)
    losses = []
    from forecast_detector_ros.training import stage_run as module
    original = module.StageRun._step

    def spy(self, *batch):
        result = original(self, *batch)
        losses.append(float(result.total.detach()))
        return result

    module.StageRun._step = spy
    try:
        Trainer(replace(recipe, stages=(stage,)), sources, tmp_path).run()
    finally:
        module.StageRun._step = original
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


@pytest.mark.parametrize('change, words', [
    (lambda recipe: replace(recipe, seed=4), 'seed is 4 and was 3'),
    (lambda recipe: replace(recipe, classes=('yellow', 'red')),
     'classes[1] is "red" and was "blue"'),
    (lambda recipe: replace(recipe, stages=(
        replace(recipe.stages[0], epochs=3), *recipe.stages[1:])),
     'stages[0].epochs is 3 and was 2')])
def test_a_folder_belongs_to_one_recipe(recipe, sources, tmp_path, change, words):
    assert not Trainer(recipe, sources, tmp_path).run(stop_after=0.0)
    with pytest.raises(RecipeError) as caught:
        Trainer(change(recipe), sources, tmp_path).run()
    assert str(caught.value) == (
        f'{tmp_path / SNAPSHOT}: belongs to a run of another recipe: {words}; name another '
        '--output, or begin anew with --fresh')
    assert not Trainer(change(recipe), sources, tmp_path).run(resume=False, stop_after=0.0)


def test_another_machine_may_resume(recipe, sources, tmp_path):
    assert not Trainer(recipe, sources, tmp_path).run(stop_after=0.0)
    other = replace(recipe, threads=2, workers=1, device='cpu', amp='bf16',
                    card={'description': 'longer'})
    assert not Trainer(other, sources, tmp_path).run(stop_after=0.0)
    assert load_snapshot(tmp_path / SNAPSHOT).iteration == 2


def test_keys_missing_from_an_older_version_have_defaults(recipe, sources, tmp_path):
    assert not Trainer(recipe, sources, tmp_path).run(stop_after=0.0)
    path = tmp_path / SNAPSHOT
    snapshot = load_snapshot(path)
    del snapshot.recipe['balance']
    del snapshot.recipe['stages'][0]['loss']['box']
    save_snapshot(path, snapshot)
    assert not Trainer(recipe, sources, tmp_path).run(stop_after=0.0)
    snapshot.recipe['speed'] = 1
    save_snapshot(path, snapshot)
    with pytest.raises(RecipeError, match='not one of this version .unknown key speed.'):
        Trainer(recipe, sources, tmp_path).run()


@pytest.mark.parametrize('spoil', [lambda about: about.pop('recipe'),
                                   lambda about: about.update(recipe={})])
def test_a_snapshot_without_its_recipe_is_refused(recipe, sources, tmp_path, spoil):
    path = tmp_path / SNAPSHOT
    about = {'stage': recipe.stages[0].name, 'iteration': 1, 'average_updates': 0, 'seconds': 0.0,
             'param_groups': [], 'plain': {}, 'recipe': recipe_values(recipe)}
    spoil(about)
    save_file({}, path, {'about': json.dumps(about)})
    with pytest.raises(RecipeError) as caught:
        Trainer(recipe, sources, tmp_path).run()
    assert str(caught.value) == (
        f'{path}: does not contain its recipe, so it is of an earlier version; name another '
        '--output, or begin anew with --fresh')


def test_the_card_names_the_recipe_by_its_digest(recipe, sources, tmp_path):
    # YAML has a type for dates, but JSON does not.
    short = replace(recipe, stages=recipe.stages[:1],
                    card={'provenance': {'made': date(2026, 1, 2)}})
    Trainer(short, sources, tmp_path).run()
    _, card = load_checkpoint(tmp_path / 'one.safetensors')
    assert card.provenance['recipe_sha256'] == recipe_digest(short) != recipe_digest(recipe)
