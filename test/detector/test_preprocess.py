# SPDX-License-Identifier: Apache-2.0
"""Pixels are checked, and brought to the network's input as OpenCV does it."""

import warnings

import cv2
from forecast_detector_ros.detector.preprocess import resize
from forecast_detector_ros.images.frame import CHANNELS, FrameError, Pixels
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import torch

ORDERS = sorted(CHANNELS)
INPUT = (32, 48)


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
    out = resize(Pixels(array, order), INPUT)
    # Whether channels are swapped before or after the resize must not matter.
    bgr = np.ascontiguousarray(to_bgr(before, order))
    expected = bgr if (height, width) == INPUT else cv2.resize(bgr, INPUT[::-1])
    assert out.dtype == np.uint8 and out.flags.c_contiguous and out.flags.writeable
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('order', ORDERS)
def test_picture_of_the_networks_own_size_is_not_resampled(order, padding):
    array = draw(INPUT, order, padding=padding)
    np.testing.assert_array_equal(resize(Pixels(array, order), INPUT), to_bgr(array, order))


def test_own_size_is_not_copied():
    array = draw(INPUT, 'bgr')
    assert np.shares_memory(resize(Pixels(array, 'bgr'), INPUT), array)


def test_read_only_picture_gives_no_warning():
    array = np.frombuffer(bytes(INPUT[0] * INPUT[1] * 3), np.uint8).reshape(*INPUT, 3)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        torch.from_numpy(resize(Pixels(array, 'bgr'), INPUT))


@pytest.mark.parametrize('view', [np.s_[::-1], np.s_[:, ::-1], np.s_[::2, 3:40]])
def test_views(view):
    array = draw((64, 70), 'rgb')[view]
    expected = cv2.resize(np.ascontiguousarray(array[..., ::-1]), INPUT[::-1])
    np.testing.assert_array_equal(resize(Pixels(array, 'rgb'), INPUT), expected)


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
