# SPDX-License-Identifier: Apache-2.0
"""Check the state of a stream: pace, decisions, and numbers of objects."""

from math import inf, isnan, nan

from forecast_detector_ros.detector.detector import step_stamped, step_stamped_many, StepResult
from forecast_detector_ros.detector.policy import (
    AlternatePolicy,
    AlwaysReadPolicy,
    BudgetPolicy,
    Decision,
    FORECAST,
    READ,
    REASONS,
    ThresholdPolicy,
)
from forecast_detector_ros.detector.processing import Detections
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import (
    decide,
    Pace,
    PATIENCE,
    StreamState,
    Tracks,
    WEIGHT,
)
from forecast_detector_ros.images.frame import Frame
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest


def found(*boxes, labels=None):
    """Return detections of some boxes; the default class is 0."""
    return Detections(np.array(boxes, np.float32).reshape(-1, 4),
                      np.array([0] * len(boxes) if labels is None else labels, np.int64),
                      np.linspace(0.9, 0.5, len(boxes), dtype=np.float32))


def follow(frames, reads=None, elapsed=1.0):
    """Follow the detections of some frames; return the numbers in each frame."""
    tracks, numbers = Tracks(), []
    for place, frame in enumerate(frames):
        ids, tracks = tracks.follow(frame, True if reads is None else reads[place], elapsed)
        numbers.append(ids.tolist())
    return numbers


boxes = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 40), st.integers(1, 40),
                  st.integers(0, 1))
scenes = st.lists(st.tuples(st.lists(boxes, max_size=5), st.booleans()), max_size=12)


@given(scenes)
def test_numbers_are_unique_in_a_frame_and_never_reused(scene):
    tracks, labels, highest = Tracks(), {}, 0
    for rows, read in scene:
        frame = found(*((x, y, x + w, y + h) for x, y, w, h, _ in rows),
                      labels=[row[4] for row in rows])
        before = tracks
        ids, tracks = before.follow(frame, read)
        assert len(set(ids.tolist())) == len(ids) == len(rows)
        for number, label in zip(ids.tolist(), frame.labels.tolist()):
            # A new number is higher than all earlier ones.
            assert number in before.ids or number > highest
            assert labels.setdefault(number, label) == label
        highest = max([highest, *ids.tolist()])
        assert tracks.next_id == highest + 1
        assert set(ids.tolist()) <= set(tracks.ids.tolist())


@given(scenes)
def test_state_is_a_value(scene):
    tracks = Tracks()
    for rows, read in scene:
        frame = found(*((x, y, x + w, y + h) for x, y, w, h, _ in rows),
                      labels=[row[4] for row in rows])
        kept = {name: np.copy(getattr(tracks, name)) for name in vars(tracks)}
        first, after = tracks.follow(frame, read)
        second, _ = tracks.follow(frame, read)
        assert first.tolist() == second.tolist()
        for name, value in kept.items():
            np.testing.assert_array_equal(getattr(tracks, name), value)
        tracks = after


@given(st.permutations(range(4)))
def test_order_of_detections_does_not_matter(order):
    scene = [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10)]
    tracks = Tracks()
    first, tracks = tracks.follow(found(*scene), True)
    moved = [tuple(np.array(scene[i]) + [2, 1, 2, 1]) for i in order]
    ids, _ = tracks.follow(found(*moved), True)
    assert ids.tolist() == [first[i] for i in order]


def crossing(frame, speed=6):
    """Return the boxes of two persons who cross; the hidden person is not detected."""
    left = np.array([10 + speed * frame, 10, 40 + speed * frame, 80])
    right = np.array([160 - speed * frame, 12, 190 - speed * frame, 82])
    together = abs((10 + speed * frame) - (160 - speed * frame)) < 15
    return [left] if together else [left, right]


def test_a_crossing_pair_keeps_its_numbers():
    frames = [found(*crossing(frame)) for frame in range(26)]
    numbers = follow(frames)
    assert min(map(len, numbers)) == 1 and numbers[0] == [1, 2]
    for frame, ids in enumerate(numbers):
        assert ids == ([1, 2] if len(crossing(frame)) == 2 else ids)
    # The persons have exchanged their places.
    assert numbers[-1] == [1, 2] and frames[-1].boxes[0, 0] > frames[-1].boxes[1, 0]


@pytest.mark.parametrize('carried', [True, False])
def test_a_crossing_pair_keeps_its_numbers_when_every_third_frame_is_read(carried):
    frames, reads = [], []
    for frame in range(27):
        read = frame % 3 == 0
        # Forecast boxes move with the objects, or stay at the place of the last read.
        frames.append(found(*crossing(frame if carried or read else frame - frame % 3, 2)))
        reads.append(read)
    assert all(ids == [1, 2] for ids in follow(frames, reads) if len(ids) == 2)


def test_classes_are_kept_apart():
    frames = [found((0, 0, 10, 10), labels=[0]), found((0, 0, 10, 10), labels=[1]),
              found((0, 0, 10, 10), (0, 0, 10, 10), labels=[1, 0])]
    assert follow(frames) == [[1], [2], [2, 1]]


def test_forecast_frames_end_no_track():
    box, nothing = (0, 0, 10, 10), found()
    away = [nothing] * (PATIENCE + 5)
    assert follow([found(box), *away, found(box)], [True, *[False] * len(away), True])[-1] == [1]
    assert follow([found(box), *away, found(box)])[-1] == [2]
    assert follow([found(box), *away[:PATIENCE], found(box)])[-1] == [1]


def test_the_better_overlap_goes_first():
    tracks = Tracks()
    _, tracks = tracks.follow(found((0, 0, 10, 10), (4, 0, 14, 10)), True)
    ids, _ = tracks.follow(found((3, 0, 13, 10)), True)
    assert ids.tolist() == [2]


def test_fast_object_is_followed_once_its_speed_is_known():
    frames = [found((x, 0, x + 10, 10)) for x in (0, 5, 12, 21, 32, 45)]
    assert follow(frames) == [[1]] * 6


def test_time_counts_when_frames_are_missing():
    tracks = Tracks()
    for x, elapsed in ((0, 0.1), (5, 0.1), (10, 0.1)):
        ids, tracks = tracks.follow(found((x, 0, x + 10, 10)), True, elapsed)
    # The object moves 25 pixels in 0.5 s. After only 0.1 s, this box is another object.
    late, _ = tracks.follow(found((35, 0, 45, 10)), True, 0.5)
    soon, _ = tracks.follow(found((35, 0, 45, 10)), True, 0.1)
    assert (ids.tolist(), late.tolist(), soon.tolist()) == ([1], [1], [2])


class OneBox:
    """Find the same box in every frame."""

    def step_many(self, frames, states, settings, elapsed):
        outcomes = []
        for frame, state in zip(frames, states):
            decision = decide(state, frame.size, settings)
            outcomes.append((StepResult(found((10, 10, 20, 20)), decision, 0.0, 0.0), StreamState(
                0, 0.5, decision.consecutive_forecasts, frame.size)))
        return outcomes

    def step(self, frame, state, settings, elapsed):
        return self.step_many([frame], [state], settings, [elapsed])[0]


def test_a_stream_uses_new_numbers_after_a_reset():
    detector, settings, numbers = OneBox(), DetectorSettings(), []
    state = StreamState.initial()
    for stamp, size in ((0.0, 40), (0.1, 40), (0.2, 40), (5.0, 40), (5.1, 50), (5.2, 50)):
        frame = Frame((size, 60), lambda: None)
        result, state = step_stamped(detector, frame, round(stamp * 1e9), state, settings)
        numbers += result.detections.ids.tolist()
    # After a gap or a change of size, objects cannot be recognised.
    assert numbers == [1, 1, 1, 2, 3, 3]
    result, _ = step_stamped(detector, frame, round(5.3e9), state.anew('reset'), settings)
    assert (result.decision.reason, result.detections.ids.tolist()) == ('reset', [4])


def test_streams_that_are_stepped_together_are_numbered_apart():
    detector, frame = OneBox(), Frame((40, 60), lambda: None)
    seasoned = StreamState(tracks=Tracks(next_id=8))
    outcomes = step_stamped_many(detector, [frame] * 2, [0, 5], [StreamState(), seasoned],
                                 DetectorSettings())
    assert [result.detections.ids.tolist() for result, _ in outcomes] == [[1], [8]]
    assert [state.stamp_ns for _, state in outcomes] == [0, 5]


SIZE = (48, 80)
HALF = ThresholdPolicy(0.5)


def running(confidence=0.8, consecutive=0):
    """Return the state of a stream that has read at least one frame."""
    return StreamState('a state', confidence, consecutive, SIZE)


@pytest.mark.parametrize('state, size, policy, expected', [
    (StreamState.initial(), SIZE, HALF, (READ, 'first_frame', nan, 0.5, 0)),
    (StreamState.initial('reset'), SIZE, HALF, (READ, 'reset', nan, 0.5, 0)),
    (StreamState.initial('gap'), None, HALF, (READ, 'gap', nan, 0.5, 0)),
    (StreamState.initial(), SIZE, AlternatePolicy(1), (READ, 'first_frame', nan, nan, 0)),
    (running(0.8), SIZE, HALF, (FORECAST, 'scheduler', 0.8, 0.5, 1)),
    (running(0.8), None, HALF, (FORECAST, 'scheduler', 0.8, 0.5, 1)),
    (running(0.5), SIZE, HALF, (READ, 'scheduler', 0.5, 0.5, 0)),
    (running(0.8), (80, 48), HALF, (READ, 'size_changed', 0.8, 0.5, 0)),
    (running(0.8, 1), SIZE, HALF, (FORECAST, 'scheduler', 0.8, 0.5, 2)),
    (running(0.8, 2), SIZE, HALF, (READ, 'max_consecutive', 0.8, 0.5, 0)),
    (running(0.2, 2), SIZE, HALF, (READ, 'scheduler', 0.2, 0.5, 0)),
    (running(0.2), SIZE, AlternatePolicy(1), (FORECAST, 'policy', 0.2, nan, 1)),
    (running(0.8, 1), SIZE, AlternatePolicy(1), (READ, 'policy', 0.8, nan, 0)),
    (running(0.8, 2), SIZE, AlternatePolicy(2), (READ, 'policy', 0.8, nan, 0)),
    (running(nan), SIZE, HALF, (READ, 'second_frame', nan, 0.5, 0)),
    (running(nan), SIZE, ThresholdPolicy(0.0), (READ, 'second_frame', nan, 0.0, 0)),
    (running(nan), (80, 48), HALF, (READ, 'size_changed', nan, 0.5, 0)),
    (running(nan), SIZE, AlternatePolicy(1), (FORECAST, 'policy', nan, nan, 1)),
    (running(1.0), SIZE, AlwaysReadPolicy(), (READ, 'policy', 1.0, nan, 0)),
    (running(1.0), SIZE, ThresholdPolicy(1.0), (READ, 'scheduler', 1.0, 1.0, 0))])
def test_reasons(state, size, policy, expected):
    decision = decide(state, size, DetectorSettings(policy, max_consecutive_forecasts=2))
    for value, wanted in zip(
            (decision.kind, decision.reason, decision.confidence, decision.threshold,
             decision.consecutive_forecasts), expected, strict=True):
        assert value == wanted or (isnan(value) and isnan(wanted))


@given(st.floats(0, 1), st.integers(0, 10), st.floats(0, 1), st.integers(1, 5),
       st.sampled_from([None, SIZE, (1, 1)]))
def test_invariants(confidence, consecutive, p, limit, size):
    decision = decide(running(confidence, consecutive), size,
                      DetectorSettings(ThresholdPolicy(p), max_consecutive_forecasts=limit))
    assert isinstance(decision, Decision) and decision.reason in REASONS
    assert (decision.kind == FORECAST) == (
        size != (1, 1) and confidence > p and consecutive < limit)
    assert decision.consecutive_forecasts == (
        consecutive + 1 if decision.kind == FORECAST else 0)


#: With a budget of 10 ms per frame, a read of 30 ms needs 20 ms of saved time.
RICH, POOR = Pace(30.0, 5.0, 20.0), Pace(30.0, 5.0, 19.0)


@pytest.mark.parametrize('pace, policy, consecutive, expected', [
    (RICH, BudgetPolicy(100.0), 0, (READ, 'budget')),
    (POOR, BudgetPolicy(100.0), 0, (FORECAST, 'budget')),
    (POOR, BudgetPolicy(100.0), 2, (READ, 'max_consecutive')),
    (RICH, BudgetPolicy(100.0), 2, (READ, 'budget')),
    (Pace(), BudgetPolicy(100.0), 0, (READ, 'budget'))])
def test_budget(pace, policy, consecutive, expected):
    decision = decide(StreamState('a state', 0.9, consecutive, SIZE, pace=pace), SIZE,
                      DetectorSettings(policy, max_consecutive_forecasts=2))
    assert (decision.kind, decision.reason) == expected


@pytest.mark.parametrize('pace, confidence, expected', [
    (RICH, 0.2, (READ, 'scheduler')), (RICH, 0.8, (FORECAST, 'scheduler')),
    (POOR, 0.2, (FORECAST, 'budget')), (POOR, 0.8, (FORECAST, 'scheduler')),
    (RICH, nan, (READ, 'second_frame')), (POOR, nan, (FORECAST, 'budget'))])
def test_target_rate_limits_any_policy(pace, confidence, expected):
    decision = decide(StreamState('a state', confidence, 0, SIZE, pace=pace), SIZE,
                      DetectorSettings(HALF, target_rate=50.0, streams=2))
    assert (decision.kind, decision.reason) == expected


@given(st.floats(1, 200), st.floats(0.1, 50), st.floats(1, 500), st.integers(1, 400))
def test_mean_cost_stays_within_the_budget(read_ms, forecast_ms, budget_ms, frames):
    settings = DetectorSettings(BudgetPolicy(1e3 / budget_ms), max_consecutive_forecasts=1000)
    budget_ms, state, spent = settings.budget_ms, StreamState.initial(), 0.0
    reads = 0
    for _ in range(frames):
        read = decide(state, SIZE, settings).kind == READ
        cost = read_ms if read else forecast_ms
        reads, spent = reads + read, spent + cost
        state = StreamState('a state', 0.9, 0, SIZE,
                            pace=state.pace.after(read, cost, budget_ms))
    if forecast_ms <= budget_ms:
        # The first frame is always read.
        assert spent <= frames * budget_ms + read_ms + 1e-6
        # The unused time is never worth more than two reads.
        if reads < frames:
            possible = (frames * budget_ms - frames * forecast_ms) / max(
                read_ms - forecast_ms, 1e-9)
            assert reads >= min(frames, int(possible)) - 2
    else:
        assert reads == 1 or read_ms <= budget_ms


def test_unknown_reason():
    with pytest.raises(ValueError, match="reason is 'tired', must be one of"):
        StreamState.initial('tired')


costs = st.lists(st.tuples(st.booleans(), st.floats(0.1, 1000.0)), max_size=50)


def test_first_cost_is_the_mean():
    pace = Pace().after(True, 30.0, inf)
    assert pace.read_ms == 30.0 and isnan(pace.forecast_ms)
    assert pace.after(False, 5.0, inf) == Pace(30.0, 5.0, 0.0)


def test_mean_follows():
    pace = Pace(30.0, 5.0).after(True, 40.0, inf)
    assert pace.read_ms == pytest.approx(30.0 + WEIGHT * 10.0) and pace.forecast_ms == 5.0


def test_unknown_cost_is_affordable():
    assert Pace().affords_read(0.001)


def test_no_limit_affords_everything_and_saves_nothing():
    pace = Pace(1e6, 1.0).after(True, 1e6, inf)
    assert pace.affords_read(inf) and pace.saved_ms == 0.0


def test_interruption_has_a_short_effect():
    # One lost second must not prevent reads for the next hundred frames.
    pace = Pace(30.0, 5.0, 0.0).after(False, 1000.0, 10.0)
    assert pace.saved_ms == -30.0


@given(costs, st.floats(1.0, 200.0))
def test_saved_time_is_worth_a_read_at_most(frames, budget):
    pace = Pace()
    for read, cost in frames:
        pace = pace.after(read, cost, budget)
        most = pace.read_ms if not isnan(pace.read_ms) else 1000.0
        assert abs(pace.saved_ms) <= most
