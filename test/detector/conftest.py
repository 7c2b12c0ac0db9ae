# SPDX-License-Identifier: Apache-2.0
"""Make a small detector with random weights and many detections."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from forecast_detector_ros.detector.backends.torch_backend import TorchBackend
from forecast_detector_ros.detector.checkpoint import Card, load_checkpoint, save_checkpoint
from forecast_detector_ros.detector.detector import Detector, StepResult
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import StreamState
from forecast_detector_ros.images.frame import Frame, Pixels
from forecast_detector_ros.model.config import NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import pytest
import torch

CONFIG = NetworkConfig(
    classes=3, input_size=(64, 96), width=0.35, levels=(16, 32), feature_channels=(12, 20),
    lstm_channels=(8, 10), extra_channels=(16, 8), scheduler_channels=8,
    forecast_mode='residual')

#: Changes of `CONFIG` for a network that forecasts motion.
MOTION = {'forecast_mode': 'motion', 'levels': (8, 16, 32), 'feature_channels': (8, 12, 20),
          'lstm_channels': (4, 8, 10), 'motion_channels': 8}

CLASSES = ('cat', 'dog', 'train')


def images(seed: int = 0, batch: int = 1) -> np.ndarray:
    """Draw pictures of the network's input size, ``(batch, 64, 96, 3)`` uint8."""
    return np.random.default_rng(seed).integers(0, 256, (batch, 64, 96, 3), dtype=np.uint8)


def run(detector: Detector, frames: list[Frame], settings: DetectorSettings,
        state: StreamState | None = None) -> tuple[list[StepResult], StreamState]:
    """Process frames one after the other; return the results and the last state."""
    state = StreamState.initial() if state is None else state
    results = []
    for frame in frames:
        result, state = detector.step(frame, state, settings)
        results.append(result)
    return results, state


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread, because the number of threads changes results and loads the machine."""
    torch.set_num_threads(1)


@pytest.fixture
def network(enliven) -> ForecastDetector:
    """Return the network as a PyTorch module."""
    return enliven(ForecastDetector(CONFIG)).eval()


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory: pytest.TempPathFactory, enliven) -> Path:
    """Return the path of a checkpoint in float32; tests must not change it."""
    path = tmp_path_factory.mktemp('checkpoint') / 'small.safetensors'
    network = enliven(ForecastDetector(CONFIG)).eval()
    save_checkpoint(path, network, Card('small', CLASSES, network.config), torch.float32)
    return path


@pytest.fixture
def detector(checkpoint: Path) -> Detector:
    """Return a detector that runs the network by eager PyTorch on the CPU."""
    network, card = load_checkpoint(checkpoint)
    return Detector(TorchBackend(network), card)


@pytest.fixture
def mover(enliven) -> Detector:
    """Return a detector that forecasts motion and keeps the scores of the last read."""
    config = replace(CONFIG, levels=(8, 16, 32), feature_channels=(8, 12, 20),
                     lstm_channels=(8, 8, 10), forecast_mode='motion', motion_channels=8)
    network = enliven(ForecastDetector(config)).eval()
    return Detector(TorchBackend(network), Card('mover', CLASSES, config))


@pytest.fixture
def picture() -> Callable[..., Frame]:
    """Return a function that makes frames with a random picture that loads only once."""
    def make(seed: int = 0, size: tuple[int, int] = (48, 80), told: bool = True) -> Frame:
        array = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        loaded = []

        def load() -> Pixels:
            assert not loaded, 'a frame must be loaded at most once'
            loaded.append(True)
            return Pixels(array, 'bgr')

        return Frame(size if told else None, load)
    return make


@pytest.fixture
def poison() -> Callable[..., Frame]:
    """Return a function that makes frames that fail when they are loaded."""
    def load() -> Pixels:
        raise AssertionError('the picture of a forecast frame was looked at')

    return lambda size=(48, 80): Frame(size, load)
