# SPDX-License-Identifier: Apache-2.0
"""Detect objects in video on a ROS 2 graph, reading only the frames that need it."""
