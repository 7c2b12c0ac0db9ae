# SPDX-License-Identifier: Apache-2.0
"""Compare scores averaged over time with a slow reference."""

from dataclasses import replace

from forecast_detector_ros.boxes import box_iou
from forecast_detector_ros.detector.policy import AlternatePolicy, AlwaysReadPolicy, FORECAST
from forecast_detector_ros.detector.processing import smoothed
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import StreamState
import numpy as np

from .conftest import run


def slowly_smoothed(frames, memory):
    """Average scores over frames, box by box; return rows of (box, label, score) per frame."""
    before, result = [], []
    for frame in frames:
        rows = [[box, label, score]
                for box, label, score in zip(frame.boxes, frame.labels, frame.scores)]
        pairs = sorted((-box_iou(row[0][None], old[0][None])[0, 0], i, j)
                       for i, row in enumerate(rows) for j, old in enumerate(before)
                       if row[1] == old[1])
        used: tuple[set[int], set[int]] = (set(), set())
        for overlap, i, j in pairs:
            if -overlap >= 0.5 and i not in used[0] and j not in used[1]:
                rows[i][2] = memory * before[j][2] + (1 - memory) * rows[i][2]
                used[0].add(i)
                used[1].add(j)
        # Boxes with a low averaged score are not remembered.
        before = [row for row in rows if row[2] > 0.2]
        result.append(rows)
    return result


def test_scores_remember_the_frame_before(detector, picture):
    def show(settings):
        return run(detector, [picture(seed) for seed in range(4)], settings)[0]

    plain = DetectorSettings(AlwaysReadPolicy(), score_threshold=0.2, max_detections=1000)
    raw = show(plain)
    expected = slowly_smoothed([result.detections for result in raw], 0.5)
    # Scores of random weights differ between machines.
    shown_from = float(np.median(raw[-1].detections.scores))
    found = show(replace(plain, score_memory=0.5))
    fewer = show(replace(plain, score_memory=0.5, score_threshold=shown_from))
    changed = 0
    for result, few, before, rows in zip(found, fewer, raw, expected):
        rows = sorted((row for row in rows if row[2] > 0.2), key=lambda row: -row[2])
        scores = [row[2] for row in rows]
        np.testing.assert_allclose(result.detections.scores, scores, atol=1e-6)
        np.testing.assert_array_equal(
            few.detections.scores,
            result.detections.scores[result.detections.scores > shown_from])
        changed += not np.array_equal(result.detections.scores, before.detections.scores)
    assert changed == len(raw) - 1


def test_a_forecast_keeps_smoothed_scores(mover, picture):
    settings = DetectorSettings(AlternatePolicy(2), score_threshold=0.2, score_memory=0.5,
                                max_detections=1000)
    always = replace(settings, policy=AlwaysReadPolicy())
    _, state = run(mover, [picture(0), picture(1)], always)
    result, after = mover.step(picture(2), state, settings)
    assert result.decision.kind == FORECAST and len(result.detections)
    same = smoothed(result.detections, state.remembered, 1.0)
    np.testing.assert_array_equal(same.scores, result.detections.scores)
    raw, _ = mover.step(picture(2), replace(state, remembered=None), settings)
    assert not np.array_equal(raw.detections.scores, result.detections.scores)
    # After a new size or a new start there are no remembered scores.
    there, _ = mover.step(picture(3, (60, 90)), after, always)
    anew, _ = mover.step(picture(3, (60, 90)), StreamState.initial(), always)
    np.testing.assert_array_equal(there.detections.scores, anew.detections.scores)
    assert state.anew('gap').remembered is None
