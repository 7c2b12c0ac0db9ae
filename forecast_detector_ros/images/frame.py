# SPDX-License-Identifier: Apache-2.0
"""Frames, which are decoded only when needed, and their pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError

#: Number of channels of each accepted channel order.
CHANNELS = {'bgr': 3, 'rgb': 3, 'bgra': 4, 'rgba': 4, 'mono': 1}
_TO_BGR = {'rgb': cv2.COLOR_RGB2BGR, 'bgra': cv2.COLOR_BGRA2BGR, 'rgba': cv2.COLOR_RGBA2BGR,
           'mono': cv2.COLOR_GRAY2BGR}


def as_bgr(array: np.ndarray, order: str) -> np.ndarray:
    """
    Convert uint8 pixels of one of the `CHANNELS` orders to ``(H, W, 3)`` BGR.

    BGR is returned unchanged, any other order as a new, contiguous array.
    """
    return array if order == 'bgr' else cv2.cvtColor(array, _TO_BGR[order])


def decode_file(path: Path) -> np.ndarray | None:
    """
    Decode a file to ``(H, W, 3)`` uint8 BGR; None if OpenCV cannot decode it.

    :raises OSError: if it cannot be read
    """
    data = np.fromfile(path, np.uint8)
    try:
        return cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:
        return None


def encode_jpeg(picture: np.ndarray, quality: int = 95) -> np.ndarray:
    """
    Encode a BGR picture as JPEG: the bytes, ``(N,)`` uint8.

    :param quality: 0 to 100
    :raises FrameError: if a side is above 65500 pixels, the most that OpenCV writes
    """
    try:
        done, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error:
        # OpenCV before 4.7 raises.
        done = False
    if not done:
        raise FrameError(f'{picture.shape[1]}x{picture.shape[0]} pixels do not fit into a JPEG')
    return data


class SourceError(InputError):
    """A video, folder, device or bag cannot be read; the message is one line."""


class FrameError(InputError):
    """A picture cannot be used; the message is one line."""


@dataclass(frozen=True)
class Pixels:
    """
    The pixels of a picture.

    :raises FrameError: if type or shape do not fit the channel order, or a side is 0
    """

    #: uint8, ``(H, W, channels)``, or ``(H, W)`` for mono; rows may be padded (a view).
    array: np.ndarray
    order: str  #: One of `CHANNELS`

    def __post_init__(self) -> None:
        if self.order not in CHANNELS:
            raise FrameError(f'channel order is {self.order!r}, must be one of '
                             f'{sorted(CHANNELS)}')
        channels = CHANNELS[self.order]
        shape = self.array.shape
        if self.array.dtype != np.uint8:
            raise FrameError(f'pixels are {self.array.dtype}, must be uint8')
        fits = len(shape) == 2 if channels == 1 else len(shape) == 3 and shape[2] == channels
        if not fits:
            raise FrameError(f'pixels have shape {shape}, {self.order} needs '
                             f'(height, width{"" if channels == 1 else f", {channels}"})')
        if 0 in shape:
            raise FrameError(f'picture is empty: {shape[1]}x{shape[0]} pixels')

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.array.shape[0], self.array.shape[1]


@dataclass(frozen=True)
class Frame:
    """A picture that is loaded only if the detector reads it."""

    size: tuple[int, int] | None  #: (height, width); None if unknown before decoding
    #: Returns the pixels or raises `FrameError`; called at most once, never for a forecast.
    load: Callable[[], Pixels]
    #: Returns a reduced picture if this is faster; None if `load` is as fast. Takes the least
    #: (height, width), returns the pixels and the (height, width) of the whole picture.
    load_reduced: Callable[[tuple[int, int]], tuple[Pixels, tuple[int, int]]] | None = None

    def load_for(self, least: tuple[int, int]) -> tuple[Pixels, tuple[int, int]]:
        """
        Load the picture, possibly reduced.

        :param least: least (height, width) of the result, unless the whole picture is smaller
        :returns: the pixels, and the (height, width) of the whole picture
        :raises FrameError: if the picture cannot be used
        """
        if self.load_reduced is not None:
            return self.load_reduced(least)
        pixels = self.load()
        return pixels, pixels.size
