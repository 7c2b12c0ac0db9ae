# SPDX-License-Identifier: Apache-2.0
"""Say with what, and on what, a result was made."""
from __future__ import annotations

from importlib import metadata
import os
from pathlib import Path
import platform

from ..detector.processor import instruction_set

DISTRIBUTIONS = ('forecast_detector_ros', 'torch', 'torchvision', 'numpy', 'rclpy',
                 'vision_msgs', 'rosbags')


def versions(*more: str) -> dict[str, str | None]:
    """
    Return the versions of Python and of what matters here; None for what is missing.

    `more` are distributions that matter to the result at hand.
    """
    import cv2
    found: dict[str, str | None] = {'python': platform.python_version(),
                                    'opencv': cv2.__version__}
    for name in (*DISTRIBUTIONS, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, str | int | float | None]:
    """Return what latencies depend on: processor, instructions, number of cores, load, system."""
    return {'processor': _processor(), 'instructions': instruction_set(), 'cores': os.cpu_count(),
            'load_1min': round(os.getloadavg()[0], 2), 'system': platform.platform()}


def _processor() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
