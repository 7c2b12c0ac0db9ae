# SPDX-License-Identifier: Apache-2.0
"""A recording of the live graph becomes the record of a run."""

from forecast_detector_ros.report.noted_frames import record_recording
from forecast_detector_ros.report.run_record import RunRecord

from ..helpers.runs import run

FRAMES = run().frames


def test_frames_to_look_at_lie_in_the_video():
    record = record_recording('walk', FRAMES, {'path': 'walk.mp4'}, {}, {}, 'annotated.mp4')
    assert RunRecord.from_json(record.to_json()) == record
    assert record.sequences[0].frames == FRAMES and record.sequences[0].timed
    assert [(item.file, item.position) for item in record.noted] == [('annotated.mp4', 3)]
    assert record.accuracy is None and record.model == {}


def test_without_a_video_there_is_nothing_to_look_at():
    assert record_recording('walk', FRAMES, {}, {}, {}, None).noted == ()
