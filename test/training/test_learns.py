# SPDX-License-Identifier: Apache-2.0
"""The whole way: synthetic videos, training by command, checkpoint, runtime, AP50."""

import json
from pathlib import Path

from forecast_detector_ros.annotations.synthetic import write_synthetic_videos
from forecast_detector_ros.cli.evaluate_accuracy import main as evaluate
from forecast_detector_ros.cli.train import main as train
import pytest

RECIPE = Path(__file__).parents[2] / 'config' / 'training' / 'synthetic.yaml'


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_small_network_learns_moving_shapes(tmp_path):
    size = (128, 128)
    write_synthetic_videos(tmp_path / 'train', seed=0, videos=800, frames=1, size=size)
    truth = write_synthetic_videos(tmp_path / 'held_out', seed=1, videos=60, frames=2, size=size)
    assert train([str(RECIPE), '--data', str(tmp_path / 'train'),
                  '--output', str(tmp_path / 'run')]) == 0
    for stage, policy in (('baseline', 'always_read'), ('encoders', 'always_read'),
                          ('encoders', 'alternate(1)')):
        result = tmp_path / 'result.json'
        assert evaluate(['--checkpoint', str(tmp_path / 'run' / f'{stage}.safetensors'),
                         '--annotations', str(truth), '--policy', policy,
                         '--output', str(result)]) == 0
        found = json.loads(result.read_text())
        assert found['ap50']['mean'] > 0.9, (stage, policy, found['ap50'])
    # Every second frame of the last run was not read.
    assert found['read_ratio'] == 0.5
