# SPDX-License-Identifier: Apache-2.0
"""The record of a run survives its file, and other files are refused in one line."""

from dataclasses import replace
import json

from forecast_detector_ros.detector.policy import FORECAST, READ
from forecast_detector_ros.recording.frame_record import DROPPED, RecordedFrame
from forecast_detector_ros.report.run_record import (
    Accuracy,
    ClassAccuracy,
    load_run,
    MarkedBox,
    NotedFrame,
    RunRecord,
    RunRecordError,
    save_run,
    SequenceRecord,
)
import pytest

FRAMES = (RecordedFrame(0, READ, 'first_frame', None, 0.5, 0, 40.0, 3.0, 37.0, 45.5, ('dog',),
                        (0.75,)),
          RecordedFrame(40_000_000, DROPPED),
          RecordedFrame(80_000_000, FORECAST, 'scheduler', 0.9, 0.5, 1, 8.0, 0.0, 8.0))
RUN = RunRecord(
    'a walk', {'path': 'walk.mp4', 'rate': 25.0}, {'name': 'default'}, {'policy': 'always_read'},
    {'cores': 2}, (SequenceRecord('walk', FRAMES, True, 2, 0.5),),
    Accuracy(0.5, None, (ClassAccuracy('dog', 2, 3, 0.25, (1.0, 0.5)),)),
    (NotedFrame('walk', 2, '1 missed', 'walk.mp4', 2, None, (),
                (MarkedBox('dog', (0., 1., 2., 3.)),),
                (MarkedBox('cat', (0., 1., 2., 3.), 0.4),)),), 'the worst')


def test_it_survives_its_file(tmp_path):
    path = tmp_path / 'new/run.json'
    save_run(path, RUN)
    assert load_run(path) == RUN
    assert [item.name for item in path.parent.iterdir()] == ['run.json']


def test_frames_of_all_sequences_follow_each_other():
    two = replace(RUN, sequences=RUN.sequences + (SequenceRecord('b', FRAMES[:1], False),))
    assert two.frames == FRAMES + FRAMES[:1]


def test_objects_are_counted_by_camera():
    frames = (replace(FRAMES[0], ids=('1', '', '2')), FRAMES[1],
              replace(FRAMES[2], ids=('2', '3')), replace(FRAMES[2], ids=('2',), camera='/left'))
    assert SequenceRecord('walk', frames, True).numbered == 4
    assert SequenceRecord('walk', FRAMES, True).numbered is None


def test_record_of_an_earlier_release_is_read(tmp_path):
    document = json.loads(RUN.to_json())
    for item in (document, *document['sequences']):
        del item['identities']
    for frame in document['sequences'][0]['frames']:
        del frame['ids']
    assert RunRecord.from_json(json.dumps(document)) == RUN


def test_kinds_are_checked():
    with pytest.raises(RunRecordError, match="walk: frame 0: kind is 'maybe', must be one of"):
        replace(RUN, sequences=(SequenceRecord('walk', (RecordedFrame(0, 'maybe'),), True),))


@pytest.mark.parametrize('change, words', [
    (lambda d: {**d, 'format': 'other'}, 'format must be'),
    (lambda d: [d], 'not the record of a run'),
    (lambda d: {**d, 'title': 3}, 'title is 3, must be a text'),
    (lambda d: {key: d[key] for key in d if key != 'sequences'}, 'sequences is missing'),
])
def test_other_files_are_one_line(tmp_path, change, words):
    path = tmp_path / 'run.json'
    path.write_text(json.dumps(change(json.loads(RUN.to_json()))))
    with pytest.raises(RunRecordError) as caught:
        load_run(path)
    assert str(caught.value).startswith(f'{path}: ') and words in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('content', [b'{', b'\xff\xfe\xff', b'[' * 100_000])
def test_what_is_no_json_is_one_line(tmp_path, content):
    path = tmp_path / 'run.json'
    path.write_bytes(content)
    with pytest.raises(RunRecordError) as caught:
        load_run(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(RunRecordError, match='none.json: cannot be read: No such file'):
        load_run(tmp_path / 'none.json')
