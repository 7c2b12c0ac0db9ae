# SPDX-License-Identifier: Apache-2.0
"""Write and read the record of a run; check that other files are refused in one line."""

from dataclasses import replace
from functools import reduce
import json

from forecast_detector_ros.detector.policy import FORECAST, READ
from forecast_detector_ros.plain_values import MOST_LEVELS
from forecast_detector_ros.recording.recorded_frame import DROPPED, RecordedFrame
from forecast_detector_ros.report.run_record import (
    Accuracy,
    ClassAccuracy,
    latency_rows,
    load_run,
    MarkedBox,
    NotedFrame,
    RATIO_FRAMES,
    RunRecord,
    RunRecordError,
    RunView,
    save_run,
    SequenceRecord,
)
from hypothesis import given, strategies as st
import numpy as np
import pytest

from ..helpers.runs import frame, run, two_sequences

FRAMES = (RecordedFrame(0, READ, 'first_frame', None, 0.5, 0, 40.0, 3.0, 37.0, 45.5, ('dog',),
                        (0.75,)),
          RecordedFrame(40_000_000, DROPPED),
          RecordedFrame(80_000_000, FORECAST, 'scheduler', 0.9, 0.5, 1, 8.0, 0.0, 8.0))
RUN = RunRecord(
    'a walk', {'path': 'walk.mp4', 'rate': 25.0}, {'name': 'default'}, {'policy': 'always_read'},
    {'cores': 2}, (SequenceRecord('walk', FRAMES, True, 2, 0.5),),
    Accuracy(0.5, None, (ClassAccuracy('dog', 2, 3, 0.25, (1.0,) * 101),)),
    (NotedFrame('walk', 2, '1 missed', 'walk.mp4', 2, None, (),
                (MarkedBox('dog', (0., 1., 2., 3.)),),
                (MarkedBox('cat', (0., 1., 2., 3.), 0.4),)),), 'the worst')


def test_record_is_read_as_written(tmp_path):
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
    for line in document['sequences'][0]['frames']:
        del line['ids']
    assert RunRecord.from_json(json.dumps(document)) == RUN


def test_kinds_are_checked():
    with pytest.raises(RunRecordError, match="walk: frame 0: kind is 'maybe', must be one of"):
        replace(RUN, sequences=(SequenceRecord('walk', (RecordedFrame(0, 'maybe'),), True),))


@pytest.mark.parametrize('change, words', [
    (lambda d: {**d, 'format': 'other'}, 'format must be'),
    (lambda d: [d], 'not the record of a run'),
    (lambda d: {**d, 'title': 3}, 'title is 3, must be a text'),
    (lambda d: {key: d[key] for key in d if key != 'sequences'}, 'sequences is missing'),
    (lambda d: {**d, 'source': reduce(lambda inner, _: [inner], range(MOST_LEVELS + 10), {})},
     'nested more'),
    (lambda d: {**d, 'accuracy': {**d['accuracy'], 'classes': [
        {'label': 'dog', 'boxes': 2, 'detections': 3, 'ap50': 0.5, 'precision': [1.0, 0.5]}]}},
     'accuracy.classes[0]: precision of dog has 2 values, must have 101'),
])
def test_other_files_are_one_line(tmp_path, change, words):
    path = tmp_path / 'run.json'
    path.write_text(json.dumps(change(json.loads(RUN.to_json()))))
    with pytest.raises(RunRecordError) as caught:
        load_run(path)
    assert str(caught.value).startswith(f'{path}: ') and words in str(caught.value)
    assert '\n' not in str(caught.value)


def test_characters_that_no_page_can_hold_are_replaced():
    record = replace(RUN, title='a\0b\ud800', source={'\x1b': ['é\t\U0001f600']})
    read = RunRecord.from_json(record.to_json())
    assert (read.title, read.source) == ('a\ufffdb\ufffd', {'\ufffd': ['é\t\U0001f600']})


@pytest.mark.parametrize('content', [b'{', b'\xff\xfe\xff', b'[' * 100_000])
def test_file_that_is_not_json_is_one_line(tmp_path, content):
    path = tmp_path / 'run.json'
    path.write_bytes(content)
    with pytest.raises(RunRecordError) as caught:
        load_run(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(RunRecordError, match='none.json: cannot be read: No such file'):
        load_run(tmp_path / 'none.json')


def of(kinds, *labels):
    frames = tuple(frame(number, kind, *labels) for number, kind in enumerate(kinds))
    return RunView.of(run(sequences=(SequenceRecord('walk', frames, True),)))


def test_axis_of_one_timed_sequence_is_in_seconds():
    view = RunView.of(run())
    np.testing.assert_allclose(view.x, [0, 0.1, 0.2, 0.3, 0.4])
    assert view.unit == 'time, s' and view.starts == (('walk', 0.0),)
    assert view.rows(DROPPED).tolist() == [2]
    np.testing.assert_array_equal(view.values('confidence'), [0.4, 0.8, np.nan, 0.4, 0.8])


def test_axis_increases_if_the_clock_is_set_back():
    frames = tuple(replace(frame(n), stamp_ns=stamp) for n, stamp in enumerate((7, 9, 3, 20)))
    view = RunView.of(run(sequences=(SequenceRecord('walk', frames, True),)))
    assert np.all(np.diff(view.x) >= 0)


def test_several_sequences_follow_each_other():
    view = RunView.of(two_sequences())
    assert view.x.tolist() == list(range(7)) and view.unit == 'frame'
    assert view.starts == (('a/long name', 0.0), ('b', 5.0))


@given(st.lists(st.sampled_from([READ, FORECAST, DROPPED]), min_size=1, max_size=80))
def test_moving_ratio_is_the_mean_over_the_answered_neighbours(kinds):
    view = of(kinds)
    places, ratio = view.read_ratio()
    answered = [number for number, kind in enumerate(kinds) if kind != DROPPED]
    np.testing.assert_array_equal(places, view.x[answered])
    half = RATIO_FRAMES // 2
    wanted = [np.mean([kinds[n] == READ for n in answered[max(0, i - half):i + half + 1]])
              for i in range(len(answered))]
    np.testing.assert_allclose(ratio, wanted)


@given(st.lists(st.sampled_from([READ, DROPPED]), min_size=1, max_size=30), st.integers(1, 40))
def test_density_keeps_every_box(kinds, bins):
    view = of(kinds, 'dog', 'dog', 'cat')
    edges, density = view.density(['dog', 'cat'], bins)
    assert len(edges) == density.shape[1] + 1 <= bins + 1 and np.all(np.diff(edges) > 0)
    known = density[:, ~np.isnan(density[0])]
    # Every answered frame has two dogs and a cat, for any number of bins.
    np.testing.assert_allclose(known, np.array([[2.0], [1.0]]) * np.ones(known.shape))
    assert known.shape[1] > 0 or READ not in kinds


def test_latencies_by_decision():
    rows = latency_rows(RunView.of(run()))
    assert [row['decision'] for row in rows] == [READ, FORECAST, 'all']
    read = rows[0]
    assert (read['frames'], read['mean'], read['max']) == (2, 41.5, 43.0)
    assert read['p50'] == pytest.approx(41.5) and read['p90'] == pytest.approx(42.7)
    assert latency_rows(of([DROPPED])) == []
