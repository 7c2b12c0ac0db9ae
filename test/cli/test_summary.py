# SPDX-License-Identifier: Apache-2.0
"""The verb `summary`, and the documentation that quotes its table."""

import json
from pathlib import Path
import subprocess
import sys

from forecast_detector_ros.cli.summary import main
from forecast_detector_ros.detector.checkpoint import Card, read_checkpoint, save_checkpoint
from forecast_detector_ros.model.config import NetworkConfig, PRESETS
from forecast_detector_ros.model.network import ForecastDetector
import pytest
import torch

DOCUMENT = Path(__file__).resolve().parents[2] / 'docs' / 'design' / 'network.md'

SMALL = NetworkConfig(classes=2, input_size=(64, 96), width=0.35, feature_channels=(20,),
                      lstm_channels=(10,), extra_channels=(16,))


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread of PyTorch."""
    torch.set_num_threads(1)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'small.safetensors'
    save_checkpoint(path, ForecastDetector(SMALL), Card('small', ('cat', 'dog'), SMALL))
    return path


@pytest.mark.parametrize('name', sorted(PRESETS))
def test_documentation_quotes_the_table(name, capsys):
    assert main(['--preset', name]) == 0
    assert capsys.readouterr().out in DOCUMENT.read_text(encoding='utf-8'), \
        f'docs/design/network.md is behind; it must quote the output of --preset {name}'


def test_default_is_the_checkpoint_that_is_shipped(capsys):
    main(['--json'])
    values = json.loads(capsys.readouterr().out)
    card = read_checkpoint('default').card
    assert values['name'] == card.name
    assert NetworkConfig.from_dict(values['network']) == card.network


def test_preset_has_the_classes_of_the_paper(capsys):
    main(['--preset', 'default'])
    implicit = capsys.readouterr().out
    main(['--preset', 'default', '--classes', '30'])
    assert capsys.readouterr().out == implicit


def test_json_of_a_checkpoint(checkpoint, capsys):
    assert main(['--checkpoint', str(checkpoint), '--json']) == 0
    values = json.loads(capsys.readouterr().out)
    network = ForecastDetector(SMALL)
    assert values['name'] == 'small'
    assert NetworkConfig.from_dict(values['network']) == SMALL
    assert values['total']['parameters'] == sum(p.numel() for p in network.parameters())
    assert values['total']['read_macs'] == sum(part['read_macs'] for part in values['parts'])
    assert values['forecast_share'] == pytest.approx(
        values['total']['forecast_macs'] / values['total']['read_macs'])


def test_classes_change_the_head_alone(capsys):
    tables = []
    for classes in ('3', '17'):
        main(['--preset', 'default', '--classes', classes, '--json'])
        tables.append(json.loads(capsys.readouterr().out))
    changed = [a['name'] for a, b in zip(tables[0]['parts'], tables[1]['parts']) if a != b]
    assert changed == ['head']
    assert [table['network']['classes'] for table in tables] == [3, 17]


@pytest.mark.parametrize('arguments, words', [
    (['--preset', 'tiny'], ("preset is 'tiny'", 'default', 'paper')),
    (['--preset', 'paper', '--classes', '1000000'], ('classes is 1000000', 'from 1 to')),
    (['--checkpoint', 'nowhere.safetensors'], ('nowhere.safetensors', 'no such')),
    (['--classes', '3'], ('--classes', '--preset')),
    (['--checkpoint', 'x.safetensors', '--classes', '3'], ('--classes', '--preset'))])
def test_bad_input_is_one_line(arguments, words, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == '' and err.count('\n') == 1
    assert all(word in err for word in words)


def test_as_a_program():
    result = subprocess.run(
        [sys.executable, '-m', 'forecast_detector_ros.cli', 'summary', '--preset', 'tiny'],
        capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("summary: preset is 'tiny'")
    assert 'Traceback' not in result.stderr
