# SPDX-License-Identifier: Apache-2.0
"""Provide small networks, short annotated videos, and a replay with given latencies."""

from forecast_detector_ros.detector.policy import AlternatePolicy
from forecast_detector_ros.jobs.engine import Interrupt
from forecast_detector_ros.replay.arrivals import GivenLatency
from forecast_detector_ros.replay.bag_replay import BagJob, replay_bag, ReplayOptions
import pytest

from ..helpers.networks import card, davis, detector, make_network, one_thread, videos

__all__ = ['card', 'davis', 'detector', 'make_network', 'one_thread', 'videos']

OPTIONS = ReplayOptions(changes={'policy': AlternatePolicy(1), 'score_threshold': 0.3},
                        latency=GivenLatency(250.0, 60.0))


@pytest.fixture
def replay(detector, tmp_path):
    """Return a function that replays a bag into tmp_path / 'out' and returns the summary."""
    def run(path, options=OPTIONS, interrupt=None, progress=lambda done, total: None):
        job = BagJob(path, path.stem, tmp_path / 'out' / path.stem)
        return replay_bag(detector, options, job, progress, interrupt or Interrupt())
    return run
