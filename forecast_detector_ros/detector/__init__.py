# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to a running detector: policies, streams and back-ends; no ROS."""
