# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 nodes; only this room imports rclpy, and it imports no room of the workshop."""
