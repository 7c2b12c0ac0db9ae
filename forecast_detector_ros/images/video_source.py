# SPDX-License-Identifier: Apache-2.0
"""Read the pictures of a video file, a folder of images or a V4L2 device in order."""
from __future__ import annotations

import math
import os
from pathlib import Path
import re
import stat
from typing import Protocol

import cv2
import numpy as np

from .frame import decode_file, SourceError
from ..errors import cut

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')

# Without an index, the announced count is duration * rate, sometimes wrong by one frame.
ANNOUNCED_TOLERANCE = 1

LOG_LEVEL_SILENT = 0  #: OpenCV's `cv::utils::logging::LOG_LEVEL_SILENT`


class VideoSource(Protocol):
    """A sequence of pictures."""

    name: str  #: Name of the source as the user wrote it
    #: Pictures per second of the source; None if it has no rate.
    rate: float | None
    live: bool  #: Whether it is a device, which sets the rate of the pictures and does not end

    def read(self) -> np.ndarray | None:
        """
        Return the next picture, or None at the end.

        The picture is BGR, uint8, (H, W, 3), contiguous, and valid until the next call. Raises
        SourceError if a device stops delivering.
        """

    def rewind(self) -> None:
        """Go back to the first picture; raises SourceError if that is not possible."""

    def loss(self) -> str | None:
        """Return at the end one line on unread pictures; None if all were read."""

    def close(self) -> None:
        """Release the file or the device."""


class VideoFile:
    """The pictures of a video file, decoded by OpenCV."""

    live = False

    def __init__(self, path: str | Path) -> None:
        """Open `path` and decode its first picture; raises SourceError if either fails."""
        self.name = str(path)
        try:
            # FFmpeg reads text before a colon as a protocol, and OpenCV needs UTF-8.
            self._place = os.path.abspath(path)
            self._place.encode()
        except UnicodeEncodeError:
            raise SourceError(f'{cut(self.name)}: the name of a video must be UTF-8') from None
        self._capture = _open_capture(self.name, _file_backend(), self._place)
        self._first: np.ndarray | None = None
        self._delivered = 0
        announced = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.announced = int(announced) if 0 < announced < 2**31 else None
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        # 1000 and more is a time base and not a rate (90000 in some MPEG streams).
        self.rate = float(rate) if math.isfinite(rate) and 0 < rate < 1000 else None
        ok, first = self._capture.read()
        if not ok:
            self._capture.release()
            raise SourceError(f'{self.name}: no picture can be decoded; the file is damaged, '
                              'truncated or not a video')
        self._first = first

    def read(self) -> np.ndarray | None:
        """Return the next picture, or None at the end or at a damage."""
        if self._first is not None:
            picture, self._first = self._first, None
        else:
            ok, picture = self._capture.read()
            if not ok:
                return None
        self._delivered += 1
        return picture

    def rewind(self) -> None:
        """Open the file again, because seeking is not exact in every container."""
        self._capture.release()
        self._capture = _open_capture(self.name, _file_backend(), self._place)
        self._first = None
        self._delivered = 0

    def loss(self) -> str | None:
        """Return one line if the file has fewer pictures than it announces, else None."""
        if self.announced is None or self.announced - self._delivered <= ANNOUNCED_TOLERANCE:
            return None
        return (f'{self.name}: broke off after {self._delivered} of {self.announced} frames '
                '(truncated or damaged file); the rest is lost')

    def close(self) -> None:
        """Release the file."""
        self._capture.release()


class ImageFolder:
    """The pictures of a folder, in the natural order of their names (9 before 10)."""

    live = False
    rate: float | None = None

    def __init__(self, folder: str | Path) -> None:
        """List `folder`; raises SourceError if it has no image."""
        _silence_decoders()
        self.name = str(folder)
        try:
            files = [entry for entry in Path(folder).iterdir()
                     if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
        except OSError as error:
            raise SourceError(f'{self.name}: {error.strerror or error}') from None
        if not files:
            raise SourceError(f'{self.name}: the folder holds no image '
                              f'({", ".join(IMAGE_SUFFIXES)})')
        self._files = sorted(files, key=_natural_order)
        self._next = 0
        self._unreadable: dict[str, None] = {}

    def read(self) -> np.ndarray | None:
        """Return the next readable picture, or None at the end."""
        while self._next < len(self._files):
            path = self._files[self._next]
            self._next += 1
            try:
                picture = decode_file(path)
            except OSError:
                picture = None
            if picture is not None:
                return picture
            self._unreadable[path.name] = None
        if len(self._unreadable) == len(self._files):
            raise SourceError(f'{self.name}: none of the {len(self._files)} images is readable')
        return None

    def rewind(self) -> None:
        """Start over with the first picture."""
        self._next = 0

    def loss(self) -> str | None:
        """Return one line that names the first unreadable files; None without any."""
        if not self._unreadable:
            return None
        names = list(self._unreadable)
        shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
        return f'{self.name}: {len(names)} of {len(self._files)} images unreadable: {shown}'

    def close(self) -> None:
        """Do nothing: no file is held open."""


class Device:
    """A V4L2 camera, which sets the rate of the pictures."""

    live = True

    def __init__(self, device: str, rate: float = 0.0) -> None:
        """
        Open `device`, a path such as /dev/video0 or a bare number.

        `rate` is requested from the driver, pictures per second; 0: the driver's default. Raises
        SourceError if the device cannot be opened.
        """
        self.name = device
        self._asked_rate = rate
        self._capture = self._open()
        granted = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = float(granted) if math.isfinite(granted) and granted > 0 else None

    def _open(self) -> cv2.VideoCapture:
        capture = _open_capture(int(self.name) if self.name.isdecimal() else self.name,
                                cv2.CAP_V4L2)
        # One buffer, because a picture that waits in the driver would get a late stamp.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if self._asked_rate > 0:
            capture.set(cv2.CAP_PROP_FPS, self._asked_rate)
        return capture

    def read(self) -> np.ndarray:
        """Wait for the next picture; raises SourceError if the device stops delivering."""
        ok, picture = self._capture.read()
        if not ok:
            raise SourceError(f'{self.name}: the device stopped delivering pictures')
        return picture

    def reopen(self) -> None:
        """Close the device and open it again; raises SourceError if that fails."""
        # Released first, because a device that is plugged in again would get another number.
        self._capture.release()
        self._capture = self._open()

    def rewind(self) -> None:
        """Raise SourceError, because a device has no first picture."""
        raise SourceError(f'{self.name}: a device cannot be rewound')

    def loss(self) -> str | None:
        """Return None, because losses of a device are not known."""
        return None

    def close(self) -> None:
        """Release the device."""
        self._capture.release()


def open_source(source: str, rate: float = 0.0) -> VideoSource:
    """
    Open a V4L2 device, a folder of images or a video file.

    `rate`, Hz, is requested from a device; 0: its default. OpenCV's log is silenced. Raises
    SourceError if the source is missing or unreadable.
    """
    if not source:
        raise SourceError('source is not set; it is a video file, a folder of images or a '
                          'V4L2 device such as /dev/video0')
    if source.isdecimal() or source.startswith('/dev/'):
        return Device(source, rate)
    # Unlike Path.expanduser, it does not fail for a name such as ~backup.mp4.
    path = Path(os.path.expanduser(source))
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError for a null character.
        raise SourceError(f'{source}: no such file, folder or device') from None
    except OSError as error:
        raise SourceError(f'{cut(source)}: {error.strerror}') from None
    if stat.S_ISCHR(mode):
        return Device(source, rate)
    if stat.S_ISDIR(mode):
        return ImageFolder(path)
    if not os.access(path, os.R_OK):
        raise SourceError(f'{source}: permission denied')
    return VideoFile(path)


def _open_capture(source: str | int, backend: int, place: str | None = None
                  ) -> cv2.VideoCapture:
    """Open a device, or the file at `place`; raises SourceError."""
    if isinstance(source, str) and source.startswith('/dev/') and not Path(source).exists():
        raise SourceError(f'{source}: no such device')
    _silence_decoders()
    capture = cv2.VideoCapture(source if place is None else place, backend)
    if not capture.isOpened():
        kind = 'V4L2 device' if backend == cv2.CAP_V4L2 else 'video'
        raise SourceError(f'{source}: cannot be opened as a {kind}; '
                          'it is damaged, truncated, busy or of an unknown format')
    return capture


def _silence_decoders() -> None:
    """Silence OpenCV's messages, so that the line about a damaged file is visible."""
    # OpenCV reads FFmpeg's level when the first video is opened.
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    # OpenCV 4.6 of Ubuntu 24.04 and Debian 12 has another name for the function.
    set_level = getattr(cv2, 'setLogLevel', None) or cv2.utils.logging.setLogLevel
    set_level(LOG_LEVEL_SILENT)


def _file_backend() -> int:
    """Return FFmpeg if OpenCV has it; other back-ends read numbered images as a video."""
    has_ffmpeg = cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends()
    return cv2.CAP_FFMPEG if has_ffmpeg else cv2.CAP_ANY


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    parts = re.findall(r'\d+|\D+', path.name)
    return [(0, int(part), '') if part.isdecimal() else (1, 0, part) for part in parts]
