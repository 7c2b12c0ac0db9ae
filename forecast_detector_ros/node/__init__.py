# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 nodes; no other room imports rclpy, and this one imports none of the workshop."""
