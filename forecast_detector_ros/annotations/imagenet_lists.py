# SPDX-License-Identifier: Apache-2.0
"""
Lists of frames and pictures, as detectors trained on ImageNet VID and DET share them.

Lines of the lists read here, all of them separated by spaces:

- `SNIPPET 1 FRAME COUNT`, such as VID_train_15frames.txt: a frame, from 0 on, of a snippet of
  COUNT frames.
- `SNIPPET START 0 COUNT`, such as VID_val_videos.txt: a whole snippet. Such a list has one line
  per snippet, always with frame 0.
- `SNIPPET/FRAME NUMBER`, such as the development kit's VID/val.txt: a frame.
- `SNIPPET NUMBER`, such as the kit's VID/train_1.txt: a whole snippet.
- `PICTURE NUMBER`, such as DET_train_30classes.txt: a picture of DET.
"""
from __future__ import annotations

from dataclasses import dataclass, field
import gzip
from pathlib import Path
import re
import zlib

from .findings import DataError, Findings, Kind

FRAME_DIGITS = 6  #: Digits of a frame's number in the names of its files
_FRAME = re.compile(rf'\d{{{FRAME_DIGITS}}}')


@dataclass
class Listed:
    """The entry of one snippet in a list."""

    where: str  #: File and first line
    count: int | None = None  #: Frames of the snippet; None if the list has no number
    #: Numbers of the listed frames in the order of the list; None for all.
    frames: list[int] | None = field(default_factory=list)


def read_lines(path: Path, kind: Kind = Kind.SOURCE) -> list[tuple[str, str]]:
    """
    Read a text file, .gz or not; return (file and line number, line) of all lines with text.

    :raises DataError: of this `kind`; the message is one line that names the file
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == '.gz' else data).decode('utf-8')
    except UnicodeDecodeError:
        raise DataError(f'{path}: not a text file (not UTF-8)', kind) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, 'strerror', None) or error
        raise DataError(f'{path}: cannot be read: {reason}', kind) from None
    lines = [(f'{path}: line {number}', line.strip())
             for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise DataError(f'{path}: empty', kind)
    return lines


def read_snippets(path: Path, findings: Findings) -> dict[str, Listed]:
    """
    Read a list of snippets or of their frames.

    :param findings: receives the errors of unusable lines
    :returns: entries by the snippet's path in the list, in the order of the list
    :raises DataError: the file cannot be read
    """
    snippets: dict[str, Listed] = {}
    counted = 0
    for where, line in read_lines(path):
        try:
            name, frame, count = _parse(line, where)
            listed = snippets.setdefault(name, Listed(where, count))
            if listed.count != count:
                raise DataError(f'{where}: {name} has {count} frames here, but {listed.count} in '
                                'an earlier line')
            if frame is None:
                listed.frames = None
            elif listed.frames is not None:
                if frame in listed.frames:
                    findings.note(Kind.LISTED_TWICE, f'{where}: frame {frame} of {name} again')
                    continue
                listed.frames.append(frame)
            counted += 1
        except DataError as error:
            findings.fault(error)
    if counted == len(snippets) and all(
            listed.frames == [0] and listed.count for listed in snippets.values()):
        for listed in snippets.values():
            listed.frames = None
    return snippets


def _parse(line: str, where: str) -> tuple[str, int | None, int | None]:
    """Return snippet, frame or None for all, and number of frames or None if not given."""
    name, *rest = line.split()
    if len(rest) not in (1, 3) or not all(re.fullmatch(r'-?\d+', text) for text in rest):
        raise DataError(f'{where}: is {line!r:.80}; it must be a path and 1 or 3 whole numbers')
    if len(rest) == 3:
        frame, count = int(rest[1]), int(rest[2])
        if not 0 <= frame < count:
            raise DataError(f'{where}: frame {frame} of {count}; frames count from 0')
        if count > 10**FRAME_DIGITS:
            raise DataError(f'{where}: a snippet of {count} frames; their numbers have '
                            f'{FRAME_DIGITS} digits')
        return name, frame, count
    folder, _, last = name.rpartition('/')
    if folder and _FRAME.fullmatch(last):
        return folder, int(last), None
    return name, None, None


def read_pictures(path: Path, findings: Findings) -> dict[str, str]:
    """
    Read a list of pictures; return path -> file and line, in the order of the list.

    :raises DataError: the file cannot be read
    """
    pictures: dict[str, str] = {}
    for where, line in read_lines(path):
        name, *rest = line.split()
        if len(rest) > 1:
            findings.fault(DataError(f'{where}: is {line!r:.80}; it must be a path and a number'))
        elif name in pictures:
            findings.note(Kind.LISTED_TWICE, f'{where}: {name} again')
        else:
            pictures[name] = where
    return pictures
