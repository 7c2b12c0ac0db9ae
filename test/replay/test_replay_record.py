# SPDX-License-Identifier: Apache-2.0
"""A replay becomes the record of a run: the frames worth looking at, with their boxes."""

from forecast_detector_ros.detector.policy import FORECAST, READ
from forecast_detector_ros.metrics.tables import DetectionTable, one_hot, TruthTable
from forecast_detector_ros.recording.frame_record import DROPPED, RecordedFrame
from forecast_detector_ros.replay.replay_record import (
    record_replay,
    ReplayedCamera,
    ScoredCamera,
)
from forecast_detector_ros.report.run_record import MarkedBox, RunRecord
import numpy as np
import pytest

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


def test_numbers_of_the_bag_are_held_against_known_objects():
    pytest.importorskip('trackeval')
    # Frame 4 was dropped; in frame 6 two objects have exchanged their numbers.
    numbers, ids = (3, 4, 5, 6), (('1', '2'), (), ('1', '2'), ('2', '1'))
    frames = tuple(RecordedFrame(n, READ if row else DROPPED, labels=('dog',) * len(row),
                                 scores=(0.5,) * len(row), ids=row)
                   for n, row in zip(numbers, ids))
    places = np.array([3, 3, 5, 5, 6, 6])
    boxes = np.array([[0, 0, 10, 10], [50, 0, 60, 10]] * 3, np.float32)
    dogs = np.ones(6, np.int64)
    shown = DetectionTable(places, boxes, dogs, np.full(6, 0.5, np.float32))
    truth = TruthTable(places, boxes, one_hot(dogs, 2), np.zeros(0, np.int64),
                       np.zeros((0, 4), np.float32), np.array([8, 9] * 3))
    record = record_replay(
        HEAD, [ReplayedCamera('walk/camera', 'walk', '/camera', frames, numbers, shown)],
        [ScoredCamera('walk/camera', 'walk', '/camera', np.array([3, 5, 6]), shown, shown, truth)])
    (walk,) = record.sequences
    assert walk.numbered == 2
    assert walk.identities == record.identities
    assert (walk.identities.objects, walk.identities.boxes) == (2, 6)
    assert walk.identities.switches == 2 and walk.identities.mota == pytest.approx(1 - 2 / 6)
    assert RunRecord.from_json(record.to_json()) == record


def test_nothing_at_all_is_a_record_too():
    record = record_replay(HEAD, [], [])
    assert record.title == 'no bag' and record.frames == ()
