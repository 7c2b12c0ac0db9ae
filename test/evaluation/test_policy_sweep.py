# SPDX-License-Identifier: Apache-2.0
"""A sweep of many policies gives the same results as separate runs."""

from dataclasses import replace

from forecast_detector_ros.detector.backends.torch_backend import TorchBackend
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.detector.policy import (
    AlternatePolicy,
    AlwaysReadPolicy,
    BudgetPolicy,
    ThresholdPolicy,
)
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.evaluation.policy_sweep import run_policies
from forecast_detector_ros.evaluation.runs import run_video
from forecast_detector_ros.evaluation.sequences import EvaluationError
from forecast_detector_ros.model.ssdlite import SSDLiteHead
import numpy as np
import pytest

from ..helpers.networks import MOTION

POLICIES = (AlwaysReadPolicy(), AlternatePolicy(2), ThresholdPolicy(0.0))


@pytest.fixture
def counted(monkeypatch):
    """Return a list with an entry for each run of the head."""
    runs = []
    forward = SSDLiteHead.forward
    monkeypatch.setattr(SSDLiteHead, 'forward', lambda self, *rest: (
        runs.append(1), forward(self, *rest))[1])
    return runs


def equal(first, second):
    return all(np.array_equal(getattr(first, name), getattr(second, name))
               for name in ('frames', 'boxes', 'labels', 'scores'))


@pytest.mark.parametrize('variant', ['complete', 'persistence', 'baseline'])
def test_every_policy_agrees_with_its_separate_run(make_network, card, videos, variant):
    items = videos(a=('cat', 5), b=('dog', 3))
    network = make_network(variant=variant)
    settings = DetectorSettings(max_consecutive_forecasts=2)
    runs = run_policies(network, card, items, settings, POLICIES)
    assert list(runs) == [str(policy) for policy in POLICIES]
    assert runs['alternate(2)'][0].read.tolist() == [True, False, False, True, False]
    detector = Detector(TorchBackend(network), card)
    for policy in POLICIES:
        for item, run in zip(items, runs[str(policy)]):
            alone = run_video(detector, item, replace(settings, policy=policy), collect=True)
            assert equal(run.collected, alone.collected)
            assert np.array_equal(run.read, alone.read)


def test_moved_boxes_agree_and_the_head_runs_once_a_frame(
        make_network, card, videos, counted):
    items = videos(a=('cat', 5), b=('dog', 3))
    network = make_network(**MOTION)
    settings = DetectorSettings(max_consecutive_forecasts=2)
    runs = run_policies(network, card, items, settings, POLICIES)
    assert len(counted) == 8
    detector = Detector(TorchBackend(network), card)
    for policy in POLICIES:
        for item, run in zip(items, runs[str(policy)]):
            alone = run_video(detector, item, replace(settings, policy=policy), collect=True)
            assert equal(run.collected, alone.collected)


def test_held_features_differ_on_frames_that_are_not_read(make_network, card, videos):
    items = videos(a=('cat', 4))
    settings = DetectorSettings()
    network = make_network()
    own = run_policies(network, card, items, settings, POLICIES[:2])
    held = run_policies(network, card, items, settings, POLICIES[:2], hold=True)
    assert equal(own['always_read'][0].collected, held['always_read'][0].collected)
    assert not equal(own['alternate(2)'][0].collected, held['alternate(2)'][0].collected)


def test_policy_that_depends_on_time_is_refused(make_network, card, videos):
    with pytest.raises(EvaluationError, match=r'budget\(60.0\) depends on time'):
        run_policies(make_network(), card, videos(a=('cat', 2)), DetectorSettings(),
                     [AlwaysReadPolicy(), BudgetPolicy(60.0)])
