# SPDX-License-Identifier: Apache-2.0
"""The fast road through frozen blocks gives the features of the network itself."""

from dataclasses import replace

from forecast_detector_ros.model.network import ForecastDetector
from forecast_detector_ros.model.presets import preset
from forecast_detector_ros.training.frozen import FrozenFeatures
import pytest
import torch


@pytest.fixture
def network() -> ForecastDetector:
    torch.manual_seed(0)
    return ForecastDetector(replace(
        preset('features', 2), input_size=(64, 96), width=0.35, feature_channels=(16, 24),
        lstm_channels=(8, 12), extra_channels=(16,))).eval()


@pytest.fixture
def images() -> torch.Tensor:
    # More than one chunk, and a last one that is not full.
    return torch.randint(0, 256, (6, 3, 64, 96), dtype=torch.uint8)


@pytest.mark.parametrize('blocks', [None, 1, 7])
def test_features_are_those_of_the_network(network, images, blocks):
    expected = network.extract(network.normalise(images))
    for wanted, found in zip(expected, FrozenFeatures(network, blocks)(images)):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_blocks_that_are_not_frozen_get_gradients_and_the_others_none(network, images):
    features = FrozenFeatures(network, 7)(images)
    sum(level.sum() for level in features).backward()
    for name, parameter in network.extractor.named_parameters():
        part, index = name.split('.')[:2]
        frozen = part == 'stem' and index.isdigit() and int(index) < 7
        assert (parameter.grad is None) == frozen, name


def test_bfloat16_stays_near(network, images):
    expected = network.extract(network.normalise(images))
    found = FrozenFeatures(network, None, torch.bfloat16)(images)
    for wanted, level in zip(expected, found):
        assert level.dtype == torch.bfloat16
        assert not level.requires_grad
        assert (level.float() - wanted).abs().mean() < 0.02 * wanted.abs().mean()
