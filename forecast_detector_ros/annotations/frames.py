# SPDX-License-Identifier: Apache-2.0
"""Reading the picture of a frame, once, into RGB."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from .errors import DataError, Kind
from .records import FrameRecord, VideoRecord


class FrameReader:
    """
    Decodes the pictures of frames; keeps those that were preloaded.

    Preload in the parent process: forked workers then share the memory.
    """

    def __init__(self) -> None:
        """Make a reader that keeps nothing yet."""
        self._kept: dict[Path, np.ndarray] = {}

    def read(self, frame: FrameRecord) -> np.ndarray:
        """
        Return the picture, uint8 (H, W, 3) RGB, of the size that the record states.

        :raises DataError: the file is missing, no picture, or of another size
        """
        kept = self._kept.get(frame.path)
        return decode(frame) if kept is None else kept

    def preload(self, videos: Iterable[VideoRecord]) -> int:
        """Decode every frame of `videos` and keep it; return the bytes now kept."""
        for video in videos:
            for frame in video.frames:
                if frame.path not in self._kept:
                    image = decode(frame)
                    image.flags.writeable = False
                    self._kept[frame.path] = image
        return sum(image.nbytes for image in self._kept.values())


def decode(frame: FrameRecord) -> np.ndarray:
    """Decode a frame's file; see `FrameReader.read`."""
    try:
        data = np.fromfile(frame.path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f'{frame.path}: cannot be read: {error.strerror}',
                        Kind.MISSING_FILE) from None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise DataError(f'{frame.path}: not a picture that OpenCV can decode', Kind.PICTURE)
    if image.shape[:2] != (frame.height, frame.width):
        raise DataError(f'{frame.path}: is {image.shape[1]}x{image.shape[0]} pixels, but its '
                        f'annotation says {frame.width}x{frame.height}', Kind.WRONG_SIZE)
    # In place; OpenCV decodes to RGB itself from 4.11 on only (IMREAD_COLOR_RGB).
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
