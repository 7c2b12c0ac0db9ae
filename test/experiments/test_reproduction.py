# SPDX-License-Identifier: Apache-2.0
"""The comparison of variants: trainings, measurements and refused input."""

from dataclasses import replace
import json

from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.cli import reproduce as command
from forecast_detector_ros.cli.inputs import load_held_out
from forecast_detector_ros.detector.checkpoint import load_checkpoint
from forecast_detector_ros.evaluation.policy_sweep import run_policies
from forecast_detector_ros.evaluation.sequences import load_annotated
from forecast_detector_ros.experiments import reproduction
from forecast_detector_ros.experiments.reproduction import (
    DEFAULT_ROWS,
    number_tracks,
    OTHER_MODE,
    THRESHOLDS,
)
from forecast_detector_ros.training.config import load_recipe
import numpy as np
import pytest
import yaml

SHAPE = {'input_size': [64, 96], 'width': 0.35, 'feature_channels': [16, 24],
         'lstm_channels': [8, 12], 'extra_channels': [16]}
STAGE = {'epochs': 1, 'clips_per_epoch': 4, 'batch': 4, 'optimizer': 'adamw', 'clip_length': 2,
         'thinning': 0}
RATE = {'lr': 0.001}
RECIPE = {
    'name': 'tiny', 'classes': list(CLASSES), 'preset': 'features', 'network': SHAPE,
    'workers': 0, 'threads': 1,
    'sources': [{'annotations': 'annotations.json', 'images': '.'}],
    'stages': [
        {**STAGE, 'name': 'one', 'variant': 'baseline', 'clip_length': 1, 'extra_frame': False,
         'groups': {'backbone': RATE, 'projection': RATE, 'head': RATE}},
        {**STAGE, 'name': 'two', 'groups': {'encoder': RATE, 'head': RATE}},
        {**STAGE, 'name': 'three', 'groups': {'scheduler': RATE}, 'scheduler_from': 0}]}


@pytest.fixture
def options(tmp_path):
    """Write a training and a held-out set and a recipe; return the command's arguments."""
    write_synthetic_videos(tmp_path / 'train', seed=0, videos=2, frames=4)
    truth = write_synthetic_videos(tmp_path / 'held_out', seed=1, videos=2, frames=6)
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(RECIPE))
    names = sorted(path.name for path in (tmp_path / 'held_out').iterdir() if path.is_dir())
    return [str(tmp_path / 'recipe.yaml'), '--data', str(tmp_path / 'train'),
            '--output', str(tmp_path / 'out'), '--annotations', str(truth),
            '--images', str(tmp_path / 'held_out'), '--sequences', *names, '--seeds', '4', '5']


@pytest.mark.slow
def test_command_trains_and_measures_every_row_and_resumes(
        options, tmp_path, capsys, monkeypatch):
    calls = []
    # Two thresholds are the shortest sweep.
    monkeypatch.setattr(reproduction, 'THRESHOLDS', THRESHOLDS[:2])

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run_policies(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(reproduction, 'run_policies', interrupted)
        assert command.main(options) == 130
    known = json.loads((tmp_path / 'out' / 'seed_4' / reproduction.RESULTS).read_text())
    assert list(known) == ['baseline', 'recurrent']
    first = tmp_path / 'out/seed_4/baseline/one.safetensors'
    trained = first.stat().st_mtime_ns

    assert command.main(options) == 0
    assert first.stat().st_mtime_ns == trained
    out = capsys.readouterr().out
    report = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert report['seeds'] == [4, 5]
    assert report['frames'] == 12
    for rows in report['results'].values():
        assert list(rows) == list(DEFAULT_ROWS)
        for name, policies in rows.items():
            swept = 2 if name in ('complete', OTHER_MODE) else 0
            assert len(policies) == 4 + swept
        assert rows['complete']['always_read']['read_ratio'] == 1.0
        assert rows['complete']['alternate(1)']['read_ratio'] == 0.5
        # Held features change only the forecast frames.
        assert rows['held_feature']['always_read'] == rows['complete']['always_read']
    assert out == (tmp_path / 'out' / 'results.md').read_text() + (
        f'\nwritten: {tmp_path}/out/results.json, results.md\n')
    assert '| without_forecast |' in out and '| recurrent |' in out

    folder = tmp_path / 'out' / 'seed_4'
    variants = {}
    for path in folder.glob('*/*.safetensors'):
        if 'snapshot' not in path.name and path.stem in ('one', 'two'):
            config = load_checkpoint(path)[0].config
            variants[path.parent.name] = config.variant, config.forecast_mode
    assert variants == {
        'baseline': ('baseline', 'residual'), 'complete': ('complete', 'residual'),
        'without_forecast': ('without_forecast', 'residual'),
        'without_combination': ('without_combination', 'residual'),
        'complete_other_forecast_mode': ('complete', 'direct'),
        'recurrent': ('recurrent', 'residual')}
    # All rows have the extractor of the baseline.
    states = [load_checkpoint(folder / name)[0].extractor.state_dict()
              for name in ('baseline/one.safetensors', 'without_forecast/two.safetensors')]
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])

    before = {path: path.stat().st_mtime_ns for path in folder.glob('*/*.safetensors')}
    assert command.main([*options, '--json']) == 0
    assert json.loads(capsys.readouterr().out) == report
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_folder_of_another_plan_is_refused(options, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    for plan in (b'{}', b'\xff'):
        (tmp_path / 'out' / 'plan.json').write_bytes(plan)
        assert command.main(options) == 2
        assert 'another recipe' in capsys.readouterr().err


def test_folder_of_another_start_is_refused(options, tmp_path, capsys, monkeypatch):
    options = [*options, '--rows', 'baseline', '--seeds', '4']
    assert command.main(options) == 0
    capsys.readouterr()
    monkeypatch.setattr(command, 'load_backbone', lambda path: {})
    assert command.main([*options, '--backbone', str(tmp_path)]) == 2
    assert 'out/seed_4/baseline: holds results of another start' in capsys.readouterr().err
    assert command.main(options) == 0


@pytest.mark.parametrize('text', ['[' * 100_000, '{"a": 1' + '0' * 400 + '}', '[1]', '{'])
def test_damaged_results_are_one_line(options, tmp_path, capsys, text):
    (tmp_path / 'out' / 'seed_4').mkdir(parents=True)
    (tmp_path / 'out' / 'seed_4' / reproduction.RESULTS).write_text(text)
    assert command.main(options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert reproduction.RESULTS in line and 'remove it to measure again' in line


@pytest.mark.parametrize(('rows', 'message'), [
    (['held_feature'], 'uses the weights of complete'),
    (['baseline', 'persistence', 'without_forecast'], 'uses the weights of complete')])
def test_rows_without_their_weights_are_refused(options, capsys, rows, message):
    assert command.main([*options, '--rows', *rows]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_estimate_times_every_part_and_writes_nothing(options, tmp_path, capsys):
    rows = ['complete', 'persistence', 'persistence, trained']
    assert command.main([*options, '--rows', *rows, '--estimate']) == 0
    lines = [line.split('  ') for line in capsys.readouterr().out.splitlines()]
    parts = [(line[0].strip(), line[1].strip() or line[2].strip()) for line in lines[2:-2]]
    assert [name for name, _ in parts] == [
        'baseline', 'complete', 'complete', 'persistence, trained', 'baseline', 'complete',
        'persistence', 'persistence, trained']
    assert lines[-1][0] == '2 seeds'
    assert not (tmp_path / 'out').exists()


def test_estimate_of_a_stage_without_epochs_and_of_a_mean(options, tmp_path, capsys):
    first, second, _ = RECIPE['stages']
    third = {**second, 'name': 'mean', 'mean_of': {'start': 1.0, 'two': 1.0}}
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(
        {**RECIPE, 'stages': [first, {**second, 'epochs': 0}, third]}))
    assert command.main([*options, '--rows', 'without_forecast', '--estimate']) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ['without_forecast', 'stage', 'two', '0', '-', '0.0'] in lines


def test_sequences_that_are_trained_on_are_refused(options, tmp_path, capsys):
    options[options.index('--data') + 1] = str(tmp_path / 'held_out')
    assert command.main(options) == 2
    assert 'is trained on' in capsys.readouterr().err
    # The recipe may still be changed, because no folder has its plan.
    assert not (tmp_path / 'out/plan.json').exists()


def test_recipe_without_a_baseline_is_refused(options, tmp_path, capsys):
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(
        {**RECIPE, 'stages': RECIPE['stages'][1:]}))
    assert command.main(options) == 2
    error = capsys.readouterr().err
    assert 'variant baseline first' in ' '.join(error.split())
    assert len(error.strip().splitlines()) == 1


def test_row_without_a_stage_is_refused(options, tmp_path, capsys):
    first, _, last = RECIPE['stages']
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump({**RECIPE, 'stages': [first, last]}))
    assert command.main([*options, '--rows', 'complete', 'recurrent']) == 2
    error = capsys.readouterr().err
    assert 'recipe tiny: has no stage for row recurrent' in error and error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_network_that_forecasts_no_features_is_refused(options, tmp_path, capsys):
    moved = {**RECIPE['stages'][1], 'gaps': [1], 'horizons': [1], 'groups': {'encoder': RATE}}
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(
        {**RECIPE, 'preset': 'default', 'network': {}, 'cache': 'device',
         'stages': [RECIPE['stages'][0], moved]}))
    for more in ([], ['--estimate']):
        assert command.main([*options, *more]) == 2
        error = capsys.readouterr().err
        assert "forecast_mode is 'motion'" in error and error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_only_missing_tracks_are_numbered(tmp_path):
    path = write_synthetic_videos(tmp_path, seed=1, videos=1, frames=6)
    item = load_annotated(path, tmp_path, CLASSES, 0.0, 0.0)[0]
    unknown = replace(item, truth=replace(item.truth, tracks=np.full(len(item.truth), -1)))
    numbered = number_tracks(unknown).truth
    assert (numbered.tracks > 0).all()
    known = replace(item, labelled=replace(item.truth, tracks=np.arange(len(item.truth)) + 7))
    assert np.array_equal(number_tracks(known).truth.tracks, known.labelled.tracks)


def test_true_boxes_replace_those_of_a_teacher(options, tmp_path):
    """All measures of a sequence use its boxes for average precision, which have tracks."""
    annotations = json.loads((tmp_path / 'held_out/annotations.json').read_text())
    first = annotations['images'][0]['video']
    images = [image for image in annotations['images'] if image['video'] == first]
    numbers = {image['id'] for image in images}
    own = {**annotations, 'images': images, 'annotations': [
        {**box, 'bbox': [box['bbox'][0] + 0.5, *box['bbox'][1:]]}
        for box in annotations['annotations'] if box['image_id'] in numbers]}
    truth = tmp_path / 'truth.json'
    truth.write_text(json.dumps(own))
    recipe = load_recipe(tmp_path / 'recipe.yaml')
    given = command.make_parser().parse_args([*options, '--truth', str(truth)])
    one, other = (number_tracks(item) for item in load_held_out(given, recipe.classes))
    assert (one.truth.boxes[:, 0] % 1 == 0.5).all() and (other.truth.boxes[:, 0] % 1 == 0).all()
    assert one.truth is one.labelled and (one.truth.tracks >= 0).all()
