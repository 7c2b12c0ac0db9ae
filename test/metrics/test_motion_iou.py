# SPDX-License-Identifier: Apache-2.0
"""Motion IoU, by hand and compared with a slow version."""

from forecast_detector_ros.metrics.average_precision import motion_iou
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from ..helpers.boxes import boxes, truth


def test_two_frames_by_hand():
    # 5 of 10 columns overlap, so the IoU is 50 / 150.
    there = truth((0, 0, (0, 0, 10, 10)), (1, 0, (5, 0, 15, 10)), tracks=(0, 0))
    assert motion_iou(there) == pytest.approx([1 / 3, 1 / 3])


def test_mean_over_existing_neighbours():
    there = truth((0, 0, (0, 0, 10, 10)), (1, 0, (0, 0, 10, 10)), (2, 0, (5, 0, 15, 10)),
                  tracks=(7, 7, 7))
    assert motion_iou(there) == pytest.approx([(1 + 1 / 3) / 2, (1 + 1 / 3) / 2, 1 / 3])


def test_eleven_frames_away_is_not_near():
    there = truth(*((frame, 0, (frame, 0, frame + 1, 1)) for frame in range(12)),
                  tracks=(0,) * 12)
    assert motion_iou(there).tolist() == [0.0] * 12
    there = truth((0, 0, (0, 0, 1, 1)), (11, 0, (0, 0, 1, 1)), (21, 0, (0, 0, 1, 1)),
                  tracks=(0, 0, 0))
    assert motion_iou(there).tolist() == [0.0, 1.0, 1.0]


def test_objects_are_compared_with_themselves_alone():
    there = truth((0, 0, (0, 0, 10, 10)), (0, 0, (50, 0, 60, 10)), (1, 0, (50, 0, 60, 10)),
                  (1, 0, (0, 0, 10, 10)), (2, 0, (70, 0, 80, 10)), tracks=(3, 0, 0, 3, -1))
    np.testing.assert_array_equal(motion_iou(there), [1, 1, 1, 1, np.nan])


def test_object_in_a_single_frame_counts_as_fast():
    assert motion_iou(truth((4, 0, (0, 0, 10, 10)), tracks=(0,))).tolist() == [0.0]


def test_without_tracks_motion_is_unknown():
    assert np.isnan(motion_iou(truth((0, 0, (0, 0, 1, 1)), (1, 0, (0, 0, 1, 1))))).all()
    assert motion_iou(truth()).shape == (0,)


def test_track_twice_in_a_frame_is_refused():
    with pytest.raises(ValueError, match='two boxes in one frame'):
        motion_iou(truth((0, 0, (0, 0, 1, 1)), (0, 0, (2, 0, 3, 1)), tracks=(0, 0)))


rows = st.dictionaries(st.tuples(st.integers(0, 9), st.integers(-1, 2)), boxes, max_size=25)


@given(rows, st.integers(1, 4))
def test_agrees_with_the_slow_version(places, near):
    def overlap(a: tuple, b: tuple) -> float:
        sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
        shared = max(sides[0], 0) * max(sides[1], 0)
        area = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
        return shared / (area - shared)

    wanted = []
    for (frame, track), box in places.items():
        values = [overlap(box, other) for (there, same), other in places.items()
                  if same == track and 0 < abs(there - frame) <= near]
        wanted.append(np.nan if track < 0 else sum(values) / len(values) if values else 0.0)
    there = truth(*((frame, 0, box) for (frame, _), box in places.items()),
                  tracks=tuple(track for _, track in places))
    np.testing.assert_allclose(motion_iou(there, near), wanted)
