# SPDX-License-Identifier: Apache-2.0
"""Annotated frames and videos, into which all formats are read, and the reader of pictures."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
import math
import os
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from .findings import DataError, Findings, Kind
from ..errors import cut
from ..images.frame import decode_file

#: Bytes of a name and of a path (NAME_MAX and PATH_MAX of Linux).
_MOST_NAME, _MOST_PATH = 255, 4096


class PictureFolder:
    """A folder of files; if `outside` is true, names may lead out of the folder."""

    def __init__(self, root: str | Path, outside: bool = False) -> None:
        """Store the folder, which need not exist."""
        self.root = Path(root)
        self._outside = outside
        self._real_root = os.path.realpath(self.root)
        # Thousands of pictures are in one folder.
        self._real_folder = lru_cache(maxsize=1024)(os.path.realpath)

    def __reduce__(self) -> tuple[type[PictureFolder], tuple[Path, bool]]:
        """Do not send the cache to another process."""
        return PictureFolder, (self.root, self._outside)

    def place(self, name: str, where: str, key: str = 'file_name') -> Path:
        """
        Return the path of a file, which need not exist.

        :param name: relative to the folder
        :param where: the file and the entry, for the message
        :param key: the name's key in that file
        :raises DataError: the name cannot be that of a file, or it leads out of the folder: by
            ``..``, by a symbolic link, or as an absolute path
        """
        path = self.root / name
        try:
            fits = '\0' not in name and len(os.fsencode(path)) < _MOST_PATH and all(
                len(os.fsencode(part)) <= _MOST_NAME for part in path.parts)
        except UnicodeEncodeError:
            fits = False
        if not fits:
            raise DataError(f'{where}: {key} {cut(name)!r} cannot be the name of a file')
        if not self._outside and not self._is_inside(path):
            raise DataError(f'{where}: {key} {cut(name)!r} leads out of {self.root}; '
                            '--outside allows that, or outside: true in a recipe', Kind.OUTSIDE)
        return path

    def _is_inside(self, path: Path) -> bool:
        if path.name == '..' or os.path.islink(path):
            real = os.path.realpath(path)
        else:
            real = os.path.join(self._real_folder(path.parent), path.name)
        return os.path.commonpath((real, self._real_root)) == self._real_root


def names_in(folder: Path, where: str) -> set[str]:
    """Return the names in a folder; raises DataError, which begins with `where`."""
    try:
        return set(os.listdir(folder))
    except OSError:
        raise DataError(f'{where}: no folder {folder}', Kind.MISSING_FILE) from None


T = TypeVar('T')
#: Track number of a box whose object is not known in other frames.
UNKNOWN_TRACK = -1

#: Limit of track numbers: tracks of two files are made different by addition, within 64 bits.
MOST_TRACKS = 2**62

# A box may reach beyond its picture by so many pixels without a note, because of rounding, and of
# corners counted from 0 or from 1.
_ROUNDING = 1.0


@dataclass(frozen=True)
class Targets:
    """
    The targets of a frame: boxes to find, and regions that are neither object nor background.

    :raises ValueError: if the numbers of tracks and boxes differ
    """

    boxes: np.ndarray  #: float32 (N, 4) xyxy, pixels
    labels: np.ndarray  #: int64 (N,), 0-based into the classes
    scores: np.ndarray  #: float32 (N,), 0 to 1; 1 for boxes without a score
    ignore: np.ndarray  #: float32 (K, 4) xyxy, pixels
    #: int64 (N,), the same number for the same object in all frames of a video, `UNKNOWN_TRACK` if
    #: unknown (the default for all boxes).
    tracks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        """Fill in unknown tracks."""
        if not len(self.tracks):
            unknown = np.full(len(self.boxes), UNKNOWN_TRACK, np.int64)
            object.__setattr__(self, 'tracks', unknown)
        elif len(self.tracks) != len(self.boxes):
            raise ValueError(f'{len(self.tracks)} tracks for {len(self.boxes)} boxes')

    def demote(self, chosen: np.ndarray) -> Targets:
        """Turn the boxes where `chosen`, bool (N,), is true into ignore regions."""
        if not chosen.any():
            return self
        kept = ~chosen
        return Targets(self.boxes[kept], self.labels[kept], self.scores[kept],
                       np.concatenate([self.ignore, self.boxes[chosen]]), self.tracks[kept])


@dataclass(frozen=True)
class FrameRecord(Targets):
    """An annotated picture: its file, its size in pixels, and its targets, inside the picture."""

    path: Path = field(kw_only=True)
    width: int = field(kw_only=True)
    height: int = field(kw_only=True)


@dataclass(frozen=True)
class VideoRecord:
    """
    Consecutive frames of one size, in order; a still is a video of one frame.

    `frames` may read each frame's annotation at its access, and then raises DataError if that is
    unusable. Videos of the same `group` are parts of one recording; empty: no group.
    """

    name: str
    frames: Sequence[FrameRecord]
    group: str = ''


def read_videos(entries: Iterable[T], read: Callable[[T], VideoRecord], findings: Findings,
                nothing: str) -> list[VideoRecord]:
    """Read every entry; `findings` receives unusable ones. Raises DataError if none is left."""
    records = []
    for entry in entries:
        try:
            records.append(read(entry))
        except DataError as error:
            findings.fault(error)
    if not records:
        raise DataError(nothing, Kind.SOURCE)
    return records


class FrameBoxes:
    """The targets of one picture while its annotation is read."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._boxes: list[tuple[float, ...]] = []
        self._labels: list[int] = []
        self._scores: list[float] = []
        self._ignore: list[tuple[float, ...]] = []
        self._tracks: list[int] = []
        self._seen: set[tuple[float, ...]] = set()

    def has_track(self, track: int) -> bool:
        """Return whether there is a target of this track; False for `UNKNOWN_TRACK`."""
        return track != UNKNOWN_TRACK and track in self._tracks

    def add(self, box: tuple[float, ...], label: int, where: str, findings: Findings,
            score: float = 1.0, track: int = UNKNOWN_TRACK) -> None:
        """Add a target, xyxy within the picture; `where` names it in the note on a duplicate."""
        if (label, *box) in self._seen:
            findings.note(Kind.DUPLICATE, f'{where}: class and box are those of another object '
                                          'in the picture')
        self._seen.add((label, *box))
        self._boxes.append(box)
        self._labels.append(label)
        self._scores.append(score)
        self._tracks.append(track)

    def add_ignore(self, box: tuple[float, ...]) -> None:
        """Add a region that is neither object nor background, xyxy within the picture."""
        self._ignore.append(box)

    def record(self, path: Path, width: int, height: int) -> FrameRecord:
        """Return the finished record of the picture `path` of `width` x `height` pixels."""
        return FrameRecord(
            np.array(self._boxes, dtype=np.float32).reshape(-1, 4),
            np.array(self._labels, dtype=np.int64),
            np.array(self._scores, dtype=np.float32),
            np.array(self._ignore, dtype=np.float32).reshape(-1, 4),
            np.array(self._tracks, dtype=np.int64), path=path, width=width, height=height)


def box_in_picture(corners: Sequence[float], width: int, height: int, where: str,
                   findings: Findings) -> tuple[float, ...] | None:
    """
    Cut a box to its picture.

    :param corners: x0, y0, x1, y1 in pixels; the left edge of the picture is 0, its right edge
        `width`
    :param width, height: of the picture, pixels
    :param where: file and entry, for `findings`
    :param findings: receives boxes that are cut by more than a pixel, or dropped
    :returns: x0, y0, x1, y1 within the picture; None if a number is not finite or no area is left
    """
    x0, y0, x1, y1 = corners
    if not all(math.isfinite(value) for value in corners):
        findings.note(Kind.NOT_FINITE, f'{where}: box with numbers that are not finite')
        return None
    if x1 <= x0 or y1 <= y0:
        findings.note(Kind.NO_AREA, f'{where}: box without area, {x1 - x0:g} x {y1 - y0:g}')
        return None
    cut = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        findings.note(Kind.NO_AREA, f'{where}: {_shown(corners)} lies outside of the '
                                    f'{width}x{height} picture')
        return None
    if max(-x0, -y0, x1 - width, y1 - height) > _ROUNDING:
        findings.note(Kind.BEYOND, f'{where}: {_shown(corners)} reaches beyond the '
                                   f'{width}x{height} picture and is cut')
    return cut


def _shown(corners: Sequence[float]) -> str:
    x0, y0, x1, y1 = corners
    return f'box from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g})'


class FrameReader:
    """
    Decodes the pictures of frames, and keeps preloaded ones in memory.

    Preload in the parent process: forked workers then share the memory.
    """

    def __init__(self) -> None:
        """Make a reader without preloaded pictures."""
        self._kept: dict[Path, np.ndarray] = {}

    def read(self, frame: FrameRecord) -> np.ndarray:
        """
        Return the picture, uint8 (H, W, 3) RGB, of the record's size.

        :raises DataError: the file is missing, no picture, or of another size
        """
        kept = self._kept.get(frame.path)
        return decode_picture(frame) if kept is None else kept

    def preload(self, videos: Iterable[VideoRecord]) -> int:
        """Decode every frame of `videos` and keep it; return the bytes now kept."""
        for video in videos:
            for frame in video.frames:
                if frame.path not in self._kept:
                    image = decode_picture(frame)
                    image.flags.writeable = False
                    self._kept[frame.path] = image
        return sum(image.nbytes for image in self._kept.values())


def decode_picture(frame: FrameRecord) -> np.ndarray:
    """Decode a frame's file; see `FrameReader.read`."""
    try:
        image = decode_file(frame.path)
    except OSError as error:
        raise DataError(f'{frame.path}: cannot be read: {error.strerror}',
                        Kind.MISSING_FILE) from None
    if image is None:
        raise DataError(f'{frame.path}: not a picture that OpenCV can decode', Kind.PICTURE)
    if image.shape[:2] != (frame.height, frame.width):
        raise DataError(f'{frame.path}: is {image.shape[1]}x{image.shape[0]} pixels, but its '
                        f'annotation says {frame.width}x{frame.height}', Kind.WRONG_SIZE)
    # In place, because OpenCV decodes to RGB only from 4.11 on (IMREAD_COLOR_RGB).
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
