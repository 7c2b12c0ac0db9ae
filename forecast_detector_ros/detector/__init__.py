# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to a running detector; knows no ROS."""
