# SPDX-License-Identifier: Apache-2.0
"""Check that dropping constant channels does not change the outputs."""
from forecast_detector_ros.model.config import EXPANSIONS, NetworkConfig
from forecast_detector_ros.model.extractor import expansion_channels, Extractor
from forecast_detector_ros.model.network import ForecastDetector
from forecast_detector_ros.model.pruning import drop_constant, MULTIPLE, used_channels
import pytest
import torch

LEVELS = (8, 16, 32)


@pytest.fixture
def extractor(enliven) -> Extractor:
    # In float64, because random networks amplify rounding errors.
    return enliven(Extractor(0.35, LEVELS, (8, 12, 16), tail=False)).eval().double()


@torch.no_grad()
def silence(layer, channels, value: float) -> None:
    """Make some outputs of convolution and BatchNorm constant; `value` is before ReLU6."""
    layer[0].weight[channels] = 0.0
    norm = layer[1]
    scale = norm.weight[channels] / (norm.running_var[channels] + norm.eps).sqrt()
    norm.bias[channels] = value + norm.running_mean[channels] * scale


@torch.no_grad()
def features(extractor: Extractor) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    return extractor(torch.randn(2, 3, 96, 65, generator=generator, dtype=torch.float64))


def assert_same(found, expected, tolerance: float = 1e-6) -> None:
    for new, old in zip(found, expected, strict=True):
        assert old.std() > 0.01, 'maps that are all the same would prove nothing'
        torch.testing.assert_close(new, old, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize('place', range(len(EXPANSIONS)))
@pytest.mark.parametrize('value', [-1.0, 2.5, 9.0])
def test_constant_channels_are_dropped_and_features_stay(place, value, extractor):
    block = extractor.expansions()[place]
    gone, before = [1, 8, 11], used_channels(block)
    silence(block.expand, gone, 1.5)
    silence(block.depthwise, gone, value)
    expected, left = features(extractor), used_channels(block)
    assert left == before - len(gone)
    drop_constant(block, left)
    assert block.channels == left
    assert_same(features(extractor), expected)


def test_zeros_after_the_expansion_have_no_border_and_are_dropped(extractor):
    block = extractor.expansions()[4]
    before = used_channels(block)
    silence(block.expand, [2], -0.5)
    expected = features(extractor)
    drop_constant(block, before - 1)
    assert block.expand[0].out_channels == before - 1
    assert_same(features(extractor), expected)


def test_other_constants_have_a_border_and_stay(extractor):
    block = extractor.expansions()[4]
    with torch.no_grad():
        block.depthwise[0].weight[2] = 0.3
    before = used_channels(block)
    silence(block.expand, [2], 1.5)
    assert used_channels(block) == before


def test_channels_of_a_level_stay(extractor):
    block = extractor.expansions()[13]
    assert block.readers and used_channels(block) == block.channels
    silence(block.depthwise, [5], 2.0)
    assert used_channels(block) == block.channels
    silence(block.expand, [5], 1.0)
    assert used_channels(block) == block.channels - 1


def test_saturated_channels_are_constant(extractor):
    block = extractor.expansions()[2]
    before, norm = used_channels(block), block.depthwise[1]
    with torch.no_grad():
        norm.bias[1] = 500.0
        norm.bias[6] = -500.0
    expected = features(extractor)
    assert used_channels(block) == before - 2
    drop_constant(block, before - 2)
    assert_same(features(extractor), expected)


def test_all_blocks_in_multiples(extractor):
    for block in extractor.expansions():
        silent = range(min(17, block.channels // 2))
        silence(block.expand, silent, 1.0)
        silence(block.depthwise, silent, 1.0)
    before = [block.channels for block in extractor.expansions()]
    used = [used_channels(block) for block in extractor.expansions()]
    expected = features(extractor)
    extractor.drop_constant()
    left = tuple(block.channels for block in extractor.expansions())
    assert left == tuple(min(old, max(MULTIPLE, -(-count // MULTIPLE) * MULTIPLE))
                         for count, old in zip(used, before))
    assert all(count < old for count, old in zip(left[1:], before[1:]))
    assert_same(features(extractor), expected)
    again = Extractor(0.35, LEVELS, (8, 12, 16), False, left).eval().double()
    again.load_state_dict(extractor.state_dict())
    assert all(map(torch.equal, features(again), features(extractor)))


def test_features_that_are_an_expansion_keep_all_channels(enliven):
    extractor = enliven(Extractor(0.35, (16, 32), (192, 16))).eval()
    block = extractor.expansions()[13]
    silence(block.expand, range(100), 1.0)
    silence(block.depthwise, range(100), 1.0)
    extractor.drop_constant()
    assert extractor.expansions()[13].channels == 192


def test_pruned_networks_can_be_trained(extractor):
    for block in extractor.expansions():
        silent = range(min(17, block.channels // 2))
        silence(block.depthwise, silent, 1.0)
        silence(block.expand, silent, 1.0)
    extractor.drop_constant()
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    sum(feature.square().mean() for feature in extractor.train()(image)).backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all()
               for parameter in extractor.parameters())


def test_more_channels_than_mobilenet_has_are_refused():
    counts = [block.channels for block in Extractor(0.35).expansions()]
    for wrong in ((*counts[:-1], counts[-1] + 1), tuple(counts[:-1]), (0, *counts[1:])):
        with pytest.raises(ValueError, match='^expansion_channels is'):
            Extractor(0.35, expansion_channels=wrong)


def test_channels_of_the_unpruned_mobilenet():
    found = tuple(block.channels for block in Extractor(1.0).expansions())
    assert found == EXPANSIONS


def test_channels_are_derived_from_the_weights():
    config = NetworkConfig(input_size=(64, 64), tail=False, feature_channels=(16,),
                           lstm_channels=(8,), extra_channels=(8,))
    network = ForecastDetector(config)
    assert expansion_channels(network.state_dict()) is None
    network.drop_constant_channels()
    assert network.config == config
    block = network.extractor.expansions()[15]
    silence(block.depthwise, range(16), 1.0)
    network.drop_constant_channels()
    assert network.config.expansion_channels == (*EXPANSIONS[:15], 944, 960)
    assert expansion_channels(network.state_dict()) == network.config.expansion_channels
    again = ForecastDetector(network.config)
    again.load_state_dict(network.state_dict())
    with pytest.raises(KeyError):
        expansion_channels({})
