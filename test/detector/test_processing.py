# SPDX-License-Identifier: Apache-2.0
"""Check the conversion of pictures to the network's input, and of its output to boxes."""

import warnings

import cv2
from forecast_detector_ros.detector.processing import (
    _nms,
    Detections,
    Postprocessor,
    resize,
    smoothed,
    WEAK_SCORE,
)
from forecast_detector_ros.images.frame import CHANNELS, FrameError, Pixels
from forecast_detector_ros.model.ssdlite import postprocess
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

ORDERS = sorted(CHANNELS)
SMALL = (32, 48)


def draw(size, order, seed=0, padding=0):
    """Draw a picture whose rows end with padding bytes."""
    channels = CHANNELS[order]
    rows = np.random.default_rng(seed).integers(
        0, 256, (size[0], size[1] * channels + padding), dtype=np.uint8)
    pixels = rows[:, :size[1] * channels]
    return pixels if channels == 1 else np.lib.stride_tricks.as_strided(
        pixels, (*size, channels), (rows.strides[0], channels, 1))


def to_bgr(array, order):
    """Convert any channel order to BGR, without OpenCV."""
    if order == 'mono':
        return np.stack([array] * 3, 2)
    return array[..., [order.index(channel) for channel in 'bgr']]


@settings(max_examples=60)
@given(st.sampled_from(ORDERS), st.integers(1, 60), st.integers(1, 60), st.integers(0, 9),
       st.integers(0, 1000))
def test_any_order_size_and_padding(order, height, width, padding, seed):
    array = draw((height, width), order, seed, padding)
    before = array.copy()
    out = resize(Pixels(array, order), SMALL)
    # Swapping channels before or after the resize must give the same.
    bgr = np.ascontiguousarray(to_bgr(before, order))
    expected = bgr if (height, width) == SMALL else cv2.resize(bgr, SMALL[::-1])
    assert out.dtype == np.uint8 and out.flags.c_contiguous and out.flags.writeable
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('order', ORDERS)
def test_picture_of_the_networks_own_size_is_not_resampled(order, padding):
    array = draw(SMALL, order, padding=padding)
    np.testing.assert_array_equal(resize(Pixels(array, order), SMALL), to_bgr(array, order))


def test_own_size_is_not_copied():
    array = draw(SMALL, 'bgr')
    assert np.shares_memory(resize(Pixels(array, 'bgr'), SMALL), array)


def test_read_only_picture_gives_no_warning():
    array = np.frombuffer(bytes(SMALL[0] * SMALL[1] * 3), np.uint8).reshape(*SMALL, 3)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        torch.from_numpy(resize(Pixels(array, 'bgr'), SMALL))


@pytest.mark.parametrize('view', [np.s_[::-1], np.s_[:, ::-1], np.s_[::2, 3:40]])
def test_views(view):
    array = draw((64, 70), 'rgb')[view]
    expected = cv2.resize(np.ascontiguousarray(array[..., ::-1]), SMALL[::-1])
    np.testing.assert_array_equal(resize(Pixels(array, 'rgb'), SMALL), expected)


@pytest.mark.parametrize('array, order, words', [
    (np.zeros((4, 4, 3), np.float32), 'bgr', ('float32', 'uint8')),
    (np.zeros((4, 4), np.uint16), 'mono', ('uint16', 'uint8')),
    (np.zeros((4, 4, 4), np.uint8), 'bgr', ('(4, 4, 4)', 'bgr')),
    (np.zeros((4, 4, 3), np.uint8), 'rgba', ('(4, 4, 3)', 'rgba')),
    (np.zeros((4, 4), np.uint8), 'rgb', ('(4, 4)', 'rgb')),
    (np.zeros((4, 4, 1), np.uint8), 'mono', ('(4, 4, 1)', 'mono')),
    (np.zeros(0, np.uint8), 'mono', ('(0,)', 'mono')),
    (np.zeros((0, 4, 3), np.uint8), 'bgr', ('empty', '4x0')),
    (np.zeros((4, 0), np.uint8), 'mono', ('empty', '0x4')),
    (np.zeros((4, 4, 3), np.uint8), 'yuv', ("'yuv'", 'bgr'))])
def test_invalid_pixels_are_refused(array, order, words):
    with pytest.raises(FrameError) as error:
        Pixels(array, order)
    assert '\n' not in str(error.value) and all(word in str(error.value) for word in words)


def test_size_is_height_and_width():
    assert Pixels(draw((5, 7), 'rgba'), 'rgba').size == (5, 7)


INPUT = (64, 96)
LABELS = ('cat', 'dog', 'train')


def raw(seed, anchors=300, spread=3.0):
    """Return random logits, offsets and anchors."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-10, 70, (anchors, 2)), rng.uniform(2, 60, (anchors, 2))
    return (rng.normal(0, spread, (anchors, 4)).astype(np.float32),
            rng.normal(0, 2, (anchors, 4)).astype(np.float32),
            np.concatenate((corners[0], corners[0] + corners[1]), 1).astype(np.float32))


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.0, 0.05, 0.3, 0.6, 0.99]),
       nms=st.sampled_from([0.1, 0.45, 0.9, 1.0]), most=st.sampled_from([1, 7, 100]),
       classes=st.sampled_from([(), ('dog',), ('cat', 'train')]))
def test_results_match_the_reference(seed, threshold, nms, most, classes):
    logits, offsets, anchors = raw(seed)
    mask = torch.tensor([name in classes for name in LABELS]) if classes else None
    expected = postprocess(*map(torch.from_numpy, (logits, offsets, anchors)), INPUT, threshold,
                           nms, most, mask)
    found = Postprocessor(anchors, INPUT, LABELS)(
        logits, offsets, INPUT, threshold, nms, most, classes)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    # Detections whose scores differ only by rounding may change places.
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


def slow_votes(kept, label, voters, threshold):
    """Return the weighted mean of the overlapping boxes of one box, in pixels of the input."""
    total, weight = np.zeros(4), 0.0
    for box, other, score in zip(voters.boxes, voters.labels, voters.scores):
        low, high = np.maximum(kept[:2], box[:2]), np.minimum(kept[2:], box[2:])
        common = np.prod(np.maximum(high - low, 0.0))
        areas = sum(np.prod(corners[2:] - corners[:2]) for corners in (kept, box))
        if other == label and common > 0 and common / (areas - common) >= threshold:
            total, weight = total + score * box, weight + score
    return total / weight


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.3, 0.65, 0.9]))
def test_votes_are_the_weighted_mean_of_overlapping_boxes(seed, threshold):
    logits, offsets, anchors = raw(seed)
    offsets = offsets * 0.3 + np.float32([0, 0, 4, 4])  # Large boxes, so that many overlap
    post = Postprocessor(anchors, INPUT, LABELS)
    plain = post(logits, offsets, INPUT, 0.6, 0.45, 100)
    found = post(logits, offsets, INPUT, 0.6, 0.45, 100, vote_threshold=threshold)
    np.testing.assert_array_equal(found.labels, plain.labels)
    np.testing.assert_array_equal(found.scores, plain.scores)
    everything = post(logits, offsets, INPUT, WEAK_SCORE, 1.0, 1000)
    expected = [slow_votes(box.astype(np.float64), label, everything, threshold)
                for box, label in zip(plain.boxes, plain.labels)]
    np.testing.assert_allclose(found.boxes, np.reshape(expected, (-1, 4)), rtol=1e-4, atol=1e-2)


def test_a_box_does_not_depend_on_the_score_threshold():
    logits, offsets, anchors = raw(5, anchors=100)
    post = Postprocessor(anchors, INPUT, LABELS)
    few, many = (post(logits, offsets, INPUT, score, 0.45, 1000, vote_threshold=0.4)
                 for score in (0.7, 0.05))
    plain = post(logits, offsets, INPUT, 0.7, 0.45, 1000)
    assert 0 < len(few) < len(many) and not np.array_equal(few.boxes, plain.boxes)
    np.testing.assert_allclose(few.boxes, many.boxes[:len(few)], rtol=1e-6)


def test_without_votes_boxes_below_the_score_have_no_effect():
    logits, offsets, anchors = raw(4)
    post = Postprocessor(anchors, INPUT, LABELS)
    chosen = post.choose(logits, 0.2)
    found = post.place(chosen, offsets, INPUT, 0.5, 0.45, 100)
    plain = post(logits, offsets, INPUT, 0.5, 0.45, 100)
    np.testing.assert_array_equal(found.boxes, plain.boxes)
    assert len(plain) and chosen.scores.min() < 0.5


@pytest.mark.parametrize('right, shown', [(-20, False), (0.9, False), (1.1, True)])
def test_thin_rest_of_an_object_at_the_edge_is_not_shown(right, shown):
    anchors = np.float32([[-40, 10, right, 30], [10, 10, 30, 30]])
    logits = np.float32([[0, 3, 0, 0], [0, 3, 0, 0]])
    offsets = np.zeros((2, 4), np.float32)
    found = Postprocessor(anchors, INPUT, LABELS)(
        logits, offsets, INPUT, 0.3, 0.45, 100, vote_threshold=0.5)
    expected = [[0, 10, pytest.approx(right, abs=1e-4), 30]] * shown + [[10, 10, 30, 30]]
    assert sorted(found.boxes.tolist()) == expected
    reference = postprocess(*map(torch.from_numpy, (logits, offsets, anchors)), INPUT, 0.3, 0.45,
                            100)
    assert sorted(reference.boxes.tolist()) == expected


def test_raw_output_is_not_changed():
    logits, offsets, anchors = raw(2)
    copies = logits.copy(), offsets.copy()
    Postprocessor(anchors, INPUT, LABELS)(logits, offsets, INPUT, 0.0, 0.45, 100)
    np.testing.assert_array_equal(logits, copies[0])
    np.testing.assert_array_equal(offsets, copies[1])


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), grid=st.sampled_from([1e-3, 8.0]),
       threshold=st.sampled_from([0.1, 0.45, 0.5, 1.0]))
def test_nms_matches_torchvision(seed, count, grid, threshold):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-30, 120, (count, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(8, 80, (count, 2))), 1)
    boxes = (np.round(boxes / grid) * grid).astype(np.float32)
    label, score = rng.integers(0, 3, count), rng.permutation(count).astype(np.float32) + 1
    expected = batched_nms(*map(torch.from_numpy, (boxes, score, label)), threshold)
    np.testing.assert_array_equal(_nms(boxes, label, score, threshold), expected)


def detections(*rows):
    """Make detections from (x0, label, score): boxes of 10 by 10 pixels with y0 = 0."""
    return Detections(np.float32([(x, 0, x + 10, 10) for x, _, _ in rows]).reshape(-1, 4),
                      np.array([label for _, label, _ in rows], np.int64),
                      np.float32([score for _, _, score in rows]))


def test_scores_of_one_object_are_averaged():
    before = detections((0, 0, 0.9), (40, 1, 0.9), (80, 2, 0.2), (120, 0, 0.5), (122, 0, 0.8))
    found = detections((2, 0, 0.5), (40, 2, 0.5), (80, 2, 0.5), (121, 0, 0.4), (160, 1, 0.7),
                       (1, 0, 0.2))
    # In order: moved; other class; old score too low; nearest of two; new; new score too low.
    result = smoothed(found, before, 0.25)
    assert result.scores == pytest.approx([0.6, 0.5, 0.5, 0.425, 0.7, 0.2])
    np.testing.assert_array_equal(result.boxes, found.boxes)
    np.testing.assert_array_equal(result.labels, found.labels)
    assert smoothed(found, before, 1.0).scores[0] == np.float32(0.9)
    assert len(smoothed(detections(), before, 0.5)) == 0
    np.testing.assert_array_equal(smoothed(found, detections(), 0.5).scores, found.scores)
    assert found.scores[0] == np.float32(0.5)  # The input is unchanged


def test_the_best_detections_come_first():
    found = detections((0, 0, 0.3), (20, 1, 0.9), (40, 2, 0.5), (60, 0, 0.6))
    assert found.best(0.4, 2).boxes[:, 0].tolist() == [20, 60]
    best = found.best(0.4, 10)
    assert best.boxes[:, 0].tolist() == [20, 60, 40] and best.labels.tolist() == [1, 0, 2]
