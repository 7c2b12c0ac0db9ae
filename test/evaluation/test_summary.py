# SPDX-License-Identifier: Apache-2.0
"""The figures that are reported, from runs written by hand."""

from dataclasses import replace
import json

from forecast_detector_ros.evaluation.accuracy import as_text, summarise_runs
from forecast_detector_ros.evaluation.runs import VideoRun
from forecast_detector_ros.evaluation.sequences import Video
from forecast_detector_ros.metrics.tables import DetectionTable, one_hot, TruthTable
import numpy as np
import pytest

LABELS = ('cat', 'dog')
A, B = (0, 0, 10, 10), (20, 0, 30, 10)


def detections(*rows):
    return DetectionTable(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32))


def truth(*rows):
    return TruthTable(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        one_hot(np.array([row[1] for row in rows], np.int64), 2),
        np.zeros(0, np.int64), np.zeros((0, 4), np.float32))


@pytest.fixture
def example():
    """Give two sequences of two frames: one half found and half read, one found and read."""
    frame = object()
    one = truth((0, 0, A), (1, 0, A))
    two = truth((0, 1, B), (1, 1, B))
    videos = [Video('one', (frame, frame), one, one), Video('two', (frame, frame), two, two)]
    runs = [
        VideoRun('one', detections((0, 0, 0.9, A)),
                 detections((0, 0, 0.9, A), (1, 0, 0.2, A)), np.array([True, False]),
                 np.array([np.nan, 0.8]), np.array([2.0, 0.0]), np.array([10.0, 4.0])),
        VideoRun('two', detections((0, 1, 0.9, B), (1, 1, 0.8, B)),
                 detections((0, 1, 0.9, B), (1, 1, 0.8, B), (1, 1, 0.85, A)),
                 np.array([True, True]), np.array([np.nan, 0.1]), np.array([2.0, 2.0]),
                 np.array([20.0, 30.0]))]
    return videos, runs


def test_summary_by_hand(example):
    result = summarise_runs(*example, LABELS)
    assert result['sequences']['one'] == {'frames': 2, 'boxes': 2, 'recall': 0.5,
                                          'read_ratio': 0.5}
    assert result['mean_recall'] == 0.75
    assert result['read_ratio'] == 0.75 and result['mean_read_ratio'] == 0.75
    latency = result['latency_ms']
    assert latency['read'] == {'frames': 3, 'p50': 22.0, 'p95': pytest.approx(31.0)}
    assert latency['forecast'] == {'frames': 1, 'p50': 4.0, 'p95': 4.0}
    # Weak detections count here.
    classes = result['ap50']['classes']
    assert classes['cat'] == {'ap50': 1.0, 'boxes': 2, 'detections': 2}
    assert classes['dog'] == {'ap50': pytest.approx(0.5 * 1 + 0.5 * 2 / 3), 'boxes': 2,
                              'detections': 3}


def test_frames_of_different_sequences_are_not_mixed_up(example):
    videos, runs = example
    there = truth((0, 0, A))
    videos = [replace(item, truth=there, labelled=there) for item in videos]
    # Two detections in the first sequence, none in the second.
    runs = [replace(runs[0], collected=detections((0, 0, 0.9, A), (0, 0, 0.8, A))),
            replace(runs[1], collected=detections())]
    assert summarise_runs(videos, runs, LABELS)['ap50']['classes']['cat']['ap50'] == 0.5


def test_sequence_without_boxes_does_not_enter_the_mean(example):
    videos, runs = example
    videos[1] = Video('two', videos[1].frames, truth(), truth())
    result = summarise_runs(videos, runs, LABELS)
    assert result['sequences']['two']['recall'] is None
    assert result['mean_recall'] == 0.5


def test_without_labels_there_is_no_ap(example):
    videos, runs = example
    videos[0] = Video('one', videos[0].frames, videos[0].truth, None)
    result = summarise_runs(videos, runs, LABELS)
    assert result['ap50'] is None and result['thresholds'] is None


def test_precision_by_score_threshold(example):
    rows = {row.pop('score_threshold'): row
            for row in summarise_runs(*example, LABELS, score_threshold=0.87)['thresholds']}
    # Of four boxes two have detections of 0.9; 0.85 is wrong, 0.8 right, and 0.2 is cut off.
    assert rows[0.87] == {'recall': 0.5, 'precision': 1.0, 'f1': pytest.approx(2 / 3),
                          'boxes_a_frame': 0.5}
    assert rows[0.2] == {'recall': 0.75, 'precision': 0.75, 'f1': 0.75, 'boxes_a_frame': 1.0}
    assert list(rows) == sorted(rows)


def test_summary_is_json_and_text(example):
    result = summarise_runs(*example, LABELS)
    json.dumps(result, allow_nan=False)
    text = as_text(result)
    assert ['mean', 'over', 'sequences', '0.750', '0.750'] in map(str.split, text.splitlines())
    assert 'forecast       1     4.0     4.0' in text
    assert ['0.200', '0.750', '0.750', '0.750', '1.000'] in map(str.split, text.splitlines())


def test_a_decision_that_never_came_has_no_latency(example):
    videos, runs = example
    result = summarise_runs(videos[1:], runs[1:], LABELS)
    assert result['latency_ms']['forecast'] == {'frames': 0, 'p50': None, 'p95': None}
    assert 'forecast       0       -       -' in as_text(result)
