# SPDX-License-Identifier: Apache-2.0
"""The command that puts detectors side by side, with tiny networks."""

import json

from forecast_detector_ros.annotations.synthetic import write_synthetic_videos
from forecast_detector_ros.cli.compare_detectors import main
import numpy as np
import pytest

# Names that the synthetic objects are given, so that a rival with COCO's classes knows them.
NAMES = {'disc': 'person', 'square': 'car', 'triangle': 'dog'}


@pytest.fixture
def arguments(tmp_path, write_checkpoint, write_onnx):
    """Write annotated video, two checkpoints and a rival; give the arguments."""
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
    assert main(arguments) == 0
    text = capsys.readouterr().out
    output = tmp_path / 'out'
    assert text == (output / 'prices.md').read_text()
    report = json.loads((output / 'prices.json').read_text())
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
    assert main([*arguments, '--policies', 'alternate(1)', '--frames', '2', '--json']) == 0
    report = json.loads((tmp_path / 'out/prices.json').read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert [row['policy'] for row in report['prices']] == ['alternate(1)'] * 2 + ['always_read']
    assert report['frames'] == 4 and report['prices'][0]['read_ratio'] == 0.5


def test_further_policies_come_beside_those_of_the_cards(arguments, tmp_path):
    assert main([*arguments, '--more-policies', 'alternate(2)', '--frames', '2']) == 0
    report = json.loads((tmp_path / 'out/prices.json').read_text())
    assert [row['policy'] for row in report['prices'][:-1]] == [
        'always_read', 'threshold(0.5)', 'alternate(2)'] * 2


@pytest.mark.slow
def test_torchvisions_detectors_are_timed_alone(arguments, tmp_path):
    place = arguments.index('--torchvision')
    assert main([*arguments[:place + 1], 'ssdlite320_mobilenet_v3_large', *arguments[place + 1:],
                 '--frames', '1']) == 0
    row = json.loads((tmp_path / 'out/prices.json').read_text())['prices'][-1]
    assert row['group'] == 'time only' and row['recall'] is None and row['ms'] > 0


@pytest.mark.parametrize('more, words', [
    (['--peers', 'rival=no.onnx'], 'no.onnx: no such file'),
    (['--checkpoints', 'one=no.safetensors'], 'no.safetensors'),
    (['--sequences', 'walk'], "sequence 'walk' is not there"),
])
def test_bad_input_is_one_line(arguments, capsys, more, words):
    assert main([*arguments, *more]) == 2
    error = [line for line in capsys.readouterr().err.splitlines()
             if line.startswith('compare detectors: ')]
    assert len(error) == 1 and words in error[0]


def test_no_class_in_common(arguments, capsys, write_checkpoint):
    path = write_checkpoint(('zebra',))
    assert main([*arguments, '--checkpoints', f'one={path}',
                 arguments[arguments.index('--checkpoints') + 1]]) == 2
    assert 'the detectors have no class in common' in capsys.readouterr().err


def test_arguments_that_are_none(arguments, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, '--checkpoints', 'file.safetensors'])
    assert "is 'file.safetensors', must be NAME=FILE" in capsys.readouterr().err
