# SPDX-License-Identifier: Apache-2.0
"""Features that optical flow moves."""

import tracemalloc

import cv2
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.evaluation.forecast_backends import displace, Displacement
from forecast_detector_ros.evaluation.forecast_quality import BY_FLOW, measure_forecasts
import numpy as np
import pytest
import torch

SIZE = (96, 128)


def texture():
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def shifted(x, y):
    """Return the texture, moved by x pixels to the right and y down."""
    matrix = np.float32([[1, 0, x], [0, 1, y]])
    return cv2.warpAffine(texture(), matrix, SIZE[::-1], borderMode=cv2.BORDER_REFLECT)


def inner(flow):
    return flow[:, 1:-1, 1:-1].flatten(1)


def test_flow_points_back_to_the_read_frame():
    flow = Displacement(extrapolate=False)
    for step in range(3):
        flow.see(shifted(4 * step, -2 * step))
    flow.since([0])
    # The motion since frame 0 is 8 pixels right and 4 up; a cell has 16 pixels.
    found = inner(flow((6, 8))[0])
    torch.testing.assert_close(found.mean(1), torch.tensor([-8 / 16, 4 / 16]), atol=0.02, rtol=0)
    flow.since([1])
    torch.testing.assert_close(inner(flow((3, 4))[0]).mean(1), torch.tensor([-4 / 32, 2 / 32]),
                               atol=0.02, rtol=0)


def test_extrapolation_ignores_later_frames():
    flow = Displacement(extrapolate=True)
    flow.see(texture())
    flow.since([0])
    assert not flow((6, 8)).any(), 'nothing is known of motion before the second frame'
    flow.see(shifted(3, 0))
    flow.since([1])
    for _ in range(2):
        flow.see(shifted(0, 30))
    torch.testing.assert_close(inner(flow((6, 8))[0]).mean(1), torch.tensor([-6 / 16, 0.0]),
                               atol=0.02, rtol=0)
    flow.start()
    flow.see(texture())
    flow.since([0])
    assert not flow((6, 8)).any()


@pytest.mark.parametrize('extrapolate', [False, True])
def test_a_long_sequence_takes_no_more_memory_than_a_short_one(extrapolate):
    flow, taken = Displacement(extrapolate), []
    tracemalloc.start()
    for number in range(24):
        flow.see(shifted(number, 0))
        flow.since(range(max(0, number - 3), number))
        if number:
            flow((6, 8))
        taken.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    one_flow = 2 * 4 * SIZE[0] * SIZE[1]
    assert taken[-1] - taken[8] < one_flow


def test_displacement_by_whole_cells_is_a_shift():
    feature = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 6
    torch.testing.assert_close(displace(feature, torch.zeros(2, 2, 5, 6)), feature)
    flow = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand(2, 2, 5, 6)
    torch.testing.assert_close(displace(feature, flow)[:, :, 2:, :5], feature[:, :, :3, 1:])
    half = displace(feature, torch.full((2, 2, 5, 6), 0.5))
    assert half.min() >= 0 and half.max() <= 6


@pytest.mark.parametrize('variant', ['complete', 'persistence'])
def test_without_motion_both_equal_held_features(make_network, card, videos, variant):
    network = make_network(variant=variant)
    (item,) = videos(walk=('dog', 1))
    item = type(item)(item.name, item.frames * 4, item.truth)
    (quality,) = measure_forecasts(network, card, [item], DetectorSettings(score_threshold=0.05),
                                   2, optical_flow=True).strides
    assert set(BY_FLOW) < set(quality.rows)
    for rival in BY_FLOW:
        for mine, held in zip(quality.rows[rival], quality.rows['held']):
            assert mine.found.tolist() == held.found.tolist()
    (quality,) = measure_forecasts(network, card, [item], DetectorSettings(), 1).strides
    assert not set(BY_FLOW) & set(quality.rows)
