# SPDX-License-Identifier: Apache-2.0
"""Tell glibc when to keep free memory, and when to give it back."""
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


def give_back_free_blocks() -> bool:
    """
    Give free memory back to the kernel (malloc_trim(3)); tell whether there was any.

    `keep_large_blocks` keeps what large messages and graphs have left. A node does without them
    while it does not listen, and the next ones may not fit into the gaps. Other C libraries than
    glibc are left alone.
    """
    library = ctypes.CDLL(None)
    return hasattr(library, 'malloc_trim') and library.malloc_trim(0) == 1
