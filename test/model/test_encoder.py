# SPDX-License-Identifier: Apache-2.0
"""Spatial attention by hand, and the two ways an encoder makes its output."""

from forecast_detector_ros.model.encoder import Encoder, SpatialAttention
import numpy as np
import pytest
import torch


def reference_attention(x, kernel, norm):
    """Weight (C, h, w) as CBAM's equation 3 says, position by position."""
    pooled = np.stack((x.max(0), x.mean(0)))
    padded = np.pad(pooled, ((0, 0), (3, 3), (3, 3)))
    result = np.empty_like(x)
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            score = (padded[:, row:row + 7, column:column + 7] * kernel[0]).sum()
            score = ((score - norm['running_mean'][0])
                     / np.sqrt(norm['running_var'][0] + 1e-5) * norm['weight'][0]
                     + norm['bias'][0])
            result[:, row, column] = x[:, row, column] / (1.0 + np.exp(-score))
    return result


def test_attention_by_hand(enliven):
    attention = enliven(SpatialAttention()).eval().double()
    x = 6 * torch.rand(2, 4, 5, 9, dtype=torch.float64)
    norm = {key: value.numpy() for key, value in attention.norm.state_dict().items()}
    with torch.no_grad():
        out = attention(x).numpy()
    for i in range(2):
        expected = reference_attention(x[i].numpy(), attention.conv.weight.detach().numpy(),
                                       norm)
        np.testing.assert_allclose(out[i], expected, atol=1e-12)


def zero_state(encoder, x):
    return encoder.lstm.initial_state(x.shape[0], tuple(x.shape[2:]), x)


def test_untrained_residual_hands_its_input_on():
    encoder = Encoder(6, 4, 'residual').eval()
    x = 6 * torch.rand(1, 6, 5, 5)
    with torch.no_grad():
        out, state = encoder(x, zero_state(encoder, x))
    assert torch.equal(out, x)
    assert state.hidden.max() > 0


def test_untrained_residual_learns():
    encoder = Encoder(6, 4, 'residual').train()
    x = 5 * torch.rand(1, 6, 5, 5) + 0.5
    out, _ = encoder(x, zero_state(encoder, x))
    out.square().sum().backward()
    assert encoder.expand.weight.grad.abs().max() > 0


def test_residual_is_input_plus_change_of_the_lstm(enliven):
    encoder = enliven(Encoder(6, 4, 'residual')).eval()
    x = 6 * torch.rand(1, 6, 5, 5)
    with torch.no_grad():
        out, state = encoder(x, zero_state(encoder, x))
        weight, bias = encoder.expand.weight[:, :, 0, 0], encoder.expand.bias
        delta = torch.einsum('oc,bchw->bohw', weight, state.hidden) + bias.view(1, -1, 1, 1)
    torch.testing.assert_close(out, (x + delta).clamp(0, 6))
    assert not torch.equal(out, x)


def test_direct_of_the_same_width_is_the_lstm(enliven):
    encoder = enliven(Encoder(6, 6, 'direct')).eval()
    x = 6 * torch.rand(1, 6, 5, 5)
    with torch.no_grad():
        out, state = encoder(x, zero_state(encoder, x))
        expected = encoder.lstm(encoder.attention(x), zero_state(encoder, x))
    assert torch.equal(out, expected.hidden)
    assert torch.equal(state.cell, expected.cell)


def test_direct_of_another_width_comes_back_to_the_channels(enliven):
    encoder = enliven(Encoder(6, 4, 'direct')).eval()
    x = 6 * torch.rand(2, 6, 5, 7)
    with torch.no_grad():
        out, state = encoder(x, zero_state(encoder, x))
        conv = encoder.expand[0]
        expected = (torch.einsum('oc,bchw->bohw', conv.weight[:, :, 0, 0], state.hidden)
                    + conv.bias.view(1, -1, 1, 1)).clamp(0, 6)
    assert out.shape == x.shape and state.hidden.shape == (2, 4, 5, 7)
    torch.testing.assert_close(out, expected)


def test_unknown_mode():
    with pytest.raises(ValueError, match=r"forecast_mode is 'nearest'.*direct.*residual"):
        Encoder(6, 4, 'nearest')
