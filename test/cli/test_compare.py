# SPDX-License-Identifier: Apache-2.0
"""The commands `compare designs` and `compare detectors`, with tiny networks."""

import json

from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.benchmark import timing
from forecast_detector_ros.cli import compare
from forecast_detector_ros.detector.backends.registry import choose_backend
from forecast_detector_ros.detector.checkpoint import load_checkpoint
from forecast_detector_ros.experiments import designs
from forecast_detector_ros.model.summary import summarise
from forecast_detector_ros.training.config import load_recipe
import numpy as np
import pytest
import yaml

from ..helpers.pages import undocumented

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


@pytest.fixture
def all_rounds(monkeypatch):
    """Time every step in every round, even if a busy machine makes it slow."""
    monkeypatch.setattr(timing, 'LONG_MS', float('inf'))


@pytest.fixture
def training(tmp_path, all_rounds):
    """Write a training and a held-out set, a recipe and designs; return the arguments."""
    write_synthetic_videos(tmp_path / 'train', seed=0, videos=2, frames=4)
    truth = write_synthetic_videos(tmp_path / 'held_out', seed=1, videos=2, frames=4)
    for name, values in (('recipe', RECIPE), ('designs', DESIGNS)):
        (tmp_path / f'{name}.yaml').write_text(yaml.safe_dump(values, sort_keys=False))
    names = sorted(path.name for path in truth.parent.iterdir() if path.is_dir())
    return [str(tmp_path / 'recipe.yaml'), str(tmp_path / 'designs.yaml'),
            '--data', str(tmp_path / 'train'), '--output', str(tmp_path / 'out'),
            '--annotations', str(truth), '--images', str(truth.parent),
            '--sequences', *names, '--rounds', '2']


def refused(training, capsys):
    """Run the program, which must refuse its input in one line; return the line."""
    assert compare.designs.main(training) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith('compare designs: ')]
    assert out == '' and len(lines) == 1 and 'Traceback' not in err
    return lines[0]


@pytest.mark.slow
def test_designs_are_trained_once_measured_and_timed_together(
        training, tmp_path, capsys, monkeypatch):
    output = tmp_path / 'out'
    measured = []
    # Making the graphs takes seconds for every design; another test times graphs.
    monkeypatch.setattr(designs, 'choose_backend', lambda *_: 'torch')

    def interrupted(checkpoint, *rest):
        if measured:
            raise KeyboardInterrupt
        measured.append(checkpoint.parent.name)
        return {'recall': 0.25, 'ap50': None}

    with monkeypatch.context() as patch:
        patch.setattr(designs, 'measure_design', interrupted)
        assert compare.designs.main(training) == 130
    assert measured == ['usual']
    assert 'the same command continues' in capsys.readouterr().err
    assert not (output / 'designs.json').exists()
    assert 'flat is not finished' in refused([*training, '--timings-only'], capsys)

    # The second run continues; it does not repeat finished trainings and measurements.
    trained = {path: path.stat().st_mtime_ns for path in output.glob('*/single.safetensors')}
    assert {path.parent.name for path in trained} == {'usual', 'flat'}
    assert compare.designs.main(training) == 0
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    text = capsys.readouterr().out
    assert text == (output / 'designs.md').read_text() + (
        f'\nwritten: {output}/designs.json, designs.md\n')
    report = json.loads((output / 'designs.json').read_text())
    assert undocumented(report, 'Comparisons and benchmark') == set()
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
    assert compare.designs.main([*training, '--rounds', '3', '--timings-only']) == 0
    again = json.loads((output / 'designs.json').read_text())
    assert [row['read']['runs'] for row in again['designs']] == [3, 3, 3]
    assert [row['ap50'] for row in again['designs']] == [row['ap50'] for row in rows.values()]

    # A design of the same name has another shape.
    capsys.readouterr()
    (tmp_path / 'designs.yaml').write_text(yaml.safe_dump(
        {'flat': {**DESIGNS['flat'], 'input_size': [64, 64]}}))
    line = refused([*training, '--timings-only'], capsys)
    assert str(output / 'flat') in line and 'another shape' in line


def test_wrong_designs_are_refused_before_the_training(training, tmp_path, capsys):
    path = tmp_path / 'designs.yaml'
    path.write_text('flat: {level: [32]}')
    line = refused(training, capsys)
    assert str(path) in line and 'design flat' in line and "'level'" in line
    path.unlink()
    assert 'no such file' in refused(training, capsys)
    assert not (tmp_path / 'out').exists()


def test_timings_need_a_finished_folder(training, tmp_path, capsys):
    line = refused([*training, '--timings-only'], capsys)
    assert str(tmp_path / 'out') in line and 'usual is not finished' in line
    assert not (tmp_path / 'out').exists()


def test_sequences_that_are_trained_on_are_refused(training, tmp_path, capsys):
    training[training.index('--data') + 1] = str(tmp_path / 'held_out')
    assert 'is trained on' in refused(training, capsys)


def test_a_recipe_must_train_single_frames_first(training, tmp_path, capsys):
    stage = {**RECIPE['stages'][0], 'variant': 'complete', 'extra_frame': True}
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump({**RECIPE, 'stages': [stage]}))
    assert 'must be of baseline' in refused(training, capsys)


def test_a_folder_of_another_recipe_is_refused(training, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'plan.json').write_text('{}')
    assert 'another recipe' in refused(training, capsys)


def test_widths_without_imagenet_weights_are_only_timed(
        training, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, 'load_backbone', lambda path: {})
    (tmp_path / 'designs.yaml').write_text(yaml.safe_dump({'flat': DESIGNS['flat']}))
    assert compare.designs.main(
        [*training, '--imagenet', 'weights.whl', '--timings-only', '--json']) == 0
    report = json.loads((tmp_path / 'out' / 'designs.json').read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert report['backend'] == choose_backend('auto', 'cpu', 'fp32')
    (row,) = report['designs']
    assert (row['start'], row['recall'], row['ap50']) == ('none', None, None)
    assert row['read']['runs'] == row['forecast']['runs'] == 2
    text = (tmp_path / 'out' / 'designs.md').read_text()
    assert text.count('| - | - |') == 1
    assert not list((tmp_path / 'out').glob('*/*.safetensors'))


# The synthetic objects get names of COCO's classes, so that a rival has the same classes.
NAMES = {'disc': 'person', 'square': 'car', 'triangle': 'dog'}


@pytest.fixture
def arguments(tmp_path, write_checkpoint, write_onnx):
    """Write annotated video, two checkpoints and a rival; return the arguments."""
    pytest.importorskip('matplotlib')
    truth = write_synthetic_videos(tmp_path / 'videos', videos=2, frames=4)
    document = json.loads(truth.read_text())
    for category in document['categories']:
        category['name'] = NAMES[category['name']]
    truth.write_text(json.dumps(document))
    rival = write_onnx({'boxes': np.array([[1, 1, 30, 30]], np.float32),
                        'labels': np.array([1], np.int64),
                        'scores': np.array([0.9], np.float32)}, [1, 3, 'H', 'W'])
    first = write_checkpoint(('person', 'car', 'dog'))
    second = write_checkpoint(('dog', 'person'))
    return ['--annotations', str(truth), '--checkpoints', f'one={first}', f'two={second}',
            '--peers', f'rival={rival}', '--torchvision', '--output', str(tmp_path / 'out')]


def test_from_files_to_table_numbers_and_picture(arguments, tmp_path, capsys):
    assert compare.detectors.main(arguments) == 0
    text = capsys.readouterr().out
    output = tmp_path / 'out'
    assert text == (output / 'prices.md').read_text() + (
        f'\nwritten: {output}/prices.json, prices.md, prices.png\n')
    report = json.loads((output / 'prices.json').read_text())
    assert undocumented(report, 'Comparisons and benchmark', '`evaluate`') == set()
    assert report['classes'] == ['person', 'dog'] and report['frames'] == 8
    assert [(row['name'], row['policy']) for row in report['prices']] == [
        ('one', 'always_read'), ('one', 'threshold(0.5)'), ('two', 'always_read'),
        ('two', 'threshold(0.5)'), ('rival', 'always_read')]
    rival = report['prices'][-1]
    assert rival['boxes_per_frame'] == 1 and rival['recall'] is not None
    assert set(report['checkpoints']) == {'one', 'two'}
    assert '| rival | always_read |' in text
    assert (output / 'prices.png').read_bytes().startswith(b'\x89PNG')


def test_policies_and_frames_can_be_chosen(arguments, tmp_path, capsys):
    assert compare.detectors.main(
        [*arguments, '--policies', 'alternate(1)', '--frames', '2', '--json']) == 0
    report = json.loads((tmp_path / 'out/prices.json').read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert [row['policy'] for row in report['prices']] == ['alternate(1)'] * 2 + ['always_read']
    assert report['frames'] == 4 and report['prices'][0]['read_ratio'] == 0.5


def test_more_policies_are_added_to_those_of_the_cards(arguments, tmp_path):
    assert compare.detectors.main(
        [*arguments, '--more-policies', 'alternate(2)', '--frames', '2']) == 0
    report = json.loads((tmp_path / 'out/prices.json').read_text())
    assert [row['policy'] for row in report['prices'][:-1]] == [
        'always_read', 'threshold(0.5)', 'alternate(2)'] * 2


@pytest.mark.slow
def test_torchvisions_detectors_are_only_timed(arguments, tmp_path):
    place = arguments.index('--torchvision')
    assert compare.detectors.main(
        [*arguments[:place + 1], 'ssdlite320_mobilenet_v3_large', *arguments[place + 1:],
         '--frames', '1']) == 0
    row = json.loads((tmp_path / 'out/prices.json').read_text())['prices'][-1]
    assert row['group'] == 'time only' and row['recall'] is None and row['ms'] > 0


@pytest.mark.parametrize('more, words', [
    (['--peers', 'rival=no.onnx'], 'no.onnx: no such file'),
    (['--checkpoints', 'one=no.safetensors'], 'no.safetensors'),
    (['--sequences', 'walk'], "sequence 'walk' is not there"),
    (['--checkpoints', 'one=a', 'one=b'], "'one' stands for two files"),
    (['--peers', 'one=a.onnx'], "'one' stands for two files"),
])
def test_bad_input_is_one_line(arguments, capsys, more, words):
    assert compare.detectors.main([*arguments, *more]) == 2
    error = [line for line in capsys.readouterr().err.splitlines()
             if line.startswith('compare detectors: ')]
    assert len(error) == 1 and words in error[0]


def test_no_class_in_common(arguments, capsys, write_checkpoint):
    path = write_checkpoint(('zebra',))
    assert compare.detectors.main(
        [*arguments, '--checkpoints', f'striped={path}',
         arguments[arguments.index('--checkpoints') + 1]]) == 2
    assert 'the detectors have no class in common' in capsys.readouterr().err


def test_checkpoint_without_a_name(arguments, capsys):
    with pytest.raises(SystemExit):
        compare.detectors.main([*arguments, '--checkpoints', 'file.safetensors'])
    assert "is 'file.safetensors', must be NAME=FILE" in capsys.readouterr().err
