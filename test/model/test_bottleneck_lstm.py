# SPDX-License-Identifier: Apache-2.0
"""The bottleneck LSTM against its equations, written out in NumPy."""

from forecast_detector_ros.model.bottleneck_lstm import BottleneckLSTM, CELL_LIMIT, LSTMState
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


def test_equations_over_several_steps(enliven):
    lstm = enliven(BottleneckLSTM(CHANNELS, HIDDEN)).double()
    weights = {key: value.numpy() for key, value in lstm.state_dict().items()}
    inputs = 6 * torch.rand(4, 1, CHANNELS, HEIGHT, WIDTH, dtype=torch.float64)
    state = lstm.initial_state(1, (HEIGHT, WIDTH), inputs)
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
        lstm.gates[1].bias[:2 * HIDDEN] = 8.0     # remember everything and let everything in
        lstm.gates[1].bias[3 * HIDDEN:] = 8.0
        x = 6 * torch.rand(1, CHANNELS, HEIGHT, WIDTH)
        state = lstm.initial_state(1, (HEIGHT, WIDTH), x)
        for _ in range(5):
            state = lstm(x, state)
    assert state.cell.max() == CELL_LIMIT
    assert state.hidden.min() >= 0.0 and state.hidden.max() <= CELL_LIMIT


def test_remembers_at_the_start():
    lstm = BottleneckLSTM(CHANNELS, HIDDEN)
    bias = lstm.gates[1].bias.detach()
    assert bias[HIDDEN:2 * HIDDEN].tolist() == [1.0] * HIDDEN
    assert bias.sum() == HIDDEN
    # With an input of zeros only the forget gate is left, sigmoid(1), and the output gate, 0.5.
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
