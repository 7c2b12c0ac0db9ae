# SPDX-License-Identifier: Apache-2.0
"""Convert a recording of the live graph to the record of a run."""

from forecast_detector_ros.report.noted_frames import record_recording
from forecast_detector_ros.report.run_record import RunRecord

from ..helpers.runs import run

FRAMES = run().frames


def test_noted_frames_are_in_the_video():
    record = record_recording('walk', FRAMES, {'path': 'walk.mp4'}, {}, {}, 'annotated.mp4')
    assert RunRecord.from_json(record.to_json()) == record
    assert record.sequences[0].frames == FRAMES and record.sequences[0].timed
    assert [(item.file, item.position) for item in record.noted] == [('annotated.mp4', 3)]
    assert record.accuracy is None and record.model == {}


def test_without_a_video_there_are_no_noted_frames():
    assert record_recording('walk', FRAMES, {}, {}, {}, None).noted == ()
