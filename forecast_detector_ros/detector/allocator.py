# SPDX-License-Identifier: Apache-2.0
"""Tell glibc to keep the memory of large messages instead of giving it back every time."""
from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
"""Numbers of the options in glibc's malloc.h."""

_TRIM_BYTES = 512 * 2**20

_MMAP_BYTES = (256 * 2**20, 32 * 2**20)
"""Tried in this order: glibc before 2.35 refuses more than 32 MiB."""


def keep_large_blocks() -> bool:
    """
    Raise malloc's mmap and trim thresholds for this process; tell whether that worked.

    A raw image of 1080p has 6 MB. With the default thresholds every message gets new pages from
    the kernel, and page faults are the largest cost of receiving. The process keeps the memory.
    Other C libraries than glibc are not changed.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, 'gnu_get_libc_version'):
        return False
    kept = any(library.mallopt(_M_MMAP_THRESHOLD, size) == 1 for size in _MMAP_BYTES)
    return kept and library.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES) == 1
