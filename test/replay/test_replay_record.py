# SPDX-License-Identifier: Apache-2.0
"""A replay becomes the record of a run: the frames worth looking at, with their boxes."""

from forecast_detector_ros.detector.policy import FORECAST, READ
from forecast_detector_ros.replay.replay_record import record_replay, ReplayedCamera
from forecast_detector_ros.report.run_record import MarkedBox, RunRecord

from ..helpers.boxes import A, B, detections
from ..helpers.runs import frame

HEAD = {'labels': ['cat', 'dog'], 'model': {}, 'machine': {'cores': 2}, 'device': 'cpu',
        'options': dict.fromkeys(('policy', 'score_threshold', 'nms_threshold', 'classes',
                                  'max_detections', 'max_consecutive_forecasts', 'mode',
                                  'latency', 'max_gap_s', 'annotations', 'truth_topic'))}


def test_frames_at_which_boxes_come_carry_the_numbers_of_their_images():
    # Image 1 was refused, so the second frame is image 2.
    camera = ReplayedCamera(
        'walk/camera', 'bags/walk', '/camera', (frame(0, READ), frame(2, FORECAST, 'dog', 'cat')),
        (0, 2), detections((2, 1, .8, A), (2, 0, .7, B)))
    record = record_replay(HEAD, [camera], [], ['walk: its end is lost'])
    assert RunRecord.from_json(record.to_json()) == record
    (noted,) = record.noted
    assert (noted.number, noted.position, noted.topic, noted.kind) == (2, 2, '/camera', FORECAST)
    assert noted.file.endswith('/bags/walk') and noted.note == '+1 cat, +1 dog'
    assert noted.found == (MarkedBox('dog', A, 0.8), MarkedBox('cat', B, 0.7))
    assert record.source['lost'] == 'walk: its end is lost' and record.accuracy is None
    assert record.machine == {'cores': 2, 'device': 'cpu'}


def test_nothing_at_all_is_a_record_too():
    record = record_replay(HEAD, [], [])
    assert record.title == 'no bag' and record.frames == ()
