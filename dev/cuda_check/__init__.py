# SPDX-License-Identifier: Apache-2.0
"""Test and measure the CUDA road where there is a GPU and no ROS: `dev/cuda_check.sh`."""
