# SPDX-License-Identifier: Apache-2.0
"""Runs of a detector over sequences and still scenes, and recorded latencies."""
from dataclasses import replace
import json

from forecast_detector_ros.detector.policy import AlternatePolicy, AlwaysReadPolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import StreamState
from forecast_detector_ros.evaluation import runs
from forecast_detector_ros.evaluation.runs import (
    Latencies,
    load_latencies,
    milliseconds,
    run_video,
    static_read_ratios,
)
from forecast_detector_ros.evaluation.sequences import as_frame, EvaluationError, picture
import numpy as np
import pytest

SETTINGS = DetectorSettings(policy=AlternatePolicy(2), score_threshold=0.4)


def test_every_frame_is_decided_and_timed(detector, videos):
    (item,) = videos(walk=('dog', 7))
    run = run_video(detector, item, SETTINGS, False)
    assert run.read.tolist() == [True, False, False, True, False, False, True]
    assert np.isnan(run.confidence[0]) and np.all((run.confidence[1:] > 0)
                                                  & (run.confidence[1:] < 1))
    assert np.all(run.inference_ms > 0)
    assert np.all((run.preprocess_ms > 0) == run.read)
    assert run.collected is None


def test_detections_are_those_of_the_detector(detector, videos):
    (item,) = videos(walk=('dog', 4))
    run = run_video(detector, item, SETTINGS, True)
    state = StreamState.initial()
    for number, record in enumerate(item.frames):
        result, state = detector.step(as_frame(picture(record)), state, SETTINGS)
        assert len(result.detections)
        rows = run.shown.select(run.shown.frames == number)
        np.testing.assert_array_equal(rows.boxes, result.detections.boxes)
        np.testing.assert_array_equal(rows.scores, result.detections.scores)


def test_collecting_only_adds_weak_detections(detector, videos):
    (item,) = videos(walk=('dog', 4))
    alone = run_video(detector, item, SETTINGS, False)
    run = run_video(detector, item, SETTINGS, True)
    np.testing.assert_array_equal(run.shown.boxes, alone.shown.boxes)
    assert run.collected.scores.min() < 0.4
    strong = run.collected.select(run.collected.scores > 0.4)
    np.testing.assert_array_equal(strong.boxes, run.shown.boxes)
    np.testing.assert_array_equal(strong.frames, run.shown.frames)


def test_each_sequence_starts_without_state(detector, videos):
    one, two = videos(one=('dog', 2), two=('dog', 2))
    run_video(detector, one, SETTINGS, False)
    after = run_video(detector, two, SETTINGS, False)
    fresh = run_video(detector, two, SETTINGS, False)
    np.testing.assert_array_equal(after.shown.scores, fresh.shown.scores)
    assert after.read[0]


def test_policy_is_that_of_the_settings(detector, videos):
    (item,) = videos(walk=('dog', 3))
    run = run_video(detector, item, replace(SETTINGS, policy=AlwaysReadPolicy()), False)
    assert run.read.all()


def test_fixed_rules_have_their_read_ratio(detector, videos):
    items = videos(one=('dog', 3), two=('dog', 2))
    assert static_read_ratios(detector, items, DetectorSettings(policy=AlwaysReadPolicy()), 6) \
        == {'one': 1.0, 'two': 1.0}
    assert static_read_ratios(detector, items, DetectorSettings(policy=AlternatePolicy(2)), 6) \
        == {'one': 1 / 3, 'two': 1 / 3}


def test_a_still_scene_is_the_first_picture_with_fresh_noise(detector, videos, monkeypatch):
    (item,) = videos(one=('dog', 3))
    opened, shown = [], []
    real = runs.picture

    def watch(record):
        opened.append(record)
        return real(record)

    monkeypatch.setattr(runs, 'picture', watch)
    step = detector.step

    def note(frame, state, settings):
        shown.append(frame.load().array.astype(np.int16))
        return step(frame, state, settings)

    monkeypatch.setattr(detector, 'step', note)
    static_read_ratios(detector, [item], DetectorSettings(policy=AlwaysReadPolicy()), 4, 2.0)
    assert opened == [item.frames[0]]
    assert len(shown) == 4
    difference = shown[1] - shown[0]
    # Images differ by two draws of standard deviation 2, less the effect of rounding and clipping.
    assert 1.0 < difference.std() < 4.0
    assert abs(difference.mean()) < 0.5


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a document."""
    def write(document: object):
        path = tmp_path / 'result.json'
        path.write_text(json.dumps(document))
        return path
    return write


def test_only_the_lists_of_latencies_are_read(write):
    found = load_latencies(write({'latencies_ms': {'read': [40.5, 20, 30], 'forecast': []},
                                  'frames': 3}))
    assert found.values['read'].tolist() == [20, 30, 40.5]
    assert found.values['forecast'].tolist() == []


def test_share_of_the_distribution_gives_a_recorded_value(write):
    found = load_latencies(write({'latencies_ms': {'read': [40, 20, 30, 10]}}))
    assert [found.at('read', share) for share in (0, 0.24, 0.25, 0.5, 0.999)] == [
        10, 10, 20, 30, 40]


def test_missing_kind_is_named_when_it_is_needed(write):
    with pytest.raises(EvaluationError, match='result.json: latencies_ms: .* of a forecast frame'):
        load_latencies(write({'latencies_ms': {'read': [1]}})).at('forecast', 0.5)


def test_draws_depend_on_seed_and_name_alone(tmp_path):
    def draws(seed: int, name: str, frames: int = 50) -> np.ndarray:
        return Latencies(tmp_path, {}, seed).draws(name, frames)

    np.testing.assert_array_equal(draws(0, 'walk'), draws(0, 'walk'))
    np.testing.assert_array_equal(draws(0, 'walk'), draws(0, 'walk', 60)[:50])
    assert not np.array_equal(draws(0, 'walk'), draws(1, 'walk'))
    assert not np.array_equal(draws(0, 'walk'), draws(0, 'run'))
    assert not np.array_equal(draws(0, 'walk'), draws(0, 'not UTF-8: \udce9'))
    assert draws(0, 'walk').min() >= 0 and draws(0, 'walk').max() < 1


@pytest.mark.parametrize('document, message', [
    ([], 'latencies_ms: must hold an object'),
    ({'latency_ms': {}}, 'latencies_ms: must hold an object'),
    ({'latencies_ms': [1, 2]}, 'latencies_ms: must hold an object'),
    ({'latencies_ms': {'read': 5}}, 'latencies_ms.read: must be a list'),
    ({'latencies_ms': {'read': [5], 'forecast': [-1]}}, 'latencies_ms.forecast: must be a list'),
    ({'latencies_ms': {'read': [True]}}, 'latencies_ms.read: must be a list'),
    ({'latencies_ms': {'read': [float('nan')]}}, 'latencies_ms.read: must be a list'),
])
def test_faulty_documents_are_refused(write, document, message):
    with pytest.raises(EvaluationError, match=f'result.json: {message}'):
        load_latencies(write(document))


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match='none.json: cannot be read'):
        load_latencies(tmp_path / 'none.json')
    (tmp_path / 'text.json').write_text('{')
    with pytest.raises(EvaluationError, match='text.json: not valid JSON'):
        load_latencies(tmp_path / 'text.json')


def test_written_values_are_plain_numbers():
    assert json.dumps(milliseconds(np.array([1.23456, 2.0]))) == '[1.235, 2.0]'
