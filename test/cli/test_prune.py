# SPDX-License-Identifier: Apache-2.0
"""The verb `prune` drops constant channels and does not change the boxes."""

import json

from forecast_detector_ros.cli.prune import main
from forecast_detector_ros.detector.checkpoint import (
    Card,
    default_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from forecast_detector_ros.model.config import EXPANSIONS, NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
import pytest
from safetensors.torch import load_file
import torch

CONFIG = NetworkConfig(classes=2, input_size=(64, 96), tail=False, levels=(16, 32),
                       feature_channels=(16, 24), lstm_channels=(8, 8), extra_channels=(16,))


def write(path, enliven, silent: int) -> ForecastDetector:
    """Write a checkpoint whose blocks have constant first channels."""
    network = enliven(ForecastDetector(CONFIG)).eval()
    with torch.no_grad():
        for block in network.extractor.expansions():
            block.expand[0].weight[:silent] = 0.0
            block.depthwise[0].weight[:silent] = 0.0
    save_checkpoint(path, network, Card('net', ('cat', 'dog'), CONFIG), torch.float32)
    return network


@torch.no_grad()
def head(network: ForecastDetector) -> torch.Tensor:
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    return network.read_features(network.extract(image), network.initial_state()).head.logits


def test_boxes_stay_and_the_card_has_the_channels(tmp_path, enliven, capsys):
    network = write(tmp_path / 'old.safetensors', enliven, 16)
    new = tmp_path / 'new.safetensors'
    assert main(['--checkpoint', str(tmp_path / 'old.safetensors'), '--output', str(new),
                 '--json', '--quiet']) == 0
    result = json.loads(capsys.readouterr().out)
    pruned, card = load_checkpoint(new)
    left = card.network.expansion_channels
    assert left is not None and result['expansion_channels'] == list(left)
    assert all(few == many - 16 for few, many in zip(left, EXPANSIONS))
    assert card.classes == ('cat', 'dog') and card.name == 'net'
    assert result['parameters'] == sum(p.numel() for p in pruned.parameters())
    assert result['parameters'] < result['parameters_before']
    expected = head(network)
    assert expected.std() > 0.1
    torch.testing.assert_close(head(pruned), expected, atol=1e-3, rtol=1e-3)


def test_shipped_weights_are_pruned(tmp_path, capsys):
    assert main(['--output', str(tmp_path / 'again.safetensors'), '--json', '--quiet']) == 0
    result = json.loads(capsys.readouterr().out)
    assert result['parameters'] == result['parameters_before']
    _, card = load_checkpoint(default_checkpoint())
    assert card.network.expansion_channels == tuple(result['expansion_channels'])


def test_features_that_would_change_are_not_written(tmp_path, enliven, monkeypatch, capsys):
    path, new = tmp_path / 'old.safetensors', tmp_path / 'new.safetensors'
    write(path, enliven, 16)
    monkeypatch.setattr('forecast_detector_ros.cli.prune.MOST_DIFFERENCE', -1.0)
    assert main(['--checkpoint', str(path), '--output', str(new)]) == 1
    assert 'the features would change by' in capsys.readouterr().err
    assert not new.exists()


def test_weights_keep_their_type(tmp_path):
    new = tmp_path / 'new.safetensors'
    assert main(['--output', str(new)]) == 0
    assert {value.dtype for key, value in load_file(new).items()
            if value.is_floating_point()} == {torch.float16}


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main(['--checkpoint', str(tmp_path / 'none.safetensors'), '--output',
                 str(tmp_path / 'new.safetensors')]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'none.safetensors' in error
    assert main(['--output', str(tmp_path / 'new.onnx')]) == 2
    assert 'must end in .safetensors' in capsys.readouterr().err


def test_other_widths_are_refused(tmp_path, capsys):
    config = NetworkConfig(classes=1, input_size=(64, 64), width=0.35, feature_channels=(8,),
                           lstm_channels=(8,), extra_channels=(8,))
    path = tmp_path / 'narrow.safetensors'
    save_checkpoint(path, ForecastDetector(config), Card('narrow', ('cat',), config))
    with pytest.raises(SystemExit):
        main(['--checkpoint', str(path)])
    capsys.readouterr()
    assert main(['--checkpoint', str(path), '--output', str(tmp_path / 'new.safetensors')]) == 2
    assert 'width' in capsys.readouterr().err
