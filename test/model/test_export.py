# SPDX-License-Identifier: Apache-2.0
"""Check that each step can be exported separately, with fixed shapes."""

from forecast_detector_ros.model.network import NetworkState
import pytest
import torch
from torch import nn


class ReadStep(nn.Module):
    """The read step as a module's forward."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image, state):
        return tuple(self.network.read_step(image, NetworkState(*state)))


class ForecastStep(nn.Module):
    """The forecast step as a module's forward."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, state):
        return tuple(self.network.forecast_step(NetworkState(*state)))


def flat(value):
    return [value] if isinstance(value, torch.Tensor) else [x for v in value for x in flat(v)]


@pytest.mark.parametrize('values', [
    {}, {'forecast_mode': 'direct', 'state_update': 'hold', 'upsample_channels': 6,
         'levels': (32,), 'feature_channels': (20,), 'lstm_channels': (10,)}])
def test_export(values, build, pictures):
    network = build(**values)
    image, later = pictures(), pictures(seed=1)
    with torch.no_grad():
        state = network.read_step(image, network.initial_state()).state
        read = torch.export.export(ReadStep(network), (image, state)).module()
        forecast = torch.export.export(ForecastStep(network), (state,)).module()
        expected = network.read_step(later, state)
        for a, b in zip(flat(read(later, state)), flat(expected), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        state = expected.state
        for a, b in zip(flat(forecast(state)), flat(network.forecast_step(state)), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_forecast_step_has_no_part_of_the_extractor(build):
    network = build()
    with torch.no_grad():
        exported = torch.export.export(ForecastStep(network), (network.initial_state(),))
    used = {node.name for node in exported.graph.nodes if node.users}
    fed = [spec.target for spec in exported.graph_signature.input_specs
           if spec.target is not None and spec.arg.name in used]
    assert fed and not [name for name in fed if name.startswith('network.extractor')]
