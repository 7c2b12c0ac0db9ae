# SPDX-License-Identifier: Apache-2.0
"""The network: pure torch, no files and no ROS."""
