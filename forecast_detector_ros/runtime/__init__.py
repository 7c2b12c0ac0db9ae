# SPDX-License-Identifier: Apache-2.0
"""Turn a checkpoint into a running detector, without ROS."""
