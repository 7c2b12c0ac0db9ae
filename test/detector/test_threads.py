# SPDX-License-Identifier: Apache-2.0
"""Sizes of the thread pools; in a process of their own, which is what they are of."""

import subprocess
import sys

from forecast_detector_ros.detector.checkpoint import RuntimeConfigError
from forecast_detector_ros.detector.threads import set_threads
import pytest


def test_pools_have_the_sizes_asked_for():
    script = (
        'import cv2, torch\n'
        'from forecast_detector_ros.detector.threads import set_threads\n'
        'set_threads(2, 3)\n'
        'assert torch.get_num_threads() == 2, torch.get_num_threads()\n'
        'assert torch.get_num_interop_threads() == 3\n'
        'assert cv2.getNumThreads() == 2\n'
        # The second pool keeps its size; that is no reason to fail.
        'set_threads(1, 1)\n'
        'assert (torch.get_num_threads(), torch.get_num_interop_threads()) == (1, 3)\n')
    subprocess.run([sys.executable, '-c', script], check=True, timeout=600)


@pytest.mark.parametrize('numbers, line', [
    ((0, 1), 'threads is 0, must be at least 1'),
    ((1, 0), 'interop_threads is 0, must be at least 1')])
def test_below_one(numbers, line):
    with pytest.raises(RuntimeConfigError, match=f'^{line}$'):
        set_threads(*numbers)
