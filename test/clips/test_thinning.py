# SPDX-License-Identifier: Apache-2.0
"""Thinning: the paper's bounds, for every video, clip and draw."""

from forecast_detector_ros.clips.thinning import draw_indices, largest_thinning, THINNING
from hypothesis import given
from hypothesis import strategies as st
import numpy as np


def test_the_bound_is_the_papers():
    assert THINNING == 25
    # floor((l - 1) / n) - 1
    assert largest_thinning(101, 10, 25) == 9
    assert largest_thinning(100, 10, 25) == 8
    # r
    assert largest_thinning(1000, 10, 25) == 25
    # never below 0
    assert largest_thinning(5, 10, 25) == 0
    assert largest_thinning(1000, 10, 0) == 0


@given(length=st.integers(1, 400), clip_length=st.integers(1, 20), extra=st.booleans(),
       limit=st.integers(0, 30), seed=st.integers(0, 2 ** 32))
def test_frames_are_evenly_spaced_and_within_the_video(length, clip_length, extra, limit, seed):
    indices = draw_indices(length, clip_length, extra, limit, np.random.default_rng(seed))
    assert len(indices) == clip_length + extra
    assert indices.min() >= 0 and indices.max() < length
    steps = np.diff(indices)
    if length >= clip_length + extra:
        bound = max(0, min((length - 1) // clip_length - 1, limit))
        assert (steps == steps[:1]).all()
        assert all(1 <= step <= bound + 1 for step in steps)
    else:
        # Too short: every frame of the video is there, in order, and only the ends repeat.
        assert set(indices.tolist()) == set(range(length))
        assert set(steps.tolist()) <= {0, 1}
        repeated = {int(index) for index, step in zip(indices, steps) if step == 0}
        assert repeated <= {0, length - 1}


def test_every_stride_and_every_start_is_drawn():
    rng = np.random.default_rng(0)
    draws = [draw_indices(41, 10, True, 25, rng) for _ in range(2000)]
    strides = [int(draw[1] - draw[0]) for draw in draws]
    assert set(strides) == {1, 2, 3, 4}
    counts = np.bincount(strides)[1:]
    assert counts.min() > 0.85 * 500
    assert {int(draw[0]) for draw, stride in zip(draws, strides) if stride == 1} == set(range(31))
    assert max(int(draw[-1]) for draw in draws) == 40


def test_consecutive_frames_without_thinning():
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert (np.diff(draw_indices(300, 10, True, 0, rng)) == 1).all()
