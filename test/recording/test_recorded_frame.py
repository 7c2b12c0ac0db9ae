# SPDX-License-Identifier: Apache-2.0
"""Check the summary of a recording, its frame lines and its plot."""
import json
from pathlib import Path

import cv2
from forecast_detector_ros.recording.recorded_frame import RecordedFrame, spread, summarise_frames
from forecast_detector_ros.report.report_figures import plot_decisions
import numpy as np
import pytest

FRAMES = [
    RecordedFrame(0, 'dropped'),
    RecordedFrame(40_000_000, 'read', 'first_frame', latency_ms=30.0, labels=('person', 'bicycle'),
                  scores=(0.9, 0.5)),
    RecordedFrame(80_000_000, 'forecast', 'scheduler', 0.8, 0.5, 1, latency_ms=4.0,
                  labels=('person',), scores=(0.7,), ids=('12',)),
    RecordedFrame(120_000_000, 'dropped'),
    RecordedFrame(160_000_000, 'read', 'scheduler', 0.3, 0.5, 0, latency_ms=20.0),
]


def test_summary_counts_every_frame_once() -> None:
    summary = summarise_frames(FRAMES, frames_in=6)
    assert summary['frames_in'] == 6
    assert summary['frames_recorded'] == 5
    assert (summary['read'], summary['forecast'], summary['processed']) == (2, 1, 3)
    assert summary['dropped'] == 3
    assert summary['dropped_before_first_answer'] == 1
    assert summary['read_ratio'] == pytest.approx(2 / 3)
    assert summary['boxes'] == 3
    assert summary['boxes_per_class'] == {'person': 2, 'bicycle': 1}
    assert summary['frames_with_boxes'] == 2
    assert summary['reasons'] == {'scheduler': 2, 'first_frame': 1}
    assert summary['latency_ms']['read'] == {'count': 2, 'p50': 25.0, 'p95': 29.5, 'max': 30.0}
    json.dumps(summary, allow_nan=False)


def test_summary_of_nothing_has_no_ratio() -> None:
    summary = summarise_frames([], frames_in=0)
    assert summary['read_ratio'] is None
    assert summary['latency_ms']['read']['p50'] is None


def test_spread_leaves_out_what_is_missing() -> None:
    assert spread([None, 1.0, None, 3.0])['count'] == 2


@pytest.mark.parametrize('frame', FRAMES)
def test_frame_line_is_read_back_as_written(frame: RecordedFrame) -> None:
    line = frame.to_line()
    assert '\n' not in line
    assert RecordedFrame.from_line(line) == frame


@pytest.mark.parametrize('line', [
    '', 'text', '{}', '[1]', '{"stamp_ns": 1, "kind": "read", "x": 1}',
    '{"stamp_ns": 1.5, "kind": "read"}', '{"stamp_ns": 1, "kind": "read", "labels": "dog"}'])
def test_other_lines_are_not_frames(line: str) -> None:
    with pytest.raises(ValueError, match='^not a frame record: '):
        RecordedFrame.from_line(line)


def coloured(path: Path) -> tuple[int, int]:
    """Return the numbers of pixels in matplotlib's red and blue."""
    picture = cv2.imread(str(path)).astype(int)
    red = np.abs(picture - (40, 39, 214)).max(axis=2) < 30
    blue = np.abs(picture - (180, 119, 31)).max(axis=2) < 30
    return int(red.sum()), int(blue.sum())


def test_plot_shows_both_decisions(tmp_path: Path) -> None:
    plot_decisions(FRAMES[:1], tmp_path / 'empty.png', 'clip.mp4')
    plot_decisions(FRAMES, tmp_path / 'decisions.png', 'clip.mp4')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['decisions.png', 'empty.png']
    # The legend also has pixels of these colours.
    red, blue = coloured(tmp_path / 'decisions.png')
    red_legend, blue_legend = coloured(tmp_path / 'empty.png')
    assert red > red_legend + 100
    assert blue > blue_legend + 100


def test_dollars_in_a_title_are_not_a_formula(tmp_path: Path) -> None:
    plot_decisions(FRAMES, tmp_path / 'decisions.png', '$x^$.mp4')
    assert cv2.imread(str(tmp_path / 'decisions.png')) is not None


def test_plot_without_frames_is_a_picture(tmp_path: Path) -> None:
    plot_decisions([], tmp_path / 'decisions.png', 'clip.mp4')
    assert cv2.imread(str(tmp_path / 'decisions.png')) is not None
