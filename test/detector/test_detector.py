# SPDX-License-Identifier: Apache-2.0
"""Compare the detector with the network; check its use of frames and its state."""

from dataclasses import replace
from math import isnan

import cv2
from forecast_detector_ros.detector.backends.torch_backend import TorchBackend
from forecast_detector_ros.detector.checkpoint import RuntimeConfigError
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.detector.policy import (
    AlternatePolicy,
    AlwaysReadPolicy,
    FORECAST,
    READ,
    ThresholdPolicy,
)
from forecast_detector_ros.detector.processing import Postprocessor
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import StreamState
from forecast_detector_ros.images.frame import Frame, FrameError, Pixels
from forecast_detector_ros.model.network import ForecastDetector
from forecast_detector_ros.model.scheduler import confidence
from forecast_detector_ros.model.ssdlite import postprocess
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import torch

from .conftest import run

SIZE = (48, 80)
EAGER = DetectorSettings(ThresholdPolicy(0.0), score_threshold=0.3, max_consecutive_forecasts=3)


def test_second_frame_is_read_if_nothing_was_expected(enliven, detector, picture):
    config = replace(detector.card.network, scheduler_reference='expected')
    network = enliven(ForecastDetector(config)).eval()
    detector = Detector(TorchBackend(network), replace(detector.card, network=config))
    frames = [picture(seed) for seed in range(6)]
    results, state = run(detector, frames[:3], EAGER)
    assert [result.decision.kind for result in results] == [READ, READ, FORECAST]
    assert isnan(results[1].decision.confidence) and results[2].decision.confidence > 0.0
    # The state of another frame size cannot be compared, either.
    results, _ = run(detector, [picture(3, (60, 90)), picture(4, (60, 90)),
                                picture(5, (60, 90))], EAGER, state)
    assert [result.decision.kind for result in results] == [READ, READ, FORECAST]
    assert results[0].decision.reason == 'size_changed'
    assert results[1].decision.reason == 'second_frame'


def test_a_forecast_that_keeps_scores_does_not_choose_candidates(mover, picture, monkeypatch):
    settings = DetectorSettings(AlternatePolicy(2), score_threshold=0.25)
    _, state = run(mover, [picture(0), picture(1)], replace(settings, policy=AlwaysReadPolicy()))
    seen = []
    monkeypatch.setattr(Postprocessor, 'choose', lambda *args: seen.append(args))
    for seed in (2, 3):
        result, after = mover.step(picture(seed), state, settings)
        assert result.decision.kind == FORECAST and len(result.detections)
        assert after.candidates is state.candidates and not seen
        state = after


@pytest.mark.parametrize('change', [
    {'score_threshold': 0.8}, {'score_threshold': 0.2}, {'classes': ('dog',)},
    {'nms_threshold': 0.9}, {'vote_threshold': 0.5}, {'max_detections': 2}])
def test_changed_settings_apply_to_the_next_forecast(change, mover, picture):
    lenient = DetectorSettings(AlternatePolicy(2), score_threshold=0.1, max_detections=1000)
    (result, *_), _ = run(mover, [picture(0)], lenient)
    # Thresholds are quantiles, because scores of random weights differ between machines.
    before, after = (
        replace(lenient, **{**keys, 'score_threshold': float(np.quantile(
            result.detections.scores, keys.get('score_threshold', 0.5)))})
        for keys in ({}, change))
    _, state = run(mover, [picture(0)], before)
    result, _ = mover.step(picture(2), state, after)
    expected, _ = mover.step(picture(2), replace(state, candidates=None), after)
    former, _ = mover.step(picture(2), state, before)
    assert result.decision.kind == FORECAST
    np.testing.assert_array_equal(result.detections.boxes, expected.detections.boxes)
    np.testing.assert_array_equal(result.detections.scores, expected.detections.scores)
    assert not np.array_equal(result.detections.boxes, former.detections.boxes)


def pixels(frame):
    return frame.load().array


@pytest.mark.parametrize('policy', [
    AlternatePolicy(2), ThresholdPolicy(0.5), ThresholdPolicy(0.0), AlwaysReadPolicy()])
@pytest.mark.parametrize('wanted', [(), ('dog', 'train')])
def test_detector_gives_the_outputs_of_the_network(policy, wanted, detector, network, picture):
    settings = DetectorSettings(policy, score_threshold=0.25, max_detections=30, classes=wanted)
    results, _ = run(detector, [picture(seed) for seed in range(8)], settings)
    mask = torch.tensor([name in wanted for name in detector.labels]) if wanted else None
    scale = np.array([80 / 96, 48 / 64, 80 / 96, 48 / 64], np.float32)
    network_state, score = network.initial_state(), float('nan')
    for seed, result in enumerate(results):
        with torch.no_grad():
            if result.decision.kind == READ:
                image = cv2.resize(pixels(picture(seed)), (96, 64))
                output = network.read_step(torch.from_numpy(image)[None], network_state)
            else:
                output = network.forecast_step(network_state)
            expected = postprocess(output.head.logits[0], output.head.offsets[0],
                                   network.anchors, (64, 96), 0.25, 0.45, 30, mask)
        # The exponentials of NumPy and PyTorch differ in the last digit.
        np.testing.assert_allclose(result.detections.scores, expected.scores, atol=1e-6)
        np.testing.assert_array_equal(result.detections.labels, expected.labels)
        np.testing.assert_allclose(
            result.detections.boxes,
            np.minimum(expected.boxes.numpy() * scale, np.float32([80, 48, 80, 48])), atol=1e-4)
        assert len(result.detections) > 0
        assert result.decision.confidence == score or (isnan(score) and seed == 0)
        network_state, score = output.state, float(confidence(output.decision)[0])


def test_types(detector, picture):
    (result,), _ = run(detector, [picture()], EAGER)
    found = result.detections
    assert (found.boxes.dtype, found.labels.dtype, found.scores.dtype) == (
        np.float32, np.int64, np.float32)
    assert found.boxes.shape == (len(found), 4) and found.labels.shape == found.scores.shape
    assert (np.diff(found.scores) <= 0).all() and (found.scores > 0.3).all()


def test_no_detection_is_an_empty_result(detector, picture):
    (result,), _ = run(detector, [picture()], replace(EAGER, score_threshold=1.0))
    assert result.detections.boxes.shape == (0, 4) and len(result.detections) == 0


def test_forecast_frames_are_never_loaded(detector, picture, poison):
    frames = [picture(0), poison(), poison(), poison(), picture(1), poison()]
    results, state = run(detector, frames, EAGER)
    assert [(r.decision.kind, r.decision.reason) for r in results] == [
        (READ, 'first_frame'), (FORECAST, 'scheduler'), (FORECAST, 'scheduler'),
        (FORECAST, 'scheduler'), (READ, 'max_consecutive'), (FORECAST, 'scheduler')]
    assert [r.decision.consecutive_forecasts for r in results] == [0, 1, 2, 3, 0, 1]
    assert all((r.preprocess_ms == 0.0) == (r.decision.kind == FORECAST) for r in results)
    assert all(r.inference_ms > 0 for r in results)
    with pytest.raises(AssertionError, match='looked at'):
        detector.step(poison(), state, replace(EAGER, policy=AlwaysReadPolicy()))


def test_threshold_one_never_forecasts(detector, picture):
    results, _ = run(detector, [picture(seed) for seed in range(6)],
                     replace(EAGER, policy=ThresholdPolicy(1.0)))
    assert [r.decision.kind for r in results] == [READ] * 6


def test_threshold_zero_forecasts_all_but_the_forced_reads(detector, picture):
    settings = replace(EAGER, max_consecutive_forecasts=4)
    results, _ = run(detector, [picture(seed) for seed in range(11)], settings)
    assert [r.decision.kind for r in results] == [READ, *[FORECAST] * 4] * 2 + [READ]


def test_reset_forgets_the_state(detector, picture):
    first, state = run(detector, [picture(0), picture(1)], replace(EAGER,
                                                                   policy=AlwaysReadPolicy()))
    again, _ = run(detector, [picture(0)], EAGER, StreamState.initial('reset'))
    assert again[0].decision.reason == 'reset' and isnan(again[0].decision.confidence)
    np.testing.assert_array_equal(again[0].detections.boxes, first[0].detections.boxes)
    # In a running stream, the scores of the same picture depend on earlier frames.
    late, _ = run(detector, [picture(0)], replace(EAGER, policy=AlwaysReadPolicy()), state)
    assert not np.array_equal(late[0].detections.scores, first[0].detections.scores)


@pytest.mark.parametrize('told', [True, False])
def test_size_change_forces_a_read_and_a_new_state(told, detector, picture):
    """The size of a compressed frame is unknown, so only a read notices the change."""
    policy = EAGER if told else replace(EAGER, policy=AlwaysReadPolicy())
    _, state = run(detector, [picture(0, told=told)], EAGER)
    other = picture(1, size=(60, 40), told=told)
    result, after = detector.step(other, state, policy)
    fresh, _ = detector.step(picture(1, size=(60, 40)), StreamState.initial(), EAGER)
    assert (result.decision.kind, result.decision.reason) == (READ, 'size_changed')
    assert result.decision.consecutive_forecasts == 0
    np.testing.assert_array_equal(result.detections.boxes, fresh.detections.boxes)
    np.testing.assert_array_equal(result.detections.scores, fresh.detections.scores)
    assert after.frame_size == (60, 40)


def test_frames_without_size_are_forecast(detector, picture, poison):
    results, _ = run(detector, [picture(0, told=False), poison(None)], EAGER)
    assert results[1].decision.kind == FORECAST
    boxes = results[1].detections.boxes
    assert len(boxes) and boxes[:, 2].max() <= 80 and boxes[:, 3].max() <= 48


@pytest.fixture(scope='module')
def grey(checkpoint):
    """Return a detector and its boxes on a grey picture of the network's input size."""
    detector = Detector.load(checkpoint, backend='torch')
    (result,), _ = run(detector, [grey_frame(64, 96)], EAGER)
    assert len(result.detections) > 5
    return detector, result.detections.boxes


def grey_frame(height, width):
    array = np.broadcast_to(np.uint8(90), (height, width, 3))
    return Frame((height, width), lambda: Pixels(array, 'bgr'))


@settings(max_examples=40)
@given(height=st.integers(2, 1000), width=st.integers(2, 1000))
def test_boxes_are_in_pixels_of_the_incoming_picture(grey, height, width):
    # A resized grey picture stays grey, so only the scale of the boxes differs.
    detector, reference = grey
    (result,), _ = run(detector, [grey_frame(height, width)], EAGER)
    boxes = result.detections.boxes
    sides = np.array([width, height, width, height])
    assert (boxes >= 0).all() and (boxes <= sides).all()
    np.testing.assert_allclose(boxes / sides, reference / [96, 64, 96, 64], atol=1e-6)


def test_broken_frame_leaves_the_stream_as_it_was(detector, picture):
    settings = replace(EAGER, policy=AlwaysReadPolicy())
    _, state = run(detector, [picture(0)], settings)

    def broken():
        raise FrameError('step is 3, must be at least 240')

    with pytest.raises(FrameError, match='^step is 3'):
        detector.step(Frame(SIZE, broken), state, settings)
    after, _ = run(detector, [picture(1)], settings, state)
    undisturbed, _ = run(detector, [picture(0), picture(1)], settings)
    np.testing.assert_array_equal(after[0].detections.boxes, undisturbed[1].detections.boxes)
    np.testing.assert_array_equal(after[0].detections.scores, undisturbed[1].detections.scores)


@pytest.mark.parametrize('count', [2, 3])
def test_a_batch_gives_the_results_of_single_steps(count, detector, picture):
    settings = replace(EAGER, policy=AlternatePolicy(1))
    single = [StreamState.initial()] * count
    joint = list(single)
    for i in range(4):
        frames = [[picture(10 * s + i) for s in range(count)] for _ in range(2)]
        together = detector.step_many(frames[0], joint, settings)
        joint = [state for _, state in together]
        for s, (result, _) in enumerate(together):
            expected, single[s] = detector.step(frames[1][s], single[s], settings)
            assert result.decision.kind == expected.decision.kind
            assert (result.batch, expected.batch) == (count, 1)
            assert result.decision.confidence == pytest.approx(
                expected.decision.confidence, abs=1e-4, nan_ok=True)
            np.testing.assert_array_equal(result.detections.labels, expected.detections.labels)
            np.testing.assert_allclose(
                result.detections.scores, expected.detections.scores, atol=1e-4)
            np.testing.assert_allclose(
                result.detections.boxes, expected.detections.boxes, atol=1e-2)


def test_each_decision_has_a_batch_of_its_own(detector, picture, poison):
    settings = replace(EAGER, policy=AlternatePolicy(1))
    _, running = run(detector, [picture(0)], settings)
    fresh = StreamState.initial()

    def broken():
        raise FrameError('cut off')

    outcomes = detector.step_many(
        [poison(), picture(1), Frame(SIZE, broken), poison(), picture(2)],
        [running, fresh, fresh, running, fresh], settings)
    assert isinstance(outcomes[2], FrameError)
    results = [outcomes[index][0] for index in (0, 1, 3, 4)]
    assert [(r.decision.kind, r.batch) for r in results] == [
        (FORECAST, 2), (READ, 2), (FORECAST, 2), (READ, 2)]


def test_no_frames_no_results(detector):
    assert detector.step_many([], [], EAGER) == []


def test_every_frame_needs_a_state(detector, picture):
    with pytest.raises(ValueError):
        detector.step_many([picture()], [], EAGER)


def test_costs_are_kept_in_the_state(detector, picture, poison):
    settings = replace(EAGER, target_rate=10.0)
    result, state = detector.step(picture(), StreamState.initial(), settings)
    assert state.pace.read_ms == result.preprocess_ms + result.inference_ms
    result, state = detector.step(poison(), state, settings)
    assert state.pace.forecast_ms == result.inference_ms


def test_streams_do_not_touch_each_other(detector, picture):
    alone = [run(detector, [picture(10 * s + i) for i in range(4)], EAGER)[0] for s in (0, 1)]
    states = [StreamState.initial()] * 2
    for i in range(4):
        for s in (0, 1):
            result, states[s] = detector.step(picture(10 * s + i), states[s], EAGER)
            expected = alone[s][i]
            assert result.decision.kind == expected.decision.kind
            np.testing.assert_array_equal(result.detections.boxes, expected.detections.boxes)


def test_warm_up_changes_nothing(detector, picture):
    before, _ = run(detector, [picture(0), picture(1)], EAGER)
    detector.warm_up()
    after, _ = run(detector, [picture(0), picture(1)], EAGER)
    for a, b in zip(before, after):
        np.testing.assert_array_equal(a.detections.boxes, b.detections.boxes)


def test_warm_up_runs_every_size_of_batch(detector, monkeypatch):
    sizes = {'read_step': [], 'forecast_step': []}
    for step, seen in sizes.items():
        run_step = getattr(detector._backend, step)

        def counted(*arguments, run_step=run_step, seen=seen):
            raw = run_step(*arguments)
            seen.append(len(raw.logits))
            return raw
        monkeypatch.setattr(detector._backend, step, counted)
    detector.warm_up(3)
    assert {step: set(seen) for step, seen in sizes.items()} == {
        'read_step': {1, 2, 3}, 'forecast_step': {1, 2, 3}}


def test_settings_change_from_frame_to_frame(detector, picture, poison):
    _, state = run(detector, [picture(0)], EAGER)
    many, _ = detector.step(poison(), state, EAGER)
    few, _ = detector.step(poison(), state, replace(EAGER, max_detections=2))
    dogs, _ = detector.step(poison(), state, replace(EAGER, classes=('dog',)))
    assert len(few.detections) == 2 < len(many.detections)
    np.testing.assert_array_equal(few.detections.boxes, many.detections.boxes[:2])
    assert set(dogs.detections.labels.tolist()) == {1} < set(many.detections.labels.tolist())


def test_detector_describes_itself(detector):
    assert detector.labels == ('cat', 'dog', 'train')
    assert (detector.input_size, detector.device, detector.precision, detector.backend) == (
        (64, 96), 'cpu', 'fp32', 'torch')
    assert detector.card.name == 'small'


def test_threads(checkpoint):
    with pytest.raises(RuntimeConfigError, match='^threads is 0, must be at least 1$'):
        Detector.load(checkpoint, threads=0)


def test_pictures_are_not_changed(detector):
    array = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    before = array.copy()
    frame = Frame((64, 96), lambda: Pixels(array, 'bgr'))
    run(detector, [frame, frame], replace(EAGER, policy=AlwaysReadPolicy()))
    np.testing.assert_array_equal(array, before)
