# SPDX-License-Identifier: Apache-2.0
"""A small network is trained on synthetic videos and reaches a minimum AP50."""

import json
from pathlib import Path

from forecast_detector_ros.annotations.synthetic import write_synthetic_videos
from forecast_detector_ros.cli.evaluate_accuracy import main as evaluate
from forecast_detector_ros.cli.train import main as train
from forecast_detector_ros.detector.checkpoint import load_checkpoint, shipped_checkpoint
import pytest
from safetensors.torch import save_file
import torch
from torchvision.models import mobilenet_v2
import yaml

RECIPE = Path(__file__).parents[2] / 'config' / 'training' / 'synthetic.yaml'


def write_backbone(path):
    """Write the backbone of shipped weights under torchvision's names."""
    network, _ = load_checkpoint(shipped_checkpoint('small'))
    # The weights of pruned channels stay zero.
    weights = {key: torch.ones_like(value) if key.endswith('running_var')
               else torch.zeros_like(value)
               for key, value in mobilenet_v2(weights=None).state_dict().items()}
    for key, value in network.extractor.state_dict().items():
        part, block, rest = key.split('.', 2)
        if part == 'projections':
            continue
        # The extractor is divided inside torchvision's block 14; see `Extractor`.
        block = {'expand': '14.conv.0', 'project': '14.conv'}.get(block, block)
        weights[f'features.{block}.{rest}'][tuple(map(slice, value.shape))] = value
    save_file(weights, path)
    return path


@pytest.mark.slow
def test_small_network_learns_moving_shapes(tmp_path):
    size = (96, 96)
    write_synthetic_videos(tmp_path / 'train', seed=0, videos=400, frames=1, size=size)
    truth = write_synthetic_videos(tmp_path / 'held_out', seed=1, videos=40, frames=2, size=size)
    # The recipe is shortened, with smaller pictures and a trained backbone.
    recipe = yaml.safe_load(RECIPE.read_text())
    recipe['network'].update(input_size=list(size), width=1.0, tail=False)
    recipe['prune'] = True
    recipe['stages'][0].update(epochs=6, warmup=10, ema=0.95)
    recipe['stages'][0]['groups']['backbone']['lr'] = 0.001
    recipe['stages'][1]['clips_per_epoch'] = 80
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
    assert train([str(tmp_path / 'recipe.yaml'), '--data', str(tmp_path / 'train'), '--output',
                  str(tmp_path / 'run'), '--backbone',
                  str(write_backbone(tmp_path / 'backbone.safetensors'))]) == 0
    for stage, policy in (('baseline', 'always_read'), ('encoders', 'always_read'),
                          ('encoders', 'alternate(1)')):
        result = tmp_path / 'result.json'
        assert evaluate(['--checkpoint', str(tmp_path / 'run' / f'{stage}.safetensors'),
                         '--annotations', str(truth), '--policy', policy,
                         '--output', str(result)]) == 0
        found = json.loads(result.read_text())
        # A trained network reaches about 0.5, an untrained one 0.03.
        assert found['ap50']['mean'] > 0.3, (stage, policy, found['ap50'])
    _, card = load_checkpoint(tmp_path / 'run' / 'encoders.safetensors')
    _, shipped = load_checkpoint(shipped_checkpoint('small'))
    assert card.network.expansion_channels == shipped.network.expansion_channels
    # The last run forecasts every second frame.
    assert found['read_ratio'] == 0.5
