# SPDX-License-Identifier: Apache-2.0
"""Malloc is tuned where that is possible."""
import platform
import subprocess
import sys

from forecast_detector_ros.detector.allocator import keep_large_blocks
import pytest

GLIBC = platform.libc_ver()[0] == 'glibc'

# A megabyte lies above what is freed, so that the heap cannot shrink by itself.
MEMORY = """
from pathlib import Path
import numpy as np
from forecast_detector_ros.detector.allocator import give_back_free_blocks, keep_large_blocks

def resident():
    return int(Path('/proc/self/statm').read_text().split()[1])

keep_large_blocks()
before = resident()
message, above = np.ones(64 * 2 ** 20, np.uint8), np.ones(2 ** 20, np.uint8)
full = resident()
del message
kept = resident()
told = give_back_free_blocks()
print(told, *(size - before for size in (full, kept, resident())))
"""


def test_allocator_is_tuned_where_there_is_glibc() -> None:
    assert keep_large_blocks() == GLIBC


@pytest.mark.skipif(not GLIBC, reason='the C library is not glibc')
def test_memory_of_a_large_message_is_kept_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, '-c', MEMORY], capture_output=True, text=True,
                          check=True)
    told, *sizes = done.stdout.split()
    full, kept, left = map(int, sizes)
    assert told == 'True' and kept > 0.9 * full and left < 0.3 * full
