# SPDX-License-Identifier: Apache-2.0
"""Detect objects in video on a ROS 2 graph, reading only the frames that need it."""

import os

# ONNX Runtime, wherever it is imported, keeps telemetry in the home folder unless told not to.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
