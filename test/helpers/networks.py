# SPDX-License-Identifier: Apache-2.0
"""Small networks and short videos, for the tests of the evaluation."""

from collections.abc import Callable
import json
from pathlib import Path

import cv2
from forecast_detector_ros.detector.backends.torch_backend import TorchBackend
from forecast_detector_ros.detector.checkpoint import Card
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.evaluation.sequences import load_davis, Video
from forecast_detector_ros.model.config import NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import pytest
import torch

CLASSES = ('cat', 'dog', 'train')
SIZE = (48, 80)  #: (height, width) of the pictures


@pytest.fixture(autouse=True)
def one_thread():
    """Keep results independent of the number of threads, and the machine usable."""
    torch.set_num_threads(1)


#: Keys of a small network that forecasts the motion of boxes.
MOTION = {'levels': (8, 16, 32), 'tail': False, 'feature_channels': (8, 12, 20),
          'lstm_channels': (8, 8, 10), 'neck_channels': 16, 'forecast_mode': 'motion'}


@pytest.fixture
def make_network(enliven) -> Callable[..., ForecastDetector]:
    """Give a function that builds a network whose scores spread and whose encoders matter."""
    def make(**changes) -> ForecastDetector:
        values = {'classes': 3, 'input_size': (64, 96), 'width': 0.35, 'levels': (16, 32),
                  'feature_channels': (12, 20), 'lstm_channels': (8, 10),
                  'extra_channels': (16, 8), 'scheduler_channels': 8,
                  'forecast_mode': 'residual', **changes}
        network = enliven(ForecastDetector(NetworkConfig(**values))).eval()
        for predictor in network.head.classification:
            # Scores shall be spread out, not all close to one.
            predictor[-1].weight.data.mul_(0.2)
        return network
    return make


@pytest.fixture
def card(make_network) -> Card:
    """Give the card of such a network."""
    return Card('small', CLASSES, make_network().config)


@pytest.fixture
def detector(make_network, card) -> Detector:
    """Give a detector on the CPU."""
    return Detector(TorchBackend(make_network()), card)


@pytest.fixture
def davis(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes a folder of sequences: name -> (category, number of frames)."""
    def write(still: bool = False, **sequences: tuple[object, int]) -> Path:
        root = tmp_path / 'davis'
        for seed, (name, (category, count)) in enumerate(sequences.items()):
            (root / name / 'frames').mkdir(parents=True)
            rng, frames = np.random.default_rng(seed), []
            for number in range(count):
                if not still or not number:
                    picture = rng.integers(0, 256, (*SIZE, 3), np.uint8)
                file = f'frames/{number:05d}.png'
                cv2.imwrite(str(root / name / file), picture)
                frames.append({'file': file, 'box_xywh': [5 + number, 10, 30, 20]})
            (root / name / 'boxes.json').write_text(json.dumps({
                'category': category, 'width': SIZE[1], 'height': SIZE[0], 'frames': frames}))
        return root
    return write


@pytest.fixture
def videos(davis) -> Callable[..., list[Video]]:
    """Do the same and load it."""
    return lambda **arguments: load_davis(davis(**arguments), CLASSES)
