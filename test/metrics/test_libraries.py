# SPDX-License-Identifier: Apache-2.0
"""COCO's average precision, computed by the library from the tables of the package."""

import sys

from forecast_detector_ros.errors import MissingLibraryError
from forecast_detector_ros.metrics.libraries import coco_average_precision
from hypothesis import given
import numpy as np
import pytest

from .test_vid_ap import ranked, slow_overlap
from ..helpers.boxes import A, B, CLASSES, detections, NOWHERE, truth, truth_rows

LARGE = (40, 0, 150, 110)


def slow_coco(found, there) -> list[float]:
    """Return the AP of each class at 101 recalls and 10 thresholds, with plain loops."""
    result = []
    for label in range(CLASSES):
        values = []
        targets = [j for j in range(len(there)) if there.labels[j] == label]
        rows = [i for i in range(len(found)) if found.labels[i] == label]
        rows.sort(key=lambda i: -found.scores[i])
        for threshold in np.linspace(0.5, 0.95, 10):
            free, hits, curve = set(targets), 0, []
            for place, i in enumerate(rows, 1):
                over = {j: slow_overlap(found.boxes[i].tolist(), there.boxes[j].tolist())
                        for j in free if there.frames[j] == found.frames[i]}
                best = max(over.values(), default=0)
                if best >= min(threshold, 1 - 1e-10):
                    # Of several boxes with equal overlap, COCO takes the last one.
                    free.remove(max(j for j in over if over[j] == best))
                    hits += 1
                curve.append((hits / max(len(targets), 1), hits / place))
            values += [max((p for r, p in curve if r >= recall), default=0.0)
                       for recall in np.linspace(0, 1, 101)]
        result.append(float(np.mean(values)) if targets else float('nan'))
    return result


def test_one_of_two_by_hand():
    result = coco_average_precision(detections((0, 0, 0.9, A)),
                                    truth((0, 0, A), (0, 0, B), (1, 1, LARGE)))
    # Recalls 0, 0.01, ... 0.5 have precision 1.
    assert result.per_class == pytest.approx([51 / 101, 0, np.nan], nan_ok=True)
    half = 51 / 202
    assert result.figures == pytest.approx({
        'ap': half, 'ap50': half, 'ap75': half, 'small': 51 / 101, 'medium': np.nan,
        'large': 0.0}, nan_ok=True)


def test_duplicate_is_wrong():
    found = detections((0, 0, 0.9, A), (0, 0, 0.8, A), (0, 0, 0.7, B))
    result = coco_average_precision(found, truth((0, 0, A), (0, 0, B)))
    assert result.figures['ap'] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_thresholds_by_hand():
    # The IoU is 0.8, so the detection is right at 0.5, 0.55, ... 0.8, and wrong above.
    result = coco_average_precision(detections((0, 0, 0.9, (0, 0, 10, 8))), truth((0, 0, A)))
    assert result.figures['ap'] == pytest.approx(0.7)
    assert (result.figures['ap50'], result.figures['ap75']) == pytest.approx((1, 1))


def test_ignore_region_is_a_crowd_of_every_class():
    found = detections((0, 0, 0.9, NOWHERE), (0, 0, 0.8, NOWHERE), (0, 1, 0.9, NOWHERE),
                       (0, 0, 0.5, A), (0, 1, 0.4, B))
    there = truth((0, 0, A), (0, 1, B), ignore=((0, NOWHERE),))
    assert coco_average_precision(found, there).figures['ap'] == pytest.approx(1)
    assert coco_average_precision(found, truth((0, 0, A), (0, 1, B))).figures['ap'] < 0.5


def test_nothing_found_and_nothing_there():
    assert coco_average_precision(detections(), truth((0, 0, A))).figures['ap'] == 0
    assert np.isnan(coco_average_precision(detections((0, 0, 0.5, A)), truth()).figures['ap'])


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'hotcoco', None)
    with pytest.raises(MissingLibraryError, match='pip install hotcoco'):
        coco_average_precision(detections(), truth())


@given(ranked(), truth_rows)
def test_agrees_with_the_slow_version(found, truth_list):
    there = truth(*truth_list)
    np.testing.assert_allclose(coco_average_precision(found, there).per_class,
                               slow_coco(found, there), atol=1e-9)


@given(truth_rows)
def test_perfect_detections_score_one(truth_list):
    found = detections(*((frame, label, 0.5, box) for frame, label, box in truth_list))
    result = coco_average_precision(found, truth(*truth_list))
    assert result.figures['ap'] == pytest.approx(1)
