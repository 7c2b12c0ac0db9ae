# SPDX-License-Identifier: Apache-2.0
"""Compare the encoder and its bottleneck LSTM with the equations of the papers."""

from forecast_detector_ros.model.encoder import (
    BottleneckLSTM,
    CELL_LIMIT,
    Encoder,
    LSTMState,
    SpatialAttention,
)
import numpy as np
import pytest
import torch

CHANNELS, HIDDEN, HEIGHT, WIDTH = 5, 4, 6, 3


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def relu6(x):
    return np.minimum(np.maximum(x, 0.0), 6.0)


def depthwise(x, kernels):
    """Correlate every channel of (C, h, w) with its own 3x3 kernel; zeros outside the map."""
    result = np.zeros_like(x)
    channels, height, width = x.shape
    for c in range(channels):
        for row in range(height):
            for column in range(width):
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        if 0 <= row + dy < height and 0 <= column + dx < width:
                            result[c, row, column] += (kernels[c, 0, dy + 1, dx + 1]
                                                       * x[c, row + dy, column + dx])
    return result


def separable(x, weights, name):
    mixed = depthwise(x, weights[f'{name}.0.weight'])
    return (np.einsum('oc,chw->ohw', weights[f'{name}.1.weight'][:, :, 0, 0], mixed)
            + weights[f'{name}.1.bias'][:, None, None])


def reference_step(x, hidden, cell, weights):
    b = relu6(separable(np.concatenate((x, hidden)), weights, 'bottleneck'))
    i, f, o, j = np.split(separable(b, weights, 'gates'), 4)
    cell = np.clip(sigmoid(f) * cell + sigmoid(i) * relu6(j), 0.0, 6.0)
    return sigmoid(o) * relu6(cell), cell


def zero_state(lstm, x):
    zeros = x.new_zeros(len(x), lstm.gates[1].out_channels // 4, *x.shape[2:])
    return LSTMState(zeros, zeros)


def test_equations_over_several_steps(enliven):
    lstm = enliven(BottleneckLSTM(CHANNELS, HIDDEN)).double()
    weights = {key: value.numpy() for key, value in lstm.state_dict().items()}
    inputs = 6 * torch.rand(4, 1, CHANNELS, HEIGHT, WIDTH, dtype=torch.float64)
    state = zero_state(lstm, inputs[0])
    hidden = cell = np.zeros((HIDDEN, HEIGHT, WIDTH))
    for x in inputs:
        with torch.no_grad():
            state = lstm(x, state)
        hidden, cell = reference_step(x[0].numpy(), hidden, cell, weights)
        np.testing.assert_allclose(state.hidden[0].numpy(), hidden, atol=1e-12)
        np.testing.assert_allclose(state.cell[0].numpy(), cell, atol=1e-12)
    assert hidden.max() > 0.05, 'weights that give nothing would prove nothing'


def test_cell_stays_below_its_limit(enliven):
    lstm = enliven(BottleneckLSTM(CHANNELS, HIDDEN))
    with torch.no_grad():
        lstm.gates[1].bias[:2 * HIDDEN] = 8.0     # forget gate and input gate open
        lstm.gates[1].bias[3 * HIDDEN:] = 8.0
        x = 6 * torch.rand(1, CHANNELS, HEIGHT, WIDTH)
        state = zero_state(lstm, x)
        for _ in range(5):
            state = lstm(x, state)
    assert state.cell.max() == CELL_LIMIT
    assert state.hidden.min() >= 0.0 and state.hidden.max() <= CELL_LIMIT


def test_remembers_at_the_start():
    lstm = BottleneckLSTM(CHANNELS, HIDDEN)
    bias = lstm.gates[1].bias.detach()
    assert bias[HIDDEN:2 * HIDDEN].tolist() == [1.0] * HIDDEN
    assert bias.sum() == HIDDEN
    # If the input is zero, the forget gate is sigmoid(1) and the output gate is 0.5.
    cell = torch.full((1, HIDDEN, HEIGHT, WIDTH), 2.0)
    with torch.no_grad():
        lstm.bottleneck[1].bias.zero_()
        after = lstm(torch.zeros(1, CHANNELS, HEIGHT, WIDTH),
                     LSTMState(torch.zeros_like(cell), cell))
    kept = 2.0 / (1.0 + np.exp(-1.0))
    assert after.cell.numpy() == pytest.approx(kept)
    assert after.hidden.numpy() == pytest.approx(kept / 2)


def test_state_passed_in_is_not_changed(enliven):
    lstm = enliven(BottleneckLSTM(CHANNELS, HIDDEN))
    state = LSTMState(*torch.rand(2, 1, HIDDEN, HEIGHT, WIDTH))
    before = [tensor.clone() for tensor in state]
    with torch.no_grad():
        lstm(torch.rand(1, CHANNELS, HEIGHT, WIDTH), state)
    assert all(torch.equal(a, b) for a, b in zip(state, before))


def reference_attention(x, kernel, norm):
    """Weight (C, h, w) by CBAM's equation 3, position by position."""
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


def test_untrained_residual_returns_its_input():
    encoder = Encoder(6, 4, 'residual').eval()
    x = 6 * torch.rand(1, 6, 5, 5)
    with torch.no_grad():
        out, state = encoder(x, zero_state(encoder.lstm, x))
    assert torch.equal(out, x)
    assert state.hidden.max() > 0


def test_untrained_residual_learns():
    encoder = Encoder(6, 4, 'residual').train()
    x = 5 * torch.rand(1, 6, 5, 5) + 0.5
    out, _ = encoder(x, zero_state(encoder.lstm, x))
    out.square().sum().backward()
    assert encoder.expand.weight.grad.abs().max() > 0


def test_residual_is_input_plus_change_of_the_lstm(enliven):
    encoder = enliven(Encoder(6, 4, 'residual')).eval()
    x = 6 * torch.rand(1, 6, 5, 5)
    with torch.no_grad():
        out, state = encoder(x, zero_state(encoder.lstm, x))
        weight, bias = encoder.expand.weight[:, :, 0, 0], encoder.expand.bias
        delta = torch.einsum('oc,bchw->bohw', weight, state.hidden) + bias.view(1, -1, 1, 1)
    torch.testing.assert_close(out, (x + delta).clamp(0, 6))
    assert not torch.equal(out, x)


def test_direct_of_the_same_width_is_the_lstm(enliven):
    encoder = enliven(Encoder(6, 6, 'direct')).eval()
    x = 6 * torch.rand(1, 6, 5, 5)
    with torch.no_grad():
        out, state = encoder(x, zero_state(encoder.lstm, x))
        expected = encoder.lstm(encoder.attention(x), zero_state(encoder.lstm, x))
    assert torch.equal(out, expected.hidden)
    assert torch.equal(state.cell, expected.cell)


def test_direct_of_another_width_has_the_channels_of_the_feature(enliven):
    encoder = enliven(Encoder(6, 4, 'direct')).eval()
    x = 6 * torch.rand(2, 6, 5, 7)
    with torch.no_grad():
        out, state = encoder(x, zero_state(encoder.lstm, x))
        conv = encoder.expand[0]
        expected = (torch.einsum('oc,bchw->bohw', conv.weight[:, :, 0, 0], state.hidden)
                    + conv.bias.view(1, -1, 1, 1)).clamp(0, 6)
    assert out.shape == x.shape and state.hidden.shape == (2, 4, 5, 7)
    torch.testing.assert_close(out, expected)


def test_unknown_mode():
    with pytest.raises(ValueError, match=r"forecast_mode is 'nearest'.*direct.*residual"):
        Encoder(6, 4, 'nearest')
