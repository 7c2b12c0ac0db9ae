# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the metrics, with small tables."""

from forecast_detector_ros.cli import benchmark_metrics
from forecast_detector_ros.cli.benchmark_metrics import make_tables, Workload
from forecast_detector_ros.metrics.average_precision import (
    GROUPS,
    in_group,
    motion_iou,
    vid_average_precision,
)
import numpy as np
import pytest


def test_every_part_is_timed(capsys):
    assert benchmark_metrics.main(['--frames', '2000', '--boxes', '3000',
                                   '--detections-per-frame', '5']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '2000 frames, 3000 boxes, 10000 detections'
    figures = {line[:24].strip(): float(line[24:]) for line in lines[1:]}
    assert set(figures) == {f'{part} {clock} s' for part in ('motion IoU', 'plain', 'devkit')
                            for clock in ('wall', 'processor')} | {'max_rss_gb'}
    assert all(value >= 0 for value in figures.values()) and figures['max_rss_gb'] > 0.01


@pytest.mark.parametrize('arguments', [['--frames', '0'], ['--boxes', 'x']])
def test_bad_numbers_are_refused(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        benchmark_metrics.main(arguments)
    assert stop.value.code == 2 and arguments[0] in capsys.readouterr().err


LOAD = Workload(frames=3000, boxes=4500, classes=5, videos=10, detections_per_frame=4)


def test_size_and_content():
    detections, truth = make_tables(LOAD)
    assert (len(truth), len(detections)) == (4500, 12000)
    assert truth.accepted.shape == (4500, 5) and np.all(truth.accepted.sum(1) == 1)
    assert truth.frames.min() >= 0 and truth.frames.max() < 3000
    assert np.all(np.bincount(detections.frames, minlength=3000) == 4)
    for table in (truth.boxes, detections.boxes):
        assert table.dtype == np.float32 and np.all(table[:, 2:] > table[:, :2])
    # A track is one object, so it has one class, and at most one box in a frame.
    keys = truth.tracks * 3000 + truth.frames
    assert len(np.unique(keys)) == len(keys)
    for track in np.unique(truth.tracks)[:20]:
        assert len(set(truth.labels[truth.tracks == track])) == 1


def test_all_kinds_of_motion_and_both_hits_and_misses():
    detections, truth = make_tables(LOAD)
    motion = motion_iou(truth)
    assert all(in_group(motion, name).mean() > 0.05 for name in GROUPS)
    assert 0.02 < vid_average_precision(detections, truth, motion_iou=motion).whole.mean < 0.9


def test_tables_depend_on_the_seed_alone():
    one, other, third = (make_tables(Workload(50, 60, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one[0].boxes, other[0].boxes)
    np.testing.assert_array_equal(one[1].boxes, other[1].boxes)
    assert not np.array_equal(one[1].boxes, third[1].boxes)
