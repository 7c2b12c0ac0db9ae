# SPDX-License-Identifier: Apache-2.0
"""Hold the ROS 2 nodes: the only room that imports rclpy."""
