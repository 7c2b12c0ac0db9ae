# SPDX-License-Identifier: Apache-2.0
"""Live images go through cv_bridge where it can do them, and through OpenCV elsewhere."""
from array import array
import sys

from forecast_detector_ros.images.image_messages import image_frame
from forecast_detector_ros.node.camera_stream import CameraStream
from forecast_detector_ros.node.image_bridge import ImageBridge
import numpy as np
import pytest
from sensor_msgs.msg import Image

HEIGHT, WIDTH = 12, 16


def image(encoding: str, row: int, padding: int = 0) -> Image:
    """Return an image of random bytes; `row` are the bytes of a row without padding."""
    step = row + padding
    data = np.random.default_rng(3).integers(0, 256, HEIGHT * step, dtype=np.uint8)
    return Image(encoding=encoding, height=HEIGHT, width=WIDTH, step=step,
                 data=array('B', data.tobytes()))


class CountingBridge:
    """Stands for cv_bridge's class; answers with one colour, or fails."""

    calls: list[str] = []

    def imgmsg_to_cv2(self, message, encoding):
        """Answer as cv_bridge does."""
        self.calls.append(message.encoding)
        if message.encoding == 'yuyv':
            raise KeyError(message.encoding)
        return np.full((HEIGHT, WIDTH, 3), 7, np.uint8)


@pytest.fixture
def counting(monkeypatch):
    """Put a cv_bridge that counts in place of the real one."""
    module = type(sys)('cv_bridge')
    module.CvBridge = CountingBridge
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)
    monkeypatch.setattr(CountingBridge, 'calls', [])
    return CountingBridge.calls


def test_node_asks_cv_bridge_once_and_only_on_loading(counting):
    stream = CameraStream('/camera', '/camera', False, 0.0)
    stream.put(image('bayer_rggb8', WIDTH), 0.0)
    assert counting == []
    frame = stream.waiting.frame
    assert (frame.load().array == 7).all() and (frame.load().array == 7).all()
    assert counting == ['bayer_rggb8']


@pytest.mark.parametrize(('encoding', 'row', 'padding'), [
    ('rgb8', 3 * WIDTH, 0), ('mono8', WIDTH, 0), ('bayer_rggb8', WIDTH, 4)])
def test_views_and_padded_rows_do_not_go_through_it(counting, encoding, row, padding):
    message = image(encoding, row, padding)
    ours = image_frame(message, ImageBridge()).load()
    np.testing.assert_array_equal(ours.array, image_frame(message).load().array)
    assert counting == []


def test_what_it_does_not_know_is_asked_once(counting):
    bridge, message = ImageBridge(), image('yuyv', 2 * WIDTH)
    for _ in range(2):
        pixels = image_frame(message, bridge).load()
        np.testing.assert_array_equal(pixels.array, image_frame(message).load().array)
    assert counting == ['yuyv']


def test_does_without(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    message = image('bayer_gbrg8', WIDTH)
    np.testing.assert_array_equal(image_frame(message, ImageBridge()).load().array,
                                  image_frame(message).load().array)


def test_the_real_one_gives_the_same_pixels():
    pytest.importorskip('cv_bridge')
    for encoding in ('bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8', 'bayer_grbg8'):
        message = image(encoding, WIDTH)
        np.testing.assert_array_equal(image_frame(message, ImageBridge()).load().array,
                                      image_frame(message).load().array)
