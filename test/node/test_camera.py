# SPDX-License-Identifier: Apache-2.0
"""Check that the schedule neither drifts nor sends bursts."""
from forecast_detector_ros.node.camera import FrameSchedule
import pytest


def test_lateness_does_not_add_up() -> None:
    schedule = FrameSchedule(25.0, origin=100.0)
    for _ in range(1000):
        assert schedule.advance(schedule.due + 0.01) == pytest.approx(0.01)
    assert schedule.due == pytest.approx(100.0 + 1000 / 25.0)
    assert schedule.stalls == 0


def test_stall_moves_the_frames_behind_it() -> None:
    schedule = FrameSchedule(10.0, origin=0.0)
    schedule.advance(0.0)
    assert schedule.advance(5.0) == 0.0
    assert schedule.due == pytest.approx(5.1)
    assert schedule.stalls == 1


def test_early_frame_is_not_late() -> None:
    schedule = FrameSchedule(10.0, origin=1.0)
    assert schedule.advance(0.9) == 0.0
