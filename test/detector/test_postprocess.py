# SPDX-License-Identifier: Apache-2.0
"""Post-processing in NumPy against the one that training uses."""

from forecast_detector_ros.detector.postprocess import _nms, Postprocessor
from forecast_detector_ros.model.ssdlite import postprocess
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

INPUT = (64, 96)
LABELS = ('cat', 'dog', 'train')


def raw(seed, anchors=300, spread=3.0):
    """Give logits, offsets and anchors as a lively head would."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-10, 70, (anchors, 2)), rng.uniform(2, 60, (anchors, 2))
    return (rng.normal(0, spread, (anchors, 4)).astype(np.float32),
            rng.normal(0, 2, (anchors, 4)).astype(np.float32),
            np.concatenate((corners[0], corners[0] + corners[1]), 1).astype(np.float32))


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.0, 0.05, 0.3, 0.6, 0.99]),
       nms=st.sampled_from([0.1, 0.45, 0.9, 1.0]), most=st.sampled_from([1, 7, 100]),
       classes=st.sampled_from([(), ('dog',), ('cat', 'train')]))
def test_like_the_reference(seed, threshold, nms, most, classes):
    logits, offsets, anchors = raw(seed)
    mask = torch.tensor([name in classes for name in LABELS]) if classes else None
    expected = postprocess(*map(torch.from_numpy, (logits, offsets, anchors)), INPUT, threshold,
                           nms, most, mask)
    found = Postprocessor(anchors, INPUT, LABELS)(
        logits, offsets, INPUT, threshold, nms, most, classes)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    # Scores that differ by no more than rounding may change places.
    alike = ((found.labels[:, None] == expected.labels.numpy())
             & (np.abs(found.scores[:, None] - expected.scores.numpy()) < 1e-6)
             & (np.abs(found.boxes[:, None] - expected.boxes.numpy()).max(2, initial=0) < 1e-3))
    assert (alike.sum(0) == 1).all() and (alike.sum(1) == 1).all()
    assert (found.boxes.dtype, found.labels.dtype, found.scores.dtype) == (
        np.float32, np.int64, np.float32)


@pytest.mark.parametrize('threshold', [0.999, 1.0])
def test_nothing_found(threshold):
    logits, offsets, anchors = raw(0, spread=0.1)
    found = Postprocessor(anchors, INPUT, LABELS)(
        logits, offsets, (480, 640), threshold, 0.45, 100)
    assert found.boxes.shape == (0, 4) and len(found) == 0


def test_boxes_fill_the_incoming_picture():
    logits, offsets, anchors = raw(1)
    make = Postprocessor(anchors, INPUT, LABELS)
    small = make(logits, offsets, INPUT, 0.3, 0.45, 50)
    large = make(logits, offsets, (640, 480), 0.3, 0.45, 50)
    np.testing.assert_allclose(large.boxes, small.boxes * [5, 10, 5, 10], rtol=1e-5, atol=1e-4)
    assert large.boxes.max(0).tolist() <= [480, 640, 480, 640]


def test_output_is_left_as_it_was():
    logits, offsets, anchors = raw(2)
    copies = logits.copy(), offsets.copy()
    Postprocessor(anchors, INPUT, LABELS)(logits, offsets, INPUT, 0.0, 0.45, 100)
    np.testing.assert_array_equal(logits, copies[0])
    np.testing.assert_array_equal(offsets, copies[1])


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), grid=st.sampled_from([1e-3, 8.0]),
       threshold=st.sampled_from([0.1, 0.45, 0.5, 1.0]))
def test_suppresses_what_torchvision_does_and_keeps_boxes_without_area(
        seed, count, grid, threshold):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-30, 120, (count, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(0, 80, (count, 2))), 1)
    boxes = (np.round(np.clip(boxes, 0, 96) / grid) * grid).astype(np.float32)
    label, score = rng.integers(0, 3, count), rng.permutation(count).astype(np.float32) + 1
    expected = batched_nms(*map(torch.from_numpy, (boxes, score, label)), threshold)
    np.testing.assert_array_equal(_nms(boxes, label, score, threshold), expected)
