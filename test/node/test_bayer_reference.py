# SPDX-License-Identifier: Apache-2.0
"""Bayer images look as cv_bridge makes them, which the rest of ROS looks at."""
from array import array

from forecast_detector_ros.runtime.image_messages import image_frame
import numpy as np
import pytest
from sensor_msgs.msg import Image


@pytest.mark.parametrize('encoding', ['bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8', 'bayer_grbg8'])
def test_bayer_images_are_those_of_cv_bridge(encoding: str) -> None:
    cv_bridge = pytest.importorskip('cv_bridge')
    mosaic = np.random.default_rng(0).integers(0, 256, (12, 16), dtype=np.uint8)
    message = Image(encoding=encoding, height=12, width=16, step=16,
                    data=array('B', mosaic.tobytes()))
    try:
        expected = cv_bridge.CvBridge().imgmsg_to_cv2(message, 'bgr8')
    except KeyError:
        pytest.skip(f'this cv_bridge does not know {encoding}')
    np.testing.assert_array_equal(image_frame(message).load().array, expected)
