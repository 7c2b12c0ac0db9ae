# SPDX-License-Identifier: Apache-2.0
"""Forecasts up to a horizon, and simple rules that move the boxes of a read frame."""

from dataclasses import replace
from pathlib import Path

from forecast_detector_ros.annotations.records import FrameRecord
from forecast_detector_ros.detector.policy import AlternatePolicy, AlwaysReadPolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import StreamState
from forecast_detector_ros.evaluation.horizons import (
    constant_velocity,
    moved_by_truth,
    reads_before,
    repeated,
    Rollouts,
    run_horizons,
    true_velocity,
)
from forecast_detector_ros.evaluation.sequences import as_frame, picture, Video
from forecast_detector_ros.metrics.tables import DetectionTable, one_hot, recall, TruthTable
import numpy as np
import pytest

SETTINGS = DetectorSettings(score_threshold=0.3, max_detections=10)
READ = replace(SETTINGS, policy=AlwaysReadPolicy())
FORECAST = replace(SETTINGS, policy=AlternatePolicy(9), max_consecutive_forecasts=9)


def one_by_one(detector, item, horizons, every):
    """Run every stream and every forecast on its own; return detections by (frame, horizon)."""
    frames = [as_frame(picture(record)) for record in item.frames]
    found = {}
    for phase in range(every):
        state = StreamState.initial()
        for number, frame in enumerate(frames):
            due = number <= phase or (number - phase) % every == 0
            result, state = detector.step(frame, state, READ if due else FORECAST)
            if number < phase or not due:
                continue
            found[number, 0] = result.detections
            ahead = state
            for horizon in range(1, horizons + 1):
                if number + horizon < len(frames):
                    result, ahead = detector.step(frames[number + horizon], ahead, FORECAST)
                    found[number + horizon, horizon] = result.detections
    return found


@pytest.mark.parametrize('every', [1, 3, 5])
def test_every_forecast_is_that_of_its_own_stream(detector, videos, every):
    (item,) = videos(walk=('dog', 9))
    run = run_horizons({'forecast': detector}, item, SETTINGS, 4, every)
    expected = one_by_one(detector, item, 4, every)
    assert len(expected) == 9 + 8 + 7 + 6 + 5
    for (number, horizon), detections in expected.items():
        table = run.tables['forecast', horizon]
        boxes = table.boxes[table.frames == number]
        # Rounding differs in batches.
        np.testing.assert_allclose(boxes, detections.boxes, atol=1e-2)
    assert run.squares.size == 0
    near, far = expected[8, 1].boxes, expected[8, 4].boxes
    assert near.shape != far.shape or np.abs(near - far).max() > 0.1, 'horizons that differ'


def test_frames_of_the_read_row_are_all_read(detector, videos):
    (item,) = videos(walk=('dog', 4))
    run = run_horizons({'forecast': detector}, item, SETTINGS, 1, 2)
    state = StreamState.initial()
    for number, record in enumerate(item.frames):
        result, state = detector.step(as_frame(picture(record)), state, READ)
        np.testing.assert_array_equal(run.read.boxes[run.read.frames == number],
                                      result.detections.boxes)


def test_frames_read_before_by_the_streams():
    assert reads_before(7, 3) == [-1, 0, 1, 0, 1, 2, 3]
    assert reads_before(3, 1) == [-1, 0, 1]


def test_starts_are_those_whose_forecasts_reach_the_frame(detector, videos):
    (item,) = videos(walk=('dog', 5))
    rollouts = Rollouts(detector, SETTINGS, 2, 3)
    for number, record in enumerate(item.frames):
        found = rollouts.step(number, as_frame(picture(record)))
        assert sorted(found) == list(range(min(number, 2) + 1))
    assert rollouts.starts(5) == [3, 4]


WIDTH, HEIGHT, FRAMES = 200, 100, 9
NOTHING = np.zeros((0, 4), np.float32)


def boxed(rows, tracks=True):
    """Return a video with the given objects (frame, track, label, box)."""
    frames, track, labels, boxes = zip(*rows)
    record = FrameRecord(NOTHING, np.zeros(0, np.int64), np.zeros(0, np.float32), NOTHING,
                         path=Path('x.png'), width=WIDTH, height=HEIGHT)
    truth = TruthTable(np.array(frames), np.array(boxes, np.float32),
                       one_hot(np.array(labels), 2), np.zeros(0, np.int64), NOTHING,
                       np.array(track) if tracks else np.full(len(rows), -1))
    return Video('x', (record,) * FRAMES, truth)


def detected(rows):
    """Return a table of the given detections (frame, label, box)."""
    frames, labels, boxes = zip(*rows)
    return DetectionTable(np.array(frames), np.array(boxes, np.float32), np.array(labels),
                          np.linspace(0.9, 0.5, len(rows), dtype=np.float32))


def crossing():
    """Return two objects, one of each class, that pass each other; the second grows."""
    rows = []
    for frame in range(FRAMES):
        rows.append((frame, 1, 0, (10 + 4 * frame, 20, 50 + 4 * frame, 60)))
        rows.append((frame, 2, 1, (60 - 3 * frame, 30 - frame, 100 - 3 * frame, 70 + frame)))
    return boxed(rows)


def seen(item):
    """Detect every object exactly where it is."""
    truth = item.truth
    return DetectionTable(truth.frames, truth.boxes, truth.labels,
                          np.full(len(truth), 0.8, np.float32))


def test_repeated_boxes_are_those_of_the_frame_that_was_read():
    item = crossing()
    found = repeated(seen(item), 3, FRAMES)
    assert sorted(set(found.frames.tolist())) == list(range(3, FRAMES))
    later = found.boxes[found.frames == 5]
    np.testing.assert_array_equal(later, item.truth.boxes[item.truth.frames == 2])


@pytest.mark.parametrize('gap', [1, 4])
def test_uniform_motion_is_forecast_exactly(gap):
    item = crossing()
    reads = seen(item)
    before = [max(frame - gap, -1) for frame in range(FRAMES)]
    for horizon in (1, 2, 3):
        found = constant_velocity(reads, before, horizon, item)
        for frame in range(gap + horizon, FRAMES):
            for label in (0, 1):
                mine = found.boxes[(found.frames == frame) & (found.labels == label)]
                true = item.truth.boxes[(item.truth.frames == frame)
                                        & (item.truth.labels == label)]
                np.testing.assert_allclose(mine, true, atol=1e-4)


def test_velocity_agrees_with_a_loop():
    rng = np.random.default_rng(0)
    rows = []
    for frame in range(FRAMES):
        for label, left in ((0, 10 + 5 * frame), (0, 90 - 3 * frame), (1, 40 + 2 * frame)):
            if rng.random() < 0.8:
                box = np.array([left, 20, left + 30, 60]) + rng.normal(0, 2, 4)
                rows.append((frame, label, box))
    reads = detected(rows)
    before = [frame - 2 if frame >= 2 else frame - 1 for frame in range(FRAMES)]
    item = boxed([(0, 0, 0, (0, 0, 1, 1))])
    found = constant_velocity(reads, before, 2, item)

    def iou(a, b):
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        inter = max(w, 0) * max(h, 0)
        return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)

    expected = []
    for frame in range(FRAMES - 2):
        taken = set()
        mine = [i for i in range(len(rows)) if rows[i][0] == frame]
        for i in sorted(mine, key=lambda i: -reads.scores[i]):
            others = [j for j in range(len(rows)) if rows[j][0] == before[frame]
                      and rows[j][1] == rows[i][1] and j not in taken
                      and iou(reads.boxes[i], reads.boxes[j]) >= 0.3]
            box = reads.boxes[i].astype(float)
            if others:
                j = max(others, key=lambda j: iou(reads.boxes[i], reads.boxes[j]))
                taken.add(j)
                box = box + (box - reads.boxes[j]) * 2 / (frame - before[frame])
            expected.append((frame + 2, *np.clip(box, 0, [WIDTH, HEIGHT] * 2)))
    got = np.column_stack((found.frames, found.boxes))
    np.testing.assert_allclose(got[np.lexsort(got.T)],
                               np.array(expected)[np.lexsort(np.array(expected).T)], atol=1e-4)
    assert len(before) > 2 and len(expected) > 8


def test_true_motion_keeps_the_error_of_a_detection():
    item = crossing()
    # Detections with an offset of a tenth of the object keep this offset.
    reads = seen(item)
    off = reads.boxes + np.array([4, 0, 4, 0], np.float32)
    reads = DetectionTable(reads.frames, off, reads.labels, reads.scores)
    for horizon in (1, 4):
        found = moved_by_truth(reads, item.truth, horizon, item)
        assert recall(found, item.truth.select(item.truth.frames >= horizon), 0.8) == 1.0
        for row in range(len(found)):
            now = (item.truth.frames == found.frames[row]) & (
                item.truth.labels == found.labels[row])
            true = item.truth.boxes[now][0]
            assert (found.boxes[row, 0] + found.boxes[row, 2]) / 2 == pytest.approx(
                (true[0] + true[2]) / 2 + 4, abs=1e-3)
            assert found.boxes[row, 3] - found.boxes[row, 1] == pytest.approx(
                true[3] - true[1], abs=1e-3)


@pytest.mark.parametrize('gap', [1, 3])
def test_true_velocity_continues_the_motion_of_objects(gap):
    item = crossing()
    reads = seen(item)
    off = DetectionTable(reads.frames, reads.boxes + np.array([4, 0, 4, 0], np.float32),
                         reads.labels, reads.scores)
    before = [max(frame - gap, -1) for frame in range(FRAMES)]
    for horizon in (1, 4):
        found = true_velocity(off, item.truth, before, horizon, item)
        # The motion is uniform, so past velocity equals future velocity.
        best = moved_by_truth(off, item.truth, horizon, item)
        late = found.frames >= gap + horizon
        np.testing.assert_allclose(found.boxes[late], best.boxes[late], atol=1e-3)
        # Without an earlier frame the velocity is unknown.
        np.testing.assert_array_equal(found.boxes[~late], repeated(off, horizon, FRAMES).boxes[
            ~late])


def test_true_velocity_keeps_the_error_of_a_detection():
    item = boxed([(0, 1, 0, (10, 10, 20, 20)), (1, 1, 0, (10, 10, 30, 30))])
    reads = detected([(1, 0, (10, 10, 32, 30))])
    (box,) = true_velocity(reads, item.truth, [-1, 0], 2, item).boxes
    # The object's centre moves on by 5 per frame, and its sides grow from 20 to 40. The box is a
    # tenth wider.
    np.testing.assert_allclose(box, (31 - 22, 30 - 20, 31 + 22, 30 + 20), atol=1e-3)


def test_boxes_without_a_later_object_do_not_move():
    item = boxed([(0, 1, 0, (10, 10, 50, 50)), (1, 1, 0, (30, 10, 70, 50))])
    reads = detected([(0, 0, (10, 10, 50, 50)), (0, 0, (100, 10, 140, 50)),
                      (0, 1, (10, 10, 50, 50)), (1, 0, (30, 10, 70, 50))])
    found = moved_by_truth(reads, item.truth, 1, item)
    assert found.boxes.tolist() == [[30, 10, 70, 50], [100, 10, 140, 50], [10, 10, 50, 50],
                                    [30, 10, 70, 50]]
    assert found.frames.tolist() == [1, 1, 1, 2]


def test_truth_without_tracks_moves_nothing():
    item = boxed([(0, 1, 0, (10, 10, 50, 50)), (1, 1, 0, (30, 10, 70, 50))], tracks=False)
    reads = detected([(0, 0, (10, 10, 50, 50))])
    assert moved_by_truth(reads, item.truth, 1, item).boxes.tolist() == [[10, 10, 50, 50]]


def test_no_detections_give_no_boxes():
    item, nothing = crossing(), DetectionTable.join([])
    assert not len(constant_velocity(nothing, [-1] * FRAMES, 2, item))
    assert not len(moved_by_truth(nothing, item.truth, 2, item))
    assert not len(true_velocity(nothing, item.truth, [-1] * FRAMES, 2, item))
