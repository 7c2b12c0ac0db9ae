# SPDX-License-Identifier: Apache-2.0
"""Boxes of several detectors become one set: by hand, and against a plain loop."""

from forecast_detector_ros.labelling.box_fusion import fuse_boxes
from forecast_detector_ros.labelling.teacher import TeacherBoxes
import numpy as np
import pytest

CLASSES = 3


def found(*rows):
    """Make a detector's boxes of rows (x0, y0, x1, y1, label, score)."""
    values = np.array(rows, float).reshape(-1, 6)
    return TeacherBoxes(values[:, :4].astype(np.float32), values[:, 4].astype(np.int64),
                        values[:, 5].astype(np.float32))


def fuse(*members, knows=None, weights=None, min_score=0.0, **settings):
    knows = np.ones((len(members), CLASSES), bool) if knows is None else np.array(knows)
    return fuse_boxes(members, knows, weights or [1.0] * len(members), min_score, **settings)


def plain_loop(members, knows, weights, iou):
    """Fuse as the definition says, object by object; boxes as rows, best score first."""
    entries = sorted(((*box, label, score, m) for m, member in enumerate(members)
                      for box, label, score in zip(member.boxes.tolist(), member.labels.tolist(),
                                                   member.scores.tolist())),
                     key=lambda entry: -entry[5] * weights[entry[6]])
    objects = []
    for *box, label, score, m in entries:
        best, best_overlap = None, iou
        for thing in (thing for thing in objects if thing['label'] == label):
            low, high = np.maximum(box[:2], thing['box'][:2]), np.minimum(box[2:],
                                                                          thing['box'][2:])
            inner = np.prod(np.maximum(high - low, 0))
            area = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, thing['box'])]
            if inner / (sum(area) - inner) > best_overlap:
                best, best_overlap = thing, inner / (sum(area) - inner)
        if best is None:
            best = {'label': label, 'members': {}}
            objects.append(best)
        elif m in best['members']:
            continue
        best['members'][m] = (np.array(box), score)
        best['box'] = np.average([b for b, _ in best['members'].values()], axis=0,
                                 weights=[s * weights[k]
                                          for k, (_, s) in best['members'].items()])
    rows = [(*thing['box'], thing['label'],
             sum(s * weights[k] for k, (_, s) in thing['members'].items())
             / sum(w for w, known in zip(weights, knows) if known[thing['label']]))
            for thing in objects]
    return np.array(sorted(rows, key=lambda row: -row[5]))


@pytest.mark.parametrize('seed', range(8))
def test_as_the_definition_says(seed):
    rng = np.random.default_rng(seed)
    objects = rng.uniform(0, 80, (9, 2))
    members = []
    for _ in range(3):
        low = objects[rng.integers(0, 9, 14)] + rng.normal(0, 2.0, (14, 2))
        size = rng.uniform(16, 24, (14, 2))
        members.append(found(*np.column_stack((low, low + size, rng.integers(0, CLASSES, 14),
                                               rng.uniform(0.1, 1.0, 14)))))
    knows = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1]], bool)
    weights = [1.0, 2.0, 0.5]
    wanted = plain_loop(members, knows, weights, 0.55)
    result = fuse(*members, knows=knows, weights=weights)
    assert len(wanted) < 3 * 14
    np.testing.assert_allclose(result.boxes, wanted[:, :4], atol=1e-3)
    assert result.labels.tolist() == wanted[:, 4].tolist()
    np.testing.assert_allclose(result.scores, wanted[:, 5], atol=1e-5)
    assert result.boxes.dtype == result.scores.dtype == np.float32


def test_boxes_of_one_object_are_averaged_by_their_scores():
    result = fuse(found((0, 0, 10, 10, 1, 0.6)), found((0, 0, 10, 14, 1, 0.3)))
    np.testing.assert_allclose(result.boxes, [[0, 0, 10, (0.6 * 10 + 0.3 * 14) / 0.9]], rtol=1e-6)
    assert result.scores == pytest.approx([0.45]) and result.labels.tolist() == [1]


def test_an_object_that_one_detector_does_not_see_loses_score():
    result = fuse(found((0, 0, 10, 10, 1, 0.6)), found((20, 0, 30, 10, 1, 0.9)),
                  found((0, 0, 10, 10, 2, 0.3)))
    assert result.scores == pytest.approx([0.3, 0.2, 0.1])
    assert result.boxes[:, 0].tolist() == [20, 0, 0]


def test_a_detector_that_does_not_know_the_class_has_no_say():
    knows = [[True] * 3, [True, False, True]]
    result = fuse(found((0, 0, 10, 10, 1, 0.6), (0, 0, 10, 10, 2, 0.6)), found(), knows=knows)
    assert result.labels.tolist() == [1, 2] and result.scores == pytest.approx([0.6, 0.3])


def test_a_detector_gives_one_box_to_an_object():
    result = fuse(found((0, 0, 10, 10, 0, 0.8), (0, 0, 10, 9, 0, 0.4)), found())
    assert result.boxes.tolist() == [[0, 0, 10, 10]] and result.scores == pytest.approx([0.4])


def test_weights_count_for_place_and_score():
    result = fuse(found((0, 0, 10, 10, 0, 0.5)), found((0, 0, 10, 12, 0, 0.5)), weights=[3.0, 1.0])
    np.testing.assert_allclose(result.boxes, [[0, 0, 10, 10.5]])
    assert result.scores == pytest.approx([0.5])
    result = fuse(found((0, 0, 10, 10, 0, 0.5)), found(), weights=[3.0, 1.0])
    assert result.scores == pytest.approx([0.375])


def test_overlap_and_score_have_limits():
    pair = found((0, 0, 10, 10, 0, 0.5)), found((0, 0, 10, 12, 0, 0.5))
    assert len(fuse(*pair, iou=0.8).scores) == 1 and len(fuse(*pair, iou=0.9).scores) == 2
    assert len(fuse(*pair, min_score=0.5).scores) == 1
    assert len(fuse(*pair, min_score=0.51).scores) == 0


def test_nothing_gives_nothing():
    result = fuse(found(), found())
    assert result.boxes.shape == (0, 4) and len(result.labels) == len(result.scores) == 0
