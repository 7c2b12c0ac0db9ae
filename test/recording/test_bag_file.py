# SPDX-License-Identifier: Apache-2.0
"""Hold the definitions for machines without ROS against those of the installed packages."""

from forecast_detector_ros.node.recording import typestore_with
from forecast_detector_ros.recording.bag_file import DETECTIONS, VISION_FIELDS, vision_typestore
import pytest

# Of vision_msgs 4.1.1.
DETECTIONS_HASH = 'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968'


def test_detections_have_the_hash_of_the_package():
    assert vision_typestore().hash_rihs01(DETECTIONS) == DETECTIONS_HASH


@pytest.mark.parametrize('name', VISION_FIELDS)
def test_every_type_is_that_of_the_installed_package(name):
    full = f'vision_msgs/msg/{name}'
    installed = typestore_with('vision_msgs')
    assert vision_typestore().hash_rihs01(full) == installed.hash_rihs01(full)
