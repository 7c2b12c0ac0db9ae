# SPDX-License-Identifier: Apache-2.0
"""AP by motion: rules by hand, properties, and a comparison with a slow version."""

from forecast_detector_ros.metrics.average_precision import (
    ApRules,
    average_precision,
    DEVKIT,
    GROUPS,
    in_group,
    PLAIN,
    vid_average_precision,
)
from forecast_detector_ros.metrics.tables import DetectionTable, TruthTable
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from ..helpers.boxes import (
    A,
    B,
    boxes,
    C,
    CLASSES,
    detections,
    frames,
    labels,
    NOWHERE,
    truth,
    truth_rows,
)

SLOW, MEDIUM, FAST = 0.95, 0.8, 0.3


def slow_overlap(a: list[float], b: list[float]) -> float:
    """Return the IoU of the devkit, whose corners are the first and the last pixel."""
    a, b = ([*box[:2], box[2] - 1, box[3] - 1] for box in (a, b))
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    shared = width * height if width > 0 and height > 0 else 0.0
    area = sum((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b))
    return shared / (area - shared) if area - shared else 0.0


def slow_ap(found: DetectionTable, there: TruthTable, rules: ApRules, motion: list[float],
            low: float, high: float) -> list[float]:
    """Return the AP of every class for one range of motion, frame by frame and box by box."""
    targets, classes = there.boxes.tolist(), there.accepted.argmax(1).tolist()
    outside = [not low <= value <= high for value in motion]
    hits, mistakes = [0.0] * len(found), [0.0] * len(found)
    for frame in set(found.frames.tolist()):
        here = [j for j in range(len(targets)) if there.frames[j] == frame]
        free = set(here)
        rows = [i for i in range(len(found)) if found.frames[i] == frame]
        for i in sorted(rows, key=lambda i: -found.scores[i]):
            box = found.boxes[i].tolist()
            over = {j: slow_overlap(box, targets[j]) for j in here}
            fitting = []
            for j in free:
                sides = [targets[j][2] - targets[j][0], targets[j][3] - targets[j][1]]
                enough = min(rules.iou_threshold, sides[0] * sides[1] / (
                    (sides[0] + rules.tolerance) * (sides[1] + rules.tolerance)))
                if classes[j] == found.labels[i] and over[j] >= enough:
                    fitting.append((-over[j], targets[j][::-1], j))
            if fitting:
                chosen = min(fitting)[-1]
                free.remove(chosen)
                hits[i] = 0.0 if outside[chosen] else 1.0
                continue
            most_in = max([over[j] for j in here if not outside[j]], default=-1)
            most_out = max([over[j] for j in here if outside[j]], default=-1)
            if not here:
                mistakes[i] = 1 - sum(outside) / len(outside)
            elif most_in == most_out:
                mistakes[i] = sum(outside[j] for j in here) / len(here)
            else:
                mistakes[i] = float(most_in > most_out)
    result = []
    for label in range(CLASSES):
        rows = [i for i in range(len(found)) if found.labels[i] == label]
        rows.sort(key=lambda i: -found.scores[i])
        wanted = sum(c == label and not out for c, out in zip(classes, outside))
        right = wrong = 0.0
        points = []
        for i in rows:
            right, wrong = right + hits[i], wrong + mistakes[i]
            points.append((right, right / (right + wrong) if right + wrong else 0.0))
        area, reached = 0.0, 0.0
        for n, (count, _) in enumerate(points):
            area += (count - reached) * max(p for _, p in points[n:])
            reached = count
        result.append(area / wanted if wanted else float('nan'))
    return result


def test_bounds_belong_to_both_groups():
    values = np.array([1.0, 0.9, 0.7, 0.0, np.nan])
    assert in_group(values, 'slow').tolist() == [True, True, False, False, False]
    assert in_group(values, 'medium').tolist() == [False, True, True, False, False]
    assert in_group(values, 'fast').tolist() == [False, False, True, True, False]


def test_boxes_outside_a_group_are_ignored():
    there = truth((0, 0, A), (0, 0, B), (0, 0, C))
    found = detections(
        (0, 0, 0.9, A),                # hits the slow box
        (0, 0, 0.8, (0, 0, 10, 4)),    # no free box; overlaps most with the slow box
        (0, 0, 0.7, (20, 0, 30, 4)),   # too small; overlaps most with the medium box
        (0, 0, 0.6, C))                # hits the fast box
    result = vid_average_precision(found, there, PLAIN, np.array([SLOW, MEDIUM, FAST]))
    assert result.whole.mean == pytest.approx((1 + 2 / 4) / 3)
    assert result.groups['slow'].mean == 1.0
    assert result.groups['medium'].mean == 0.0
    # Detections that overlap boxes of other groups are no mistakes of this group.
    assert result.groups['fast'].mean == 1.0
    assert [result.groups[name].boxes.tolist() for name in GROUPS] == [[1, 0, 0]] * 3
    assert [result.groups[name].detections[0] for name in GROUPS] == [2, 1, 1]
    assert result.fractions == pytest.approx({name: 1 / 3 for name in GROUPS})


def test_mistake_without_overlap_weighs_as_the_share_of_other_boxes():
    there = truth((0, 0, A), (0, 0, B), (0, 0, C))
    found = detections((0, 0, 0.9, NOWHERE), (0, 0, 0.8, A), (0, 0, 0.7, B), (0, 0, 0.6, C))
    result = vid_average_precision(found, there, PLAIN, np.array([SLOW, FAST, FAST]))
    assert result.groups['slow'].mean == pytest.approx(1 / (1 + 2 / 3))
    assert result.groups['fast'].mean == pytest.approx(2 / (2 + 1 / 3))


def test_mistake_in_an_empty_frame_weighs_as_the_share_of_the_group():
    there = truth((0, 0, A), (0, 0, B), (0, 0, C))
    found = detections((1, 0, 0.9, A), (0, 0, 0.8, A), (0, 0, 0.7, B), (0, 0, 0.6, C))
    result = vid_average_precision(found, there, PLAIN, np.array([SLOW, FAST, FAST]))
    assert result.groups['slow'].mean == pytest.approx(1 / (1 + 1 / 3))
    assert result.groups['fast'].mean == pytest.approx(2 / (2 + 2 / 3))
    assert np.isnan(result.groups['medium'].mean)


def test_the_other_box_may_be_of_another_class():
    there = truth((0, 0, A), (0, 1, B))
    found = detections((0, 0, 0.9, B), (0, 0, 0.8, A))
    result = vid_average_precision(found, there, PLAIN, np.array([SLOW, FAST]))
    assert result.whole.per_class[0] == 0.5 and result.groups['slow'].per_class[0] == 1.0


def test_ignore_region_has_effect_in_every_group():
    there = truth((0, 0, A), ignore=((0, NOWHERE),))
    found = detections((0, 0, 0.9, NOWHERE), (0, 0, 0.8, A))
    result = vid_average_precision(found, there, PLAIN, np.array([SLOW]))
    assert result.whole.mean == 1.0 and result.groups['slow'].mean == 1.0


def test_unknown_motion_belongs_to_no_group():
    there = truth((0, 0, A), (0, 0, B))
    found = detections((0, 0, 0.9, A), (0, 0, 0.8, B))
    result = vid_average_precision(found, there, PLAIN, np.array([np.nan, FAST]))
    assert result.groups['fast'].mean == 1.0 and result.groups['fast'].boxes.sum() == 1
    assert result.groups['slow'].boxes.sum() == 0


def test_number_of_detections_has_no_limit():
    # The 100 detections of the highest score are wrong, the last one is right.
    found = detections(*((0, 0, 0.9, NOWHERE) for _ in range(100)), (0, 0, 0.5, A))
    assert vid_average_precision(found, truth((0, 0, A))).whole.mean == pytest.approx(1 / 101)


def test_without_motion_there_are_no_groups():
    result = vid_average_precision(detections((0, 0, 0.5, A)), truth((0, 0, A)))
    assert (result.whole.mean, result.groups, result.fractions) == (1.0, {}, {})


def test_motion_must_fit_the_boxes():
    with pytest.raises(ValueError, match=r'shape \(2,\), must be \(1,\)'):
        vid_average_precision(detections(), truth((0, 0, A)), motion_iou=np.zeros(2))


rules = st.sampled_from([PLAIN, DEVKIT, ApRules(0.75)])
speeds = st.sampled_from([0.0, 0.2, 0.7, 0.8, 0.9, 1.0])
moving = st.lists(st.tuples(st.tuples(frames, labels, boxes), speeds), min_size=1, max_size=10)


@st.composite
def ranked(draw) -> DetectionTable:
    """Draw detections with distinct scores, some of them in frames without boxes."""
    rows = draw(st.lists(st.tuples(st.integers(0, 4), labels, boxes), max_size=15))
    scores = draw(st.permutations(range(1, len(rows) + 1)))
    return detections(*((frame, label, score / 16, box)
                        for (frame, label, box), score in zip(rows, scores)))


@given(ranked(), moving, rules)
def test_agrees_with_the_slow_version(found, there_and_motion, chosen):
    there = truth(*(row for row, _ in there_and_motion))
    motion = [speed for _, speed in there_and_motion]
    result = vid_average_precision(found, there, chosen, np.array(motion))
    np.testing.assert_allclose(result.whole.per_class,
                               slow_ap(found, there, chosen, motion, 0, 1))
    for name, (low, high) in GROUPS.items():
        np.testing.assert_allclose(result.groups[name].per_class,
                                   slow_ap(found, there, chosen, motion, low, high))


@given(ranked(), moving, rules, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(found, there_and_motion, chosen, random):
    def score(rows: np.ndarray) -> list[np.ndarray]:
        there = truth(*(row for row, _ in there_and_motion))
        motion = np.array([speed for _, speed in there_and_motion])
        result = vid_average_precision(found.select(rows), there, chosen, motion)
        return [item.per_class for item in (result.whole, *result.groups.values())]

    # Of equal boxes one is kept, because only the order tells their speeds apart.
    there_and_motion = list({row: (row, speed) for row, speed in there_and_motion}.values())
    rows = list(range(len(found)))
    before = score(np.array(rows, np.int64))
    random.shuffle(rows)
    random.shuffle(there_and_motion)
    np.testing.assert_allclose(score(np.array(rows, np.int64)), before)


@given(truth_rows, st.data())
def test_perfect_detections_score_one_in_every_group(truth_list, data):
    motion = np.array([data.draw(speeds) for _ in truth_list])
    # Equal boxes are removed, because a detection could hit either of them.
    places = dict(zip(truth_list, motion))
    there = truth(*places)
    found = detections(*((frame, label, data.draw(st.floats(0.05, 1.0)), box)
                         for frame, label, box in places))
    result = vid_average_precision(found, there, ApRules(1.0), np.array(list(places.values())))
    for item in (result.whole, *result.groups.values()):
        assert np.isnan(item.mean) if not item.boxes.sum() else item.mean == pytest.approx(1.0)


@given(ranked(), truth_rows, rules)
def test_group_of_all_boxes_is_the_whole(found, truth_list, chosen):
    there = truth(*truth_list)
    result = vid_average_precision(found, there, chosen, np.full(len(there), FAST))
    whole = average_precision(found, there, chosen)
    np.testing.assert_array_equal(result.whole.per_class, whole.per_class)
    np.testing.assert_allclose(result.groups['fast'].per_class, whole.per_class)
