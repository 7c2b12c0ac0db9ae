# SPDX-License-Identifier: Apache-2.0
"""Malloc is tuned where that is possible."""
import platform

from forecast_detector_ros.detector.allocator import keep_large_blocks


def test_allocator_is_tuned_where_there_is_glibc() -> None:
    assert keep_large_blocks() == (platform.libc_ver()[0] == 'glibc')
