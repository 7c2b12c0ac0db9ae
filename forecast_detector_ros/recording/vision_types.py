# SPDX-License-Identifier: Apache-2.0
"""
Message types for bags that are written and read where no ROS is installed.

rosbags knows the common interfaces; of vision_msgs 4 (ROS 2 Humble and later) the fields of
Detection2DArray and of the types in it stand here. A bag made with them carries the same type
hashes as one that a node recorded.
"""
from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

DETECTIONS = 'vision_msgs/msg/Detection2DArray'
DECISION = 'diagnostic_msgs/msg/DiagnosticArray'

VISION_FIELDS = {
    'Point2D': 'float64 x\nfloat64 y',
    'Pose2D': 'vision_msgs/Point2D position\nfloat64 theta',
    'BoundingBox2D': 'vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y',
    'ObjectHypothesis': 'string class_id\nfloat64 score',
    'ObjectHypothesisWithPose':
        'vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose',
    'Detection2D':
        'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n'
        'vision_msgs/BoundingBox2D bbox\nstring id',
    'Detection2DArray': 'std_msgs/Header header\nvision_msgs/Detection2D[] detections',
}
"""Fields by message, https://github.com/ros-perception/vision_msgs (branch ros2)."""


@lru_cache(maxsize=1)
def vision_typestore() -> Typestore:
    """Return rosbags' latest types with those of vision_msgs that bags of detections need."""
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores

    store = get_typestore(Stores.LATEST)
    types = {}
    for name, fields in VISION_FIELDS.items():
        types.update(get_types_from_msg(f'{fields}\n', f'vision_msgs/msg/{name}'))
    store.register({name: fields for name, fields in types.items()
                    if name not in store.fielddefs})
    return store
