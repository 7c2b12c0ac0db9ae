# SPDX-License-Identifier: Apache-2.0
"""
Decode a JPEG or PNG without output to the standard error stream, and detect damage.

libjpeg fills a damaged part with grey and only prints a warning, and OpenCV returns the picture
without an error. So the warning is captured.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import os
import re
from threading import Lock

import cv2
import numpy as np

#: Most bytes of captured output for a picture; libjpeg prints only its first warning.
_MOST_BYTES = 4096
#: Tolerated bytes before the end mark, because many webcams pad their scans.
_MOST_EXTRANEOUS = 16
#: Start of warnings of libjpeg (jerror.h), libpng (pngerror.c) and OpenCV's readers.
_DECODERS = re.compile(
    r'Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Invalid SOS parameters|'
    r'Application transferred|Unknown Adobe color|Warning: unknown JFIF|libpng (error|warning)|'
    r'\[ ?(WARN|ERROR):[^\]]*\] global grfmt_')
#: Warnings after which all pixels may be correct.
_HARMLESS = re.compile(
    r'Invalid SOS parameters|Unknown Adobe color|Warning: unknown JFIF|libpng warning|\[ ?WARN|'
    r'Corrupt JPEG data: (bad ICC marker|(?P<bytes>\d{1,9}) extraneous bytes before marker 0xd9)')
_LOCK = Lock()


def decode_quietly(data: np.ndarray, flags: int) -> tuple[np.ndarray | None, str]:
    """
    Decode a picture with OpenCV, and return it with its decoder's warning.

    :param data: ``(N,)`` uint8, a complete JPEG or PNG file
    :param flags: flags of ``cv2.imdecode``
    :returns: the picture, ``(H, W, 3)`` uint8, or None if it cannot be decoded; and the first
        warning about damage, or an empty text
    :raises cv2.error: as ``cv2.imdecode``
    """
    with _LOCK:
        scratch = os.memfd_create('decoder')
        try:
            with _standard_error_into(scratch):
                picture = cv2.imdecode(data, flags)
            said = os.pread(scratch, _MOST_BYTES, 0).decode(errors='replace')
        finally:
            os.close(scratch)
    lines = said.splitlines()
    for line in lines:
        # Lines of other threads were captured, too, and are written again.
        if not _DECODERS.match(line):
            _write(line)
    return picture, next((line for line in lines if _is_damage(line)), '')


def _is_damage(line: str) -> bool:
    if not _DECODERS.match(line):
        return False
    harmless = _HARMLESS.match(line)
    return not harmless or int(harmless['bytes'] or 0) > _MOST_EXTRANEOUS


@contextmanager
def _standard_error_into(target: int) -> Iterator[None]:
    """Redirect file descriptor 2 to `target` inside the context."""
    if target == 2:  # The stream was closed, so the new file has its descriptor.
        yield
        return
    try:
        copy = os.dup(2)
    except OSError:
        copy = None
    try:
        # Inside the try block, because Ctrl-C may follow at once.
        os.dup2(target, 2, inheritable=False)
        yield
    finally:
        if copy is None:
            os.close(2)
        else:
            os.dup2(copy, 2)
            os.close(copy)


def _write(line: str) -> None:
    with suppress(OSError):  # There is no other stream to report it.
        os.write(2, f'{line}\n'.encode())
