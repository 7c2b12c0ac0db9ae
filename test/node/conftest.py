# SPDX-License-Identifier: Apache-2.0
"""Run a detector node and a client on a real graph, in one process and one thread."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from forecast_detector_ros.detector.checkpoint import Card, save_checkpoint
from forecast_detector_ros.model.config import NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
import pytest
import rclpy
from rclpy.parameter import Parameter
import torch

from .graph import Graph

CLASSES = ('cat', 'dog', 'train')

CONFIG = NetworkConfig(
    classes=3, input_size=(64, 96), width=0.35, levels=(16, 32), feature_channels=(12, 20),
    lstm_channels=(8, 10), extra_channels=(16, 8), scheduler_channels=8)


@pytest.fixture(scope='session')
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint with random weights and many detections; tests must not change it."""
    path = tmp_path_factory.mktemp('checkpoint') / 'small.safetensors'
    write_checkpoint(path, CLASSES)
    return path


def write_checkpoint(path: Path, classes: tuple[str, ...], seed: int = 0) -> None:
    """Write a checkpoint with random weights."""
    generator = torch.Generator().manual_seed(seed)
    network = ForecastDetector(CONFIG).eval()
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            deviation = 1.6 / weight[0].numel() ** 0.5
            weight.data.normal_(0.0, deviation, generator=generator)
        elif name.endswith('bias'):
            weight.data.uniform_(-0.3, 0.3, generator=generator)
    save_checkpoint(path, network, Card(path.stem, classes, CONFIG, score_threshold=0.4),
                    torch.float32)


@pytest.fixture
def graph(ros_domain: int, small_checkpoint: Path) -> Iterator[Graph]:
    """Return a graph with rclpy's default context on the domain of the test."""
    rclpy.init(args=[])
    made = Graph(small_checkpoint)
    yield made
    made.close()
    rclpy.try_shutdown()


@pytest.fixture
def active(graph: Graph) -> Callable[..., Graph]:
    """Return a function that activates a detector with some parameters."""
    def make(**parameters: object) -> Graph:
        graph.add_detector([Parameter(name, value=value) for name, value in parameters.items()])
        graph.activate()
        return graph
    return make
