# SPDX-License-Identifier: Apache-2.0
"""Make small networks for the tests, with random weights in every part."""

from collections.abc import Callable
from typing import Any

from forecast_detector_ros.model.config import NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
import pytest
import torch
from torch import nn

SMALL: dict[str, Any] = {
    'classes': 3, 'input_size': (64, 96), 'width': 0.35, 'levels': (16, 32),
    'feature_channels': (12, 20), 'lstm_channels': (8, 10), 'extra_channels': (16, 8),
    'scheduler_channels': 8, 'forecast_mode': 'residual'}


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread, because the number of threads changes results and loads the machine."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def build(enliven: Callable[..., nn.Module]) -> Callable[..., ForecastDetector]:
    """Return a function that builds a small network in evaluation mode; keys override SMALL."""
    def builder(seed: int = 0, **values: Any) -> ForecastDetector:
        network = ForecastDetector(NetworkConfig(**{**SMALL, **values}))
        enliven(network, seed)
        return network.eval()
    return builder


@pytest.fixture
def pictures() -> Callable[..., torch.Tensor]:
    """Return a function that draws ``(B, H, W, 3)`` uint8 pictures."""
    def draw(batch: int = 1, size: tuple[int, int] = (64, 96), seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, (batch, *size, 3), generator=generator, dtype=torch.uint8)
    return draw
