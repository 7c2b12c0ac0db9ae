# SPDX-License-Identifier: Apache-2.0
"""
Make an MCAP file that breaks off readable again, up to where it breaks off.

A recorder that was killed leaves a file without index and end mark, perhaps in the middle of a
record. A copy of its whole records with an end, but without an index, is a valid file: readers
then scan it. Layout: https://mcap.dev/spec
"""

from pathlib import Path
import shutil
import struct

MAGIC = b'\x89MCAP0\r\n'
_HEAD = struct.Struct('<BQ')  #: Operation code and length of the content, before every record
_DATA_END, _FOOTER = 0x0F, 0x02

_END = (_HEAD.pack(_DATA_END, 4) + bytes(4)  # No checksum,
        + _HEAD.pack(_FOOTER, 20) + bytes(20)  # no summary.
        + MAGIC)


def whole_length(file: Path) -> int:
    """
    Return how many bytes of an MCAP file are whole records of data; 0 if it is none.

    Raises OSError.
    """
    size = file.stat().st_size
    with file.open('rb') as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            return 0
        position = len(MAGIC)
        while True:
            stream.seek(position)
            head = stream.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return position
            operation, length = _HEAD.unpack(head)
            end = position + _HEAD.size + length
            # Zeros are what a file system leaves of a block that it had no time to write.
            if operation in (0, _DATA_END, _FOOTER) or end > size:
                return position
            position = end


def mend(file: Path) -> int:
    """
    End a file behind its whole records, in place.

    Returns how many bytes were cut off; 0 for a file that is whole. Raises OSError.
    """
    size, length = file.stat().st_size, whole_length(file)
    with file.open('r+b') as stream:
        stream.seek(-min(size, len(MAGIC)), 2)
        if size > len(MAGIC) and stream.read() == MAGIC:
            return 0
        stream.truncate(length)
        stream.seek(length)
        stream.write(_END if length else b'')
    return size - length


def salvage(file: Path, target: Path) -> int:
    """
    Copy the whole records of a file and end the copy properly.

    Returns how many bytes at the end were left behind. Raises OSError.
    """
    length = whole_length(file)
    shutil.copyfile(file, target)
    with target.open('r+b') as copy:
        copy.truncate(length)
        copy.seek(length)
        copy.write(_END)
    return file.stat().st_size - length
