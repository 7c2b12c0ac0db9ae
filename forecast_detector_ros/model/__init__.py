# SPDX-License-Identifier: Apache-2.0
"""Hold the network: pure torch, no files and no ROS."""
