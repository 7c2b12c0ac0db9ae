# SPDX-License-Identifier: Apache-2.0
"""Pictures to the network's input, and raw output to boxes in the picture."""

import warnings

import cv2
from forecast_detector_ros.detector.processing import _nms, Postprocessor, resize
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
    """Draw a picture in a buffer whose rows end with some bytes that are no pixels."""
    channels = CHANNELS[order]
    rows = np.random.default_rng(seed).integers(
        0, 256, (size[0], size[1] * channels + padding), dtype=np.uint8)
    pixels = rows[:, :size[1] * channels]
    return pixels if channels == 1 else np.lib.stride_tricks.as_strided(
        pixels, (*size, channels), (rows.strides[0], channels, 1))


def to_bgr(array, order):
    """Bring any order to BGR by hand."""
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
    # Whether channels are swapped before or after the resize must not matter.
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
def test_pixels_that_are_none(array, order, words):
    with pytest.raises(FrameError) as error:
        Pixels(array, order)
    assert '\n' not in str(error.value) and all(word in str(error.value) for word in words)


def test_size_is_height_and_width():
    assert Pixels(draw((5, 7), 'rgba'), 'rgba').size == (5, 7)


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
