# SPDX-License-Identifier: Apache-2.0
"""Test and measure the CUDA back-end on a machine without ROS: `dev/cuda_check.sh`."""
