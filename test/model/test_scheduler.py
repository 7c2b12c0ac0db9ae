# SPDX-License-Identifier: Apache-2.0
"""Compare the correlation with loops, and the scheduler with its formulas."""

from math import exp, sqrt

from forecast_detector_ros.model.scheduler import (
    confidence,
    Correlation,
    FORECAST_INDEX,
    READ_INDEX,
    Scheduler,
)
import numpy as np
import pytest
import torch


def reference_correlation(a, b, d):
    channels, height, width = a.shape
    result = np.zeros(((2 * d + 1) ** 2, height, width))
    for y in range(height):
        for x in range(width):
            for dy in range(-d, d + 1):
                for dx in range(-d, d + 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        p, q = a[:, y, x], b[:, y + dy, x + dx]
                        norms = sqrt((p * p).sum()) * sqrt((q * q).sum())
                        k = (dy + d) * (2 * d + 1) + dx + d
                        result[k, y, x] = (p * q).sum() / norms
    return result


@pytest.mark.parametrize('size, d', [((5, 8), 3), ((4, 3), 1), ((1, 2), 3), ((6, 6), 0)])
def test_correlation_by_loops(size, d):
    a, b = torch.rand(2, 2, 7, *size, dtype=torch.float64)
    layer = Correlation(size, d).double()
    out = layer(a, b)
    assert out.shape == (2, layer.channels, *size)
    for i in range(2):
        expected = reference_correlation(a[i].numpy(), b[i].numpy(), d)
        np.testing.assert_allclose(out[i].numpy(), expected, atol=1e-12)


def test_correlation_follows_a_shift():
    a = torch.randn(1, 16, 7, 7)
    b = a.roll((1, -2), (2, 3))                  # (y, x) has moved to (y + 1, x - 2)
    out = Correlation((7, 7), 3)(a, b)[0, :, 3, 3]
    assert out.argmax() == (1 + 3) * 7 + (-2 + 3)
    assert out.max() == pytest.approx(1.0, abs=1e-6)


def test_correlation_of_nothing_is_zero():
    zeros = torch.zeros(1, 4, 3, 3)
    assert Correlation((3, 3))(zeros, torch.rand(1, 4, 3, 3)).abs().max() == 0.0


def test_trains_after_inference_and_export():
    scheduler = Scheduler((4, 4), hidden=4)
    maps = 6 * torch.rand(2, 1, 8, 4, 4)
    with torch.inference_mode():
        scheduler(*maps)
    exported = torch.export.export(scheduler, tuple(maps)).module()
    forecast = maps[0].clone().requires_grad_()
    logits = scheduler(forecast, maps[1])
    logits[:, 0].sum().backward()
    assert forecast.grad is not None and scheduler.fc.weight.grad.abs().max() > 0
    torch.testing.assert_close(exported(*maps), logits.detach())


@pytest.mark.parametrize('norm', [True, False])
def test_layers_after_the_correlation(norm, enliven):
    scheduler = enliven(Scheduler((5, 6), displacement=2, hidden=4, norm=norm)).double().eval()
    forecast, reference = 6 * torch.rand(2, 1, 8, 5, 6, dtype=torch.float64)
    x = torch.from_numpy(reference_correlation(forecast[0].numpy(), reference[0].numpy(), 2))
    if norm:
        bn = scheduler.norm
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        x = (x - bn.running_mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None]
    for conv in (scheduler.convs[0], scheduler.convs[2]):
        # A 3x3 convolution as nine shifted matrix products.
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
        x = sum(torch.einsum('oc,chw->ohw', conv.weight[:, :, i, j],
                             padded[:, i:i + 5, j:j + 6]) for i in range(3) for j in range(3))
        x = (x + conv.bias.view(-1, 1, 1)).clamp(min=0)
    expected = scheduler.fc.weight @ x.flatten(1).mean(1) + scheduler.fc.bias
    torch.testing.assert_close(scheduler(forecast, reference)[0], expected)


def test_confidence_is_the_softmax_of_forecast():
    logits = torch.tensor([[0.0, 0.0], [1.0, 3.0], [30.0, -30.0]])
    assert (READ_INDEX, FORECAST_INDEX) == (0, 1)
    expected = [0.5, exp(3) / (exp(1) + exp(3)), 0.0]
    assert confidence(logits).tolist() == pytest.approx(expected)
