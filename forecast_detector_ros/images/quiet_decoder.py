# SPDX-License-Identifier: Apache-2.0
"""
Decode a JPEG or PNG without a word on the standard error stream, and refuse what is damaged.

libjpeg fills what it cannot decode with grey and only prints a warning; OpenCV hands the picture
over as if nothing had happened and has no other way to tell. So the warning is caught.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import os
import re
from threading import Lock

import cv2
import numpy as np

#: Of what a decoder prints for one picture; libjpeg prints its first warning only.
_MOST_BYTES = 4096
#: Bytes before the end mark that are no damage: many webcams pad their scans with a few.
_MOST_EXTRANEOUS = 16
#: How warnings of libjpeg (its jerror.h), libpng (its pngerror.c) and OpenCV's readers begin.
_DECODERS = re.compile(
    r'Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Invalid SOS parameters|'
    r'Application transferred|Unknown Adobe color|Warning: unknown JFIF|libpng (error|warning)|'
    r'\[ ?(WARN|ERROR):[^\]]*\] global grfmt_')
#: Those after which every pixel may still be right.
_HARMLESS = re.compile(
    r'Invalid SOS parameters|Unknown Adobe color|Warning: unknown JFIF|libpng warning|\[ ?WARN|'
    r'Corrupt JPEG data: (bad ICC marker|(?P<bytes>\d{1,9}) extraneous bytes before marker 0xd9)')
_LOCK = Lock()


def decode_quietly(data: np.ndarray, flags: int) -> tuple[np.ndarray | None, str]:
    """
    Decode a picture with OpenCV and return it with what its decoder complained of.

    :param data: ``(N,)`` uint8, a whole JPEG or PNG file
    :param flags: ``cv2.IMREAD_...``
    :returns: the picture, ``(H, W, 3)`` uint8, or None where it cannot be decoded; and the first
        sign of damage in the decoder's words, or an empty text. Raises cv2.error as
        ``cv2.imdecode``.
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
        # Another thread may have had something to say at the same time.
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
    """Let file descriptor 2 be another one for a while."""
    if target == 2:  # The stream was closed, so the new file has got its place already.
        yield
        return
    try:
        copy = os.dup(2)
    except OSError:
        copy = None
    try:
        # Within, because Ctrl-C may come right behind it.
        os.dup2(target, 2, inheritable=False)
        yield
    finally:
        if copy is None:
            os.close(2)
        else:
            os.dup2(copy, 2)
            os.close(copy)


def _write(line: str) -> None:
    with suppress(OSError):  # Nobody can be told.
        os.write(2, f'{line}\n'.encode())
