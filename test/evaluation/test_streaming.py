# SPDX-License-Identifier: Apache-2.0
"""Streaming: the simulated clock by hand and compared with a slow one, and the detector."""

from dataclasses import replace
import json
from pathlib import Path

import cv2
from forecast_detector_ros.detector.detector import StepResult
from forecast_detector_ros.detector.policy import (
    AlternatePolicy,
    AlwaysReadPolicy,
    BudgetPolicy,
    ThresholdPolicy,
)
from forecast_detector_ros.detector.processing import Detections
from forecast_detector_ros.detector.settings import DetectorSettings, SettingsError
from forecast_detector_ros.detector.stream import decide, StreamState
from forecast_detector_ros.evaluation.runs import Latencies, run_video
from forecast_detector_ros.evaluation.sequences import (
    as_frame,
    EvaluationError,
    load_davis,
    picture,
)
from forecast_detector_ros.evaluation.streaming import (
    AHEAD,
    PRESENT,
    REPEATED,
    stream,
    streaming_as_text,
    sweep,
)
from forecast_detector_ros.metrics.tables import DetectionTable, one_hot, TruthTable
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

ALWAYS = DetectorSettings(AlwaysReadPolicy(), score_threshold=0.2)
ALTERNATE = DetectorSettings(AlternatePolicy(1), score_threshold=0.45)


def fixed(read: float, forecast: float | None = None) -> Latencies:
    """Return constant latencies, milliseconds."""
    return Latencies(Path('fixed.json'), {
        'read': np.array([read]), 'forecast': np.array([] if forecast is None else [forecast])})


def assert_same(first: DetectionTable, second: DetectionTable) -> None:
    for name in ('frames', 'boxes', 'labels', 'scores'):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


class FakeDetector:
    """A detector with real decisions that finds one box; its left edge is the step's number."""

    labels = ('cat', 'dog', 'train')

    def __init__(self, preprocess_ms: float = 0.0, inference_ms: float = 0.0) -> None:
        self.times = preprocess_ms, inference_ms

    def step(self, frame, state, settings, elapsed=1.0):
        decision = decide(state, frame.size, settings)
        number = 0 if state.network is None else state.network + 1
        box = np.array([[number, 0, number + 10, 10]], np.float32)
        found = Detections(box, np.zeros(1, np.int64), np.ones(1, np.float32))
        return StepResult(found, decision, *self.times), StreamState(
            number, 0.5, decision.consecutive_forecasts, frame.size)


@pytest.fixture
def one(videos):
    """Return a function that makes a sequence of a given number of frames."""
    return lambda count: videos(walk=('cat', count))[0]


def test_without_latency_streaming_equals_the_evaluation(detector, one):
    item = one(6)
    run = stream(detector, item, ALTERNATE, 30, fixed(0, 0), collect=True)
    offline = run_video(detector, item, ALTERNATE, collect=True)
    assert run.answer.tolist() == run.processed.tolist() == list(range(6))
    assert run.read.tolist() == offline.read.tolist()
    assert len(run.collected) > len(run.shown) > 0
    assert_same(run.shown, offline.shown)
    assert_same(run.collected, offline.collected)


def test_busy_detector_drops_frames(one):
    # Frames arrive every 100 ms, and five steps of 150 ms follow one another from 0 to 750 ms.
    run = stream(FakeDetector(), one(6), ALWAYS, 10, fixed(150), collect=False)
    assert run.processed.tolist() == [0, 1, 3, 4, 5]
    # A result that is ready at 300 ms is the answer at 300 ms.
    assert run.answer.tolist() == [-1, -1, 0, 1, 1, 3]
    assert run.shown.frames.tolist() == [2, 3, 4, 5]
    assert run.shown.boxes[:, 0].tolist() == [0, 1, 1, 2]
    assert run.collected is None


def test_idle_detector_waits_for_the_next_frame(one):
    run = stream(FakeDetector(), one(4), ALWAYS, 10, fixed(10), collect=False)
    assert run.processed.tolist() == [0, 1, 2, 3]
    assert run.answer.tolist() == [-1, 0, 1, 2]


def test_forecasts_are_cheaper(one):
    # Reads last from 0 to 150, 200 to 350 and 400 to 550 ms; each forecast follows at once.
    run = stream(FakeDetector(), one(6), ALTERNATE, 10, fixed(150, 20), collect=False)
    assert run.processed.tolist() == [0, 1, 2, 3, 4, 5]
    assert run.read.tolist() == [True, False] * 3
    assert run.answer.tolist() == [-1, -1, 1, 1, 3, 3]


def test_a_time_budget_counts_the_given_latencies(one):
    # At 10 frames/s, 66 reads of 150 ms and 34 forecasts of 2 ms fit into the budget.
    settings = DetectorSettings(BudgetPolicy(10.0), max_consecutive_forecasts=9)
    run = stream(FakeDetector(), one(100), settings, 5, fixed(150, 2), False)
    assert len(run.processed) == 100 and 0.6 < run.read.mean() < 0.72


def test_measured_latency_is_resizing_and_network(one):
    run = stream(FakeDetector(100, 50), one(6), ALWAYS, 10, None, collect=False)
    assert run.processed.tolist() == [0, 1, 3, 4, 5]
    assert run.answer.tolist() == [-1, -1, 0, 1, 1, 3]


@pytest.mark.parametrize('latencies', [fixed(150, 90), None])
def test_detector_gets_the_frames_that_were_not_dropped(detector, one, latencies):
    item = one(7)
    settings = DetectorSettings(ThresholdPolicy(0.3), score_threshold=0.2)
    run = stream(detector, item, settings, 10, latencies, collect=True)
    state, found = StreamState.initial(), {}
    for number, read in zip(run.processed.tolist(), run.read):
        frame = as_frame(picture(item.frames[number]))
        result, state = detector.step(frame, state, settings)
        assert (result.decision.kind == 'read') == read
        found[number] = result.detections
    assert run.answer.max() > 0
    assert_same(run.shown, DetectionTable.join(
        [DetectionTable.of_frame(frame, found[number])
         for frame, number in enumerate(run.answer.tolist()) if number >= 0]))


def test_seed_decides(one):
    item = one(12)
    spread = Latencies(Path('spread.json'), {'read': np.linspace(20, 400, 50)})

    def processed(seed: int) -> list[int]:
        return stream(FakeDetector(), item, ALWAYS, 20, replace(spread, seed=seed),
                      collect=False).processed.tolist()

    assert processed(1) == processed(1)
    assert len({tuple(processed(seed)) for seed in range(5)}) > 1


def test_latency_that_was_not_recorded_is_an_error(one):
    with pytest.raises(EvaluationError, match='no latency of a forecast frame'):
        stream(FakeDetector(), one(3), ALTERNATE, 10, fixed(150), collect=False)


@given(st.integers(1, 8), st.sampled_from([10, 20, 50]), st.integers(0, 300),
       st.integers(0, 120), st.booleans())
def test_agrees_with_a_slow_clock(eight_frames, count, rate, read_ms, forecast_ms,
                                  alternate):
    item = replace(eight_frames, frames=eight_frames.frames[:count])
    run = stream(FakeDetector(), item, ALTERNATE if alternate else ALWAYS, rate,
                 fixed(read_ms, forecast_ms), collect=False)
    # Each millisecond, frames arrive first; then steps end, and then steps begin.
    waiting, working, left, known = -1, -1, 0, -1
    processed, answer = [], []
    for now in range(count * 1000 // rate + (count + 1) * 400):
        arrives = now * rate % 1000 == 0 and now * rate // 1000 < count
        if arrives:
            waiting = now * rate // 1000
        if working >= 0:
            left -= 1
        while True:
            if working >= 0 and left <= 0:
                known, working = working, -1
            if working >= 0 or waiting < 0:
                break
            working, waiting = waiting, -1
            left = forecast_ms if alternate and len(processed) % 2 else read_ms
            processed.append(working)
        if arrives:
            answer.append(known)
    assert run.processed.tolist() == processed
    assert run.answer.tolist() == answer


@pytest.fixture(scope='module')
def eight_frames(tmp_path_factory):
    """Return a sequence of eight frames, written once for all examples."""
    root = tmp_path_factory.mktemp('frames')
    (root / 'walk').mkdir()
    frames = []
    for number in range(8):
        cv2.imwrite(str(root / f'walk/{number}.png'), np.zeros((6, 8, 3), np.uint8))
        frames.append({'file': f'{number}.png', 'box_xywh': None})
    (root / 'walk/boxes.json').write_text(json.dumps(
        {'category': 'cat', 'width': 8, 'height': 6, 'frames': frames}))
    return load_davis(root, FakeDetector.labels)[0]


def labelled(item, boxes):
    """Return a sequence with an annotated cat in each frame."""
    none = np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
    table = TruthTable(np.arange(len(boxes)), np.array(boxes, np.float32),
                       one_hot(np.zeros(len(boxes), np.int64), 3), *none)
    return replace(item, truth=table, labelled=table)


def test_sweep_by_hand(one):
    # The detector finds box 0 in its first frame, box 1 in its second, and so on.
    item = labelled(one(6), [(n, 0, n + 10, 10) for n in (90, 90, 0, 1, 90, 2)])
    result = sweep(FakeDetector(), [item], ALTERNATE, [AlwaysReadPolicy(), AlternatePolicy(1)],
                   [10, 5], fixed(150, 20), ['plain', 'devkit'])
    assert (result['latencies'], result['seed']) == ('fixed.json', 0)
    first = result['runs'][0]
    assert (first['policy'], first['rate']) == ('always_read', 10)
    assert first['processed'] == pytest.approx(5 / 6) and first['read_ratio'] == 1.0
    # Frames 2 to 5 show the results of frames 0, 1, 1 and 3, which are 2, 2, 3 and 2 frames old.
    assert first['unanswered'] == 2 and first['age_ms'] == pytest.approx(225)
    assert first['mean_recall'] == pytest.approx(3 / 6)
    # Three of four detections of equal score are right.
    assert first['ap50']['mean'] == pytest.approx(3 / 6 * 3 / 4)
    assert first['ap50_devkit']['classes']['cat']['boxes'] == 6
    assert [(run['policy'], run['rate'], run['processed']) for run in result['runs'][1:]] == [
        ('always_read', 5, 1.0), ('alternate(1)', 10, 1.0), ('alternate(1)', 5, 1.0)]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    text = streaming_as_text(result)
    assert 'AP50 devkit' in text and '225.0' in text and len(text.splitlines()) == 7


def test_a_policy_beyond_the_limit_is_refused_before_anything_runs(one):
    detector = FakeDetector()
    detector.step = None
    with pytest.raises(SettingsError, match='max_consecutive_forecasts is 3'):
        sweep(detector, [one(3)], ALWAYS, [ALWAYS.policy, AlternatePolicy(6)], [30], None, [])


def test_without_labels_there_is_no_ap(one):
    result = sweep(FakeDetector(), [one(3)], ALWAYS, [ALWAYS.policy], [30], None, ['plain'])
    assert result['latencies'] is None and 'ap50' not in result['runs'][0]
    assert 'AP50' not in streaming_as_text(result)


def test_output_that_is_never_ready(one):
    item = labelled(one(3), [(0, 0, 10, 10)] * 3)
    run = sweep(FakeDetector(), [item], ALWAYS, [ALWAYS.policy], [10], fixed(5000),
                ['plain'])['runs'][0]
    assert (run['unanswered'], run['age_ms'], run['mean_recall'], run['ap50']['mean']) == (
        3, None, 0.0, 0.0)


def test_forecast_of_the_next_frame_is_ready_when_it_arrives(one):
    # A read of 50 ms and a forecast of 20 ms are ready before the next frame arrives.
    run = stream(FakeDetector(), one(4), ALWAYS, 10, fixed(50, 20), False, AHEAD)
    assert run.processed.tolist() == [0, 1, 2, 3] and run.read.all()
    assert run.answer.tolist() == [-1, 1, 2, 3]
    # When frame 1 arrives, the box of step 1 is shown, a forecast from the state after frame 0.
    assert run.shown.frames.tolist() == [1, 2, 3]
    assert run.shown.boxes[:, 0].tolist() == [1, 2, 3]


def test_forecast_takes_time_and_a_read_replaces_it(one):
    # The reads of frames 0, 1 and 3 are ready at 150, 320 and 490 ms, and the forecasts of their
    # next frames 20 ms later. Frame 5 follows.
    item = one(6)
    run = stream(FakeDetector(), item, ALWAYS, 10, fixed(150, 20), False, AHEAD)
    assert run.processed.tolist() == [0, 1, 3, 5]
    assert run.answer.tolist() == [-1, -1, 1, 1, 2, 3]
    # Without latency the read of frame 1 is ready, and replaces its forecast.
    run = stream(FakeDetector(), item, ALWAYS, 10, fixed(0, 0), False, AHEAD)
    assert run.answer.tolist() == list(range(6))
    plain_run = stream(FakeDetector(), item, ALWAYS, 10, fixed(0, 0), False)
    assert_same(run.shown, plain_run.shown)


def test_forecast_of_the_next_frame_does_not_change_the_state(detector, one):
    item = one(5)
    settings = DetectorSettings(AlwaysReadPolicy(), score_threshold=0.45)
    run = stream(detector, item, settings, 10, fixed(50, 20), True, AHEAD)
    forecast = DetectorSettings(
        AlternatePolicy(9), score_threshold=0.45, max_consecutive_forecasts=9)
    state, expected = StreamState.initial(), {}
    for number, record in enumerate(item.frames):
        frame = as_frame(picture(record))
        _, state = detector.step(frame, state, settings)
        result, _ = detector.step(frame, state, forecast)
        assert result.decision.kind == 'forecast'
        expected[number + 1] = result.detections
    assert run.answer.tolist() == [-1, 1, 2, 3, 4]
    assert_same(run.shown, DetectionTable.join(
        [DetectionTable.of_frame(number, expected[number]) for number in range(1, 5)]))
    assert len(run.collected) > len(run.shown)


def test_repeated_boxes_are_those_of_the_last_read(one):
    run = stream(FakeDetector(), one(6), ALTERNATE, 10, fixed(50, 20), False, REPEATED)
    assert run.read.tolist() == [True, False] * 3
    assert run.answer.tolist() == [-1, 0, 0, 2, 2, 4]


def test_outputs_are_compared_on_the_same_sequences(one):
    # An object of 4 pixels moves 2 pixels right per frame, and the fake detector follows. A box
    # that is one frame old has an IoU of a third, which is no hit.
    class Mover(FakeDetector):

        def step(self, frame, state, settings, elapsed=1.0):
            result, after = super().step(frame, state, settings, elapsed)
            left = 2.0 * after.network
            box = np.array([[left, 0, left + 4, 10]], np.float32)
            return replace(result, detections=replace(result.detections, boxes=box)), after

    item = labelled(one(6), [(2 * n, 0, 2 * n + 4, 10) for n in range(6)])
    result = sweep(Mover(), [item, item], ALWAYS, [AlwaysReadPolicy()], [10], fixed(50, 20),
                   ['plain'], [PRESENT, AHEAD], seed=1)
    late, ahead = result['runs']
    assert (late['output'], ahead['output']) == ('present', 'ahead')
    assert (late['age_ms'], ahead['age_ms']) == (100.0, 0.0)
    # The first frame has no result in time.
    assert (late['mean_recall'], ahead['mean_recall']) == (0.0, pytest.approx(5 / 6))
    assert ahead['ap50']['mean'] == pytest.approx(5 / 6) and late['ap50']['mean'] == 0.0
    assert late['difference'] == {'mean': 0.0, 'low': 0.0, 'high': 0.0}
    assert ahead['difference'] == dict.fromkeys(('mean', 'low', 'high'), pytest.approx(5 / 6))
    text = streaming_as_text(result)
    assert 'more than the first' in text and '+0.833 [+0.833, +0.833]' in text
