# SPDX-License-Identifier: Apache-2.0
"""Tables written by hand or drawn at random, for the tests of the metrics."""

from forecast_detector_ros.metrics.tables import DetectionTable, one_hot, TruthTable
from hypothesis import strategies as st
import numpy as np

CLASSES = 3
A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)
NOWHERE = (80, 80, 90, 90)


def detections(*rows: tuple) -> DetectionTable:
    """Make a table of (frame, label, score, box)."""
    return DetectionTable(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32))


def truth(*rows: tuple, ignore: tuple = (), tracks: tuple = ()) -> TruthTable:
    """Make a table of (frame, label, box), with ignore regions (frame, box) and tracks."""
    return TruthTable(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        one_hot(np.array([row[1] for row in rows], np.int64), CLASSES),
        np.array([row[0] for row in ignore], np.int64),
        np.array([row[1] for row in ignore], np.float32).reshape(-1, 4),
        np.array(tracks, np.int64))


boxes = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(4, 20),
                  st.integers(4, 20)).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
labels = st.integers(0, CLASSES - 1)
frames = st.integers(0, 3)
truth_rows = st.lists(st.tuples(frames, labels, boxes), min_size=1, max_size=10)
found_rows = st.lists(st.tuples(frames, labels, st.integers(1, 20).map(lambda n: n / 20), boxes),
                      max_size=15)
