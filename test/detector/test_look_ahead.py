# SPDX-License-Identifier: Apache-2.0
"""Check the detections expected at the next image: the period and the forecast."""

from dataclasses import replace

from forecast_detector_ros.detector.backends.torch_backend import TorchBackend
from forecast_detector_ros.detector.checkpoint import Card
from forecast_detector_ros.detector.detector import check_ahead, Detector, look_ahead, step_stamped
from forecast_detector_ros.detector.policy import AlternatePolicy, AlwaysReadPolicy
from forecast_detector_ros.detector.settings import DetectorSettings, SettingsError
from forecast_detector_ros.detector.stream import Period, StreamState
from forecast_detector_ros.model.config import VARIANTS
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import pytest
import torch

from .conftest import CLASSES, CONFIG, MOTION

MS = 1_000_000
START = 1_700_000_000 * 10**9


def period(stamps_ms, dropped=None, **options):
    """Return the period after images with these stamps, in ms after START."""
    found = Period()
    for stamp, missing in zip(stamps_ms, dropped or [0] * len(stamps_ms), strict=True):
        found = found.after(START + round(stamp * MS), missing, **options)
    return found


def test_period_is_unknown_before_three_gaps():
    for count in range(4):
        assert period([40 * i for i in range(count)]).known_ns is None
    assert period([40 * i for i in range(4)]).known_ns == 40 * MS


def test_period_of_a_jittering_camera_is_close_to_its_own():
    rng = np.random.default_rng(0)
    stamps = np.arange(200) * 33.3 + rng.normal(0, 1.0, 200)
    found = Period()
    for number, stamp in enumerate(stamps):
        found = found.after(START + round(stamp * MS))
        if number >= 9:
            assert found.known_ns == pytest.approx(33.3 * MS, abs=2.5 * MS)


@pytest.mark.parametrize('known', [True, False])
def test_dropped_images_do_not_make_the_period_longer(known):
    # Four of the last nine gaps contain a drop, which is counted or not.
    frames = [0, 1, 3, 4, 6, 7, 9, 10, 12, 13]
    missing = [0, *(b - a - 1 for a, b in zip(frames, frames[1:]))] if known else None
    assert period([50 * frame for frame in frames], missing).known_ns == 50 * MS


def test_drops_that_are_counted_may_be_in_every_gap():
    # Without the counts, the median of the gaps is 150 ms.
    assert period([150 * i for i in range(8)], [0] + [2] * 7).known_ns == 50 * MS


def test_camera_that_changes_its_rate_is_followed():
    stamps = [*range(0, 1000, 100), *range(920, 1120, 20)]
    assert period(stamps[:10]).known_ns == 100 * MS
    assert period(stamps[:14]).known_ns == 100 * MS
    assert period(stamps[:15]).known_ns == 20 * MS


@pytest.mark.parametrize('jump', [-10, -100_000, 1001, 60_000])
def test_jump_of_the_clock_forgets_the_period(jump):
    known = period([40 * i for i in range(6)])
    after = known.after(known.stamp_ns + jump * MS)
    assert after == Period(known.stamp_ns + jump * MS)
    assert after.known_ns is None
    for _ in range(3):
        after = after.after(after.stamp_ns + 25 * MS)
    assert after.known_ns == 25 * MS


def test_longest_gap_is_max_gap_s():
    stamps = [2000 * i for i in range(5)]
    assert period(stamps).known_ns is None
    assert period(stamps, max_gap_s=2.0).known_ns == 2000 * MS


def test_repeated_stamp_does_not_change_the_period():
    assert period([0, 0, 40, 40, 40, 80, 120, 120]) == period([0, 40, 80, 120])


@pytest.mark.parametrize('stamps', [(0, 40, 80, 120, 160), (0, 40, 9000, 9040, 9080, 9120)])
def test_period_counts_images_that_were_not_processed(
        detector, picture, stamps):
    state = StreamState()
    for number, stamp in enumerate(stamps):
        state = state.arrived(START + stamp * MS)
        if number % 2 == 0:
            _, state = step_stamped(detector, picture(), START + stamp * MS, state,
                                    DetectorSettings())
    assert state.period == period(stamps)
    assert state.period.known_ns == 40 * MS


@pytest.fixture
def moving(settle):
    """Return a detector that forecasts motion that is not zero."""
    torch.manual_seed(0)
    network = settle(ForecastDetector(replace(CONFIG, **MOTION)))
    for predictor in network.motion.encoder.predictors:
        torch.nn.init.normal_(predictor[2].weight, std=0.05)
    return Detector(TorchBackend(network), Card('small', CLASSES, network.config))


@pytest.mark.parametrize('kind', ['features', 'motion'])
def test_expected_detections_are_those_of_a_forecast_frame(kind, detector, moving, picture,
                                                           poison):
    chosen = moving if kind == 'motion' else detector
    settings = DetectorSettings(AlwaysReadPolicy(), score_threshold=0.2)
    forced = replace(settings, policy=AlternatePolicy(3))
    state = StreamState()
    for number, stamp in enumerate((0, 40, 80)):
        _, state = step_stamped(chosen, picture(number), START + stamp * MS, state, settings)
    shown = []
    for wait in (0.04, 0.1):
        found = look_ahead(chosen, state, settings, wait)
        expected, _ = step_stamped(chosen, poison(), START + round((80 + 1e3 * wait) * MS), state,
                                   forced)
        assert found.decision.kind == expected.decision.kind == 'forecast'
        for name in ('boxes', 'labels', 'scores'):
            np.testing.assert_array_equal(getattr(found.detections, name),
                                          getattr(expected.detections, name))
        assert len(found.detections) and found.preprocess_ms == 0.0
        shown.append(found.detections.boxes)
    # Only the forecast of motion depends on the time.
    assert np.array_equal(*shown) == (kind == 'features')


def test_looking_ahead_does_not_change_the_stream(detector, picture):
    settings = DetectorSettings(AlternatePolicy(1), score_threshold=0.2)
    states = [StreamState(), StreamState()]
    for number in range(5):
        results = []
        for place in range(2):
            result, states[place] = step_stamped(detector, picture(number),
                                                 START + 40 * number * MS, states[place], settings)
            results.append(result)
            if place:
                look_ahead(detector, states[place], settings, 0.04)
        plain, asked = (item.detections for item in results)
        for name in ('boxes', 'labels', 'scores', 'ids'):
            np.testing.assert_array_equal(getattr(plain, name), getattr(asked, name))
    assert states[0].tracks.next_id == states[1].tracks.next_id


def test_known_objects_keep_their_numbers_and_new_ones_have_none(moving, picture):
    settings = DetectorSettings(AlwaysReadPolicy(), score_threshold=0.2, max_detections=20)
    state = StreamState()
    for number in range(3):
        result, state = step_stamped(moving, picture(), START + 40 * number * MS, state, settings)
    found = look_ahead(moving, state, settings, 0.04).detections
    known = set(result.detections.ids.tolist())
    assert known & set(found.ids.tolist())
    assert all(number == -1 or number < state.tracks.next_id for number in found.ids)
    more = look_ahead(moving, state, replace(settings, max_detections=100), 0.04).detections
    assert len(more) > len(found) and -1 in more.ids
    positive = more.ids[more.ids >= 0]
    assert len(set(positive.tolist())) == len(positive)


def test_number_of_consecutive_forecasts_does_not_matter(detector, picture):
    settings = DetectorSettings(score_threshold=0.2)
    _, state = step_stamped(detector, picture(), START, StreamState(), settings)
    state = replace(state, consecutive_forecasts=5000)
    assert look_ahead(detector, state, settings, 0.1).decision.kind == 'forecast'


def test_nothing_is_expected_before_the_first_frame(detector):
    with pytest.raises(ValueError, match='before the first frame'):
        look_ahead(detector, StreamState(), DetectorSettings(), 0.1)


@pytest.mark.parametrize('mode', ['residual', 'motion'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_detectors_that_would_repeat_their_boxes_are_refused(variant, mode, detector):
    changes = MOTION if mode == 'motion' else {}
    config = replace(detector.card.network, variant=variant, **changes)
    network = ForecastDetector(config).eval()
    other = Detector(TorchBackend(network), replace(detector.card, network=config))
    if variant in ('baseline', 'recurrent', 'persistence'):
        with pytest.raises(SettingsError, match=f'small forecasts nothing: .* is {variant}'):
            check_ahead(other)
        return
    check_ahead(other)
