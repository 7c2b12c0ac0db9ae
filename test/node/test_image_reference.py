# SPDX-License-Identifier: Apache-2.0
"""Compare converted images with those of cv_bridge and rosbags.image."""
from array import array

from forecast_detector_ros.images.frame import as_bgr
from forecast_detector_ros.images.image_messages import image_frame
import numpy as np
import pytest
from sensor_msgs.msg import Image

HEIGHT, WIDTH = 12, 16


def noisy(encoding: str, pixel_bytes: int, big: bool = False) -> Image:
    """Return an image of random bytes."""
    step = WIDTH * pixel_bytes
    data = np.random.default_rng(0).integers(0, 256, (HEIGHT, step), dtype=np.uint8)
    return Image(encoding=encoding, height=HEIGHT, width=WIDTH, step=step, is_bigendian=int(big),
                 data=array('B', data.tobytes()))


def converted(message: Image) -> np.ndarray:
    """Return the pixels of a message that the network gets, as BGR."""
    pixels = image_frame(message).load()
    return as_bgr(pixels.array, pixels.order)


@pytest.mark.parametrize('encoding', ['bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8', 'bayer_grbg8'])
def test_bayer_images_are_those_of_cv_bridge(encoding: str) -> None:
    cv_bridge = pytest.importorskip('cv_bridge')
    message = noisy(encoding, 1)
    try:
        expected = cv_bridge.CvBridge().imgmsg_to_cv2(message, 'bgr8')
    except KeyError:
        pytest.skip(f'this cv_bridge does not know {encoding}')
    np.testing.assert_array_equal(converted(message), expected)


@pytest.mark.parametrize(('encoding', 'pixel_bytes', 'big', 'tolerance'), [
    ('yuv422', 2, False, 0), ('uyvy', 2, False, 0), ('yuv422_yuy2', 2, False, 0),
    ('yuyv', 2, False, 0),
    # The reference truncates values, this package rounds them.
    ('mono16', 2, False, 1), ('mono16', 2, True, 1)])
def test_other_images_are_those_of_rosbags_image(encoding: str, pixel_bytes: int, big: bool,
                                                 tolerance: int) -> None:
    reference = pytest.importorskip('rosbags.image')
    message = noisy(encoding, pixel_bytes, big=big)
    expected = reference.image_to_cvimage(message, 'bgr8')
    difference = np.abs(converted(message).astype(int) - expected)
    assert difference.max() <= tolerance
