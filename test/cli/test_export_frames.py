# SPDX-License-Identifier: Apache-2.0
"""Frames for checks and calibration come in clips, however many videos there are."""

from dataclasses import replace

from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.cli.export_frames import load_clips
from forecast_detector_ros.detector.checkpoint import default_checkpoint, load_checkpoint
import pytest


@pytest.mark.parametrize(('count', 'lengths'), [
    (1, [1]), (3, [3]), (5, [5]), (10, [5, 5]), (12, [3, 3, 3, 3]), (24, [6, 6, 6, 6]),
    (90, [7, 7, 7, 7])])
def test_frames_are_spread_in_clips(count, lengths, tmp_path):
    path = write_synthetic_videos(tmp_path, videos=4, frames=7, size=(32, 48), objects=1)
    card = replace(load_checkpoint(default_checkpoint())[1], classes=CLASSES)
    clips = load_clips(path, None, count, card)
    assert [len(clip) for clip in clips] == lengths
    height, width = card.input_size
    assert all(frame.shape == (height, width, 3) for clip in clips for frame in clip)
