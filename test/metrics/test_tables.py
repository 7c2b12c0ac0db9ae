# SPDX-License-Identifier: Apache-2.0
"""Tables in files, and the matching of detections with boxes."""
from dataclasses import fields

from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.metrics.tables import (
    DetectionTable,
    frame_pairs,
    join_sequences,
    load_tables,
    match,
    one_hot,
    save_tables,
    TruthTable,
)
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from ..helpers.boxes import CLASSES, detections, truth


def test_loaded_tables_equal_those_saved(tmp_path):
    rng = np.random.default_rng(0)
    detections = DetectionTable(rng.integers(0, 9, 5), rng.random((5, 4), np.float32),
                                rng.integers(0, 3, 5), rng.random(5, np.float32))
    truth = TruthTable(rng.integers(0, 9, 4), rng.random((4, 4), np.float32),
                       one_hot(rng.integers(0, 3, 4), 3), rng.integers(0, 9, 2),
                       rng.random((2, 4), np.float32))
    groups = {'/camera/left': {'shown': detections, 'truth': truth, 'annotated': np.arange(3)},
              '/camera/right': {'shown': DetectionTable.join([])}}
    save_tables(tmp_path / 'tables.npz', groups)
    found = load_tables(tmp_path / 'tables.npz')
    assert {name: set(group) for name, group in found.items()} == {
        name: set(group) for name, group in groups.items()}
    for name, group in groups.items():
        for key, value in group.items():
            again = found[name][key]
            assert type(again) is type(value)
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(again, value)
                continue
            for field in fields(value):
                one, other = getattr(value, field.name), getattr(again, field.name)
                assert one.dtype == other.dtype and one.shape == other.shape
                np.testing.assert_array_equal(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ['tables.npz']


def test_other_files_are_one_line(tmp_path):
    (tmp_path / 'text').write_text('something else')
    np.savez(tmp_path / 'other.npz', a=np.zeros(2))
    (tmp_path / 'empty').touch()
    save_tables(tmp_path / 'damaged', {'group': {'array': np.arange(9)}})
    data = bytearray((tmp_path / 'damaged').read_bytes())
    # These bytes are in the compressed data behind the header of the archive.
    data[70:90] = b'\xff' * 20
    (tmp_path / 'damaged').write_bytes(data)
    for name in ('text', 'other.npz', 'none', 'empty', 'damaged'):
        with pytest.raises(DataError) as caught:
            load_tables(tmp_path / name)
        assert name in str(caught.value) and '\n' not in str(caught.value)


SQUARE = (0, 0, 10, 10)


def slow_match(found: DetectionTable, there: TruthTable, threshold: float) -> list[int]:
    """Match the detections one by one with plain Python numbers."""
    def overlap(a: list[float], b: list[float]) -> float:
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0) * max(height, 0)
        union = ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
        return shared / union if union else 0.0

    boxes, targets = found.boxes.tolist(), there.boxes.tolist()
    result, taken = [-1] * len(boxes), set()
    for i in sorted(range(len(boxes)), key=lambda i: (
            -found.scores[i], boxes[i][::-1], found.labels[i])):
        fitting = [
            (-overlap(boxes[i], targets[j]), targets[j][::-1],
             there.accepted[j].tolist()[::-1], j)
            for j in range(len(targets)) if j not in taken
            and found.frames[i] == there.frames[j] and there.accepted[j, found.labels[i]]
            and overlap(boxes[i], targets[j]) >= threshold]
        if fitting:
            result[i] = min(fitting)[-1]
            taken.add(result[i])
    return result


def test_rows_are_paired_by_frame():
    left, right = frame_pairs(np.array([3, 1, 2, 3]), np.array([3, 0, 1, 3]))
    assert set(zip(left.tolist(), right.tolist())) == {(0, 0), (0, 3), (1, 2), (3, 0), (3, 3)}


@pytest.mark.parametrize('box, hit', [((0, 0, 10, 5), True), ((0, 0, 10, 4.99), False)])
def test_overlap_of_exactly_one_half_counts(box, hit):
    result = match(detections((0, 0, 0.9, box)), truth((0, 0, SQUARE)))
    assert result.tolist() == [0 if hit else -1]


@pytest.mark.parametrize('frame, label', [(1, 0), (0, 1)])
def test_other_frame_or_class_is_no_hit(frame, label):
    result = match(detections((frame, label, 0.9, SQUARE)), truth((0, 0, SQUARE)))
    assert result.tolist() == [-1]


def test_the_better_score_wins_the_box():
    found = detections((0, 0, 0.5, SQUARE), (0, 0, 0.9, (0, 0, 10, 8)))
    assert match(found, truth((0, 0, SQUARE))).tolist() == [-1, 0]


def test_a_loser_takes_the_next_best_box():
    # Both detections prefer box 0; the weaker one also overlaps box 1 enough.
    there = truth((0, 0, (0, 0, 10, 10)), (0, 0, (0, 2, 10, 12)))
    found = detections((0, 0, 0.9, (0, 0, 10, 10)), (0, 0, 0.8, (0, 0.5, 10, 10.5)))
    assert match(found, there).tolist() == [0, 1]


def test_chain_is_matched_as_one_by_one():
    # Each box overlaps two successive detections, so one round does not match all of them.
    there = truth(*((0, 0, (0, 3 * i, 10, 3 * i + 10)) for i in range(5)))
    found = detections(*((0, 0, 0.9 - 0.1 * i, (0, 3 * i + 1, 10, 3 * i + 11))
                         for i in range(5)))
    assert match(found, there).tolist() == slow_match(found, there, 0.5) == [0, 1, 2, 3, 4]


def test_box_that_accepts_two_classes_is_hit_once():
    there = truth((0, 0, SQUARE))
    there.accepted[:] = True
    found = detections((0, 1, 0.9, SQUARE), (0, 0, 0.8, SQUARE))
    assert match(found, there).tolist() == [0, -1]


def test_empty_tables_match_nothing():
    assert match(detections(), truth((0, 0, SQUARE))).tolist() == []
    assert match(detections((0, 0, 0.9, SQUARE)), truth()).tolist() == [-1]


# The numbers have few values, so that overlaps and ties are frequent.
boxes = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 4), st.integers(1, 4)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
labels = st.integers(0, CLASSES - 1)
frames = st.integers(0, 2)
found_rows = st.lists(
    st.tuples(frames, labels, st.sampled_from([0.1, 0.3, 0.5, 0.7]), boxes), max_size=12)
truth_rows = st.lists(st.tuples(frames, labels, boxes), max_size=8)


@given(found_rows, truth_rows, st.sampled_from([0.1, 0.3, 0.5]))
def test_agrees_with_the_slow_version(found_list, truth_list, threshold):
    found, there = detections(*found_list), truth(*truth_list)
    mine, slow = match(found, there, threshold), slow_match(found, there, threshold)

    # Equal rows are interchangeable, so the test compares values and not row numbers.
    def values(rows):
        return sorted((int(found.frames[i]), found.boxes[i].tolist(), int(found.labels[i]),
                       float(found.scores[i]), there.boxes[j].tolist())
                      for i, j in enumerate(rows) if j >= 0)

    assert values(mine) == values(slow)


@given(found_rows, truth_rows)
def test_no_box_is_taken_twice(found_list, truth_list):
    matched = match(detections(*found_list), truth(*truth_list), 0.3)
    taken = matched[matched >= 0]
    assert len(set(taken.tolist())) == len(taken)


@given(st.lists(st.tuples(found_rows, truth_rows), min_size=1, max_size=3))
def test_joined_sequences_match_as_each_alone(sequences):
    tables = [(detections(*found), truth(*there)) for found, there in sequences]
    joined = join_sequences([3] * len(tables), *zip(*tables))
    alone, start = [], 0
    for found, there in tables:
        alone += [row + start if row >= 0 else -1 for row in match(found, there, 0.3).tolist()]
        start += len(there)
    assert match(*joined, 0.3).tolist() == alone
