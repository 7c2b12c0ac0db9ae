# SPDX-License-Identifier: Apache-2.0
"""What the tests of several commands need."""

from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.detector.checkpoint import Card, save_checkpoint
from forecast_detector_ros.model.config import NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
import pytest
import torch


@pytest.fixture(scope='session')
def write_checkpoint(tmp_path_factory):
    """Give a function that writes a small network with random weights for some classes."""
    def write(classes):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        network = ForecastDetector(NetworkConfig(
            classes=len(classes), input_size=(64, 96), width=0.35, levels=(32,),
            feature_channels=(16,), lstm_channels=(8,), extra_channels=(8,),
            scheduler_channels=8, forecast_mode='residual'))
        path = tmp_path_factory.mktemp('checkpoint') / 'small.safetensors'
        save_checkpoint(path, network,
                        Card('small', classes, network.config, score_threshold=0.2))
        return path
    return write


@pytest.fixture(scope='module')
def checkpoint(write_checkpoint):
    """Write a small network with random weights for the classes of synthetic videos."""
    return write_checkpoint(CLASSES)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """Write two synthetic videos of five frames; give the annotation file."""
    return write_synthetic_videos(tmp_path_factory.mktemp('videos'), videos=2, frames=5)
