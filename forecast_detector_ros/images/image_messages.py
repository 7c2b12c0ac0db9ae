# SPDX-License-Identifier: Apache-2.0
"""
Turn image messages into frames that are decoded only when they are loaded.

Only the fields of sensor_msgs/Image and sensor_msgs/CompressedImage are used, not their classes.
So the same code reads messages of nodes and of bags.

The header of a message (size, encoding, step, length of the data) is checked when the frame is
made. Only `Frame.load` reads the data. It checks the size of a compressed picture before it
allocates memory.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
import struct
from typing import Any

import cv2
import numpy as np

from .frame import Frame, FrameError, Pixels
from .quiet_decoder import decode_quietly
from ..errors import cut, one_line

MAX_IMAGE_PIXELS = 64_000_000  #: Default of the most pixels that an image may have
#: Encodings that need no conversion: bytes per pixel and channel order.
_VIEWED = {
    'rgb8': (3, 'rgb'), 'bgr8': (3, 'bgr'), 'rgba8': (4, 'rgba'), 'bgra8': (4, 'bgra'),
    'mono8': (1, 'mono'), '8UC1': (1, 'mono'), '8UC3': (3, 'bgr'), '8UC4': (4, 'bgra'),
}
#: ROS names all four pixels of the pattern, OpenCV two pixels of its second row.
_BAYER = {'bayer_rggb8': cv2.COLOR_BayerBG2BGR, 'bayer_bggr8': cv2.COLOR_BayerRG2BGR,
          'bayer_gbrg8': cv2.COLOR_BayerGR2BGR, 'bayer_grbg8': cv2.COLOR_BayerGB2BGR}
_YUV422 = {'yuv422': cv2.COLOR_YUV2BGR_UYVY, 'uyvy': cv2.COLOR_YUV2BGR_UYVY,
           'yuv422_yuy2': cv2.COLOR_YUV2BGR_YUY2, 'yuyv': cv2.COLOR_YUV2BGR_YUY2}

_YUV420 = {'nv12': cv2.COLOR_YUV2BGR_NV12, 'nv21': cv2.COLOR_YUV2BGR_NV21}

#: Encodings of sensor_msgs/Image that are accepted.
ENCODINGS = (*_VIEWED, 'mono16', *_BAYER, *_YUV422, *_YUV420)
#: The whole 16-bit range becomes the whole 8-bit range, as in cv_bridge.
_MONO16_SCALE = 255.0 / 65535.0
_JPEG_START, _JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
_PNG_START, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'

#: Last bytes that contain the end mark of most pictures; cameras pad their buffers.
_TAIL = 1024
#: Scales at which libjpeg can decode, smallest picture first.
_REDUCED = ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4),
            (2, cv2.IMREAD_REDUCED_COLOR_2))
#: JPEG markers SOF0 to SOF15, which have the size, without three of tables (T.81, table B.1).
_FRAME_HEADERS = frozenset(range(0xc0, 0xd0)) - {0xc4, 0xc8, 0xcc}
_END_OF_HEADER = (0xd9, 0xda)  #: End of image and start of scan
#: TEM and RST0 to RST7, which have no length (T.81, table B.1).
_LONE_MARKERS = frozenset((0x01, *range(0xd0, 0xd8)))
_START_OF_SCAN = b'\xff\xda'

#: Most scans of a JPEG of the largest size, proportionally more of a smaller one. Each scan of a
#: progressive JPEG is a pass over all pixels, even if the scan has only a few bytes. libjpeg's
#: encoder writes 10.
_MOST_SCANS = 16
#: Most chunks of a PNG; each takes time, and encoders write 8 KiB or more into each.
_MOST_CHUNKS = 100_000
#: Converts a valid sensor_msgs/Image, given the bytes per row, to BGR; None if it cannot.
Converter = Callable[[Any, int], 'np.ndarray | None']


@dataclass
class LazyPixels:
    """Loads pixels once and keeps them; an error is not kept."""

    read: Callable[[], Pixels]
    pixels: Pixels | None = None

    def __call__(self) -> Pixels:
        """Return the pixels; raises as `read`."""
        if self.pixels is None:
            self.pixels = self.read()
        return self.pixels


def image_frame(message: Any, convert: Converter | None = None,
                max_pixels: int = MAX_IMAGE_PIXELS) -> Frame:
    """
    Make a frame of a sensor_msgs/Image without reading its data.

    `message` needs the fields of sensor_msgs/Image; `data` may be any buffer of bytes. `convert`
    is tried first for encodings that need a conversion.

    Raises FrameError if size, encoding, step and length of the data contradict each other, the
    encoding is not one of ENCODINGS, or the image has more than `max_pixels` pixels.
    """
    _check_header(message)
    _check_size((message.height, message.width), max_pixels)
    return Frame((message.height, message.width), LazyPixels(lambda: to_pixels(message, convert)))


def compressed_frame(message: Any, max_pixels: int = MAX_IMAGE_PIXELS) -> Frame:
    """
    Make a frame of a sensor_msgs/CompressedImage without reading its data.

    Its size is unknown until it is loaded, which fails above `max_pixels` pixels. A JPEG is
    decoded at a reduced scale if this fills the network's input. Raises FrameError if there is no
    data.
    """
    if len(message.data) == 0:
        raise FrameError('compressed image has no data')
    return Frame(None, LazyPixels(lambda: decode(message, max_pixels)),
                 partial(decode_reduced, message, max_pixels=max_pixels))


def to_pixels(message: Any, convert: Converter | None = None) -> Pixels:
    """
    Return the pixels of a sensor_msgs/Image with a valid header.

    8-bit grey and colour images are views of the message's data. mono16 (the 16-bit range becomes
    the 8-bit range), Bayer and YUV images are converted to grey or BGR, by `convert` if it can.
    Raises FrameError if the conversion fails.
    """
    encoding, height, width = message.encoding, message.height, message.width
    if encoding in _VIEWED:
        channels, order = _VIEWED[encoding]
        return Pixels(_view(message, height, width, channels), order)
    if convert is not None and encoding not in _YUV420:
        converted = convert(message, width * (1 if encoding in _BAYER else 2))
        if converted is not None:
            return Pixels(converted, 'bgr')
    try:
        if encoding in _BAYER:
            return Pixels(cv2.cvtColor(_view(message, height, width, 1), _BAYER[encoding]),
                          'bgr')
        if encoding == 'mono16':
            return Pixels(_mono16(message), 'mono')
        if encoding in _YUV422:
            return Pixels(cv2.cvtColor(_view(message, height, width, 2), _YUV422[encoding]),
                          'bgr')
        planes = _view(message, height * 3 // 2, width, 1)
        return Pixels(cv2.cvtColor(planes, _YUV420[encoding]), 'bgr')
    except cv2.error as error:
        raise FrameError(f'{encoding} image of {width}x{height} pixels cannot be converted: '
                         f'{one_line(error)}') from None


def decode(message: Any, max_pixels: int = MAX_IMAGE_PIXELS) -> Pixels:
    """
    Decode a sensor_msgs/CompressedImage that holds a JPEG or a PNG.

    The first bytes give the format; drivers disagree on the field `format`, which is only quoted
    in messages. The result is 8-bit BGR in the stored orientation, as in image_transport, so that
    boxes fit its pictures. Raises FrameError if the data is damaged or, before decoding, if its
    header has more than `max_pixels` pixels.
    """
    kind = _check_compressed(message)
    _told_size(message, kind, max_pixels)
    return _decode(message, kind, cv2.IMREAD_COLOR)


def decode_reduced(message: Any, least: tuple[int, int], max_pixels: int = MAX_IMAGE_PIXELS
                   ) -> tuple[Pixels, tuple[int, int]]:
    """
    Decode a compressed image, a JPEG possibly at a reduced scale.

    A JPEG is decoded at the smallest of the scales 1, 1/2, 1/4 and 1/8 that has at least `least`
    (height, width) pixels, which is faster. Returns the pixels, as `decode` does, and the (height,
    width) of the whole picture. Raises FrameError as `decode` does.
    """
    kind = _check_compressed(message)
    size = _told_size(message, kind, max_pixels)
    if kind == 'JPEG':
        for scale, flag in _REDUCED:
            # libjpeg rounds up.
            if all(-(-side // scale) >= wanted for side, wanted in zip(size, least)):
                return _decode(message, kind, flag), size
    pixels = _decode(message, kind, cv2.IMREAD_COLOR)
    return pixels, pixels.size


def jpeg_size(data: Any) -> tuple[int, int] | None:
    """
    Return the (height, width) in the header of a JPEG, or None if there is none.

    `data` is any buffer of bytes. The markers are read up to the first frame header (ITU-T T.81,
    section B.1).
    """
    view = memoryview(data)
    position = 2
    while position + 9 <= len(view) and view[position] == 0xff:
        marker = view[position + 1]
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack_from('>HH', view, position + 5)
            return (height, width) if height and width else None
        if marker == 0xff:  # A fill byte.
            position += 1
        elif marker in _END_OF_HEADER:
            return None
        elif marker in _LONE_MARKERS:
            position += 2
        else:
            length = struct.unpack_from('>H', view, position + 2)[0]
            # The decoder would continue after an invalid marker, where another size may follow.
            if marker == 0x00 or length < 2:
                return None
            position += 2 + length
    return None


def png_size(data: Any) -> tuple[int, int] | None:
    """
    Return the (height, width) in the first chunk of a PNG, or None if there is none.

    `data` is any buffer of bytes (W3C PNG, section 11.2.1).
    """
    view = memoryview(data)
    if len(view) < 24 or bytes(view[12:16]) != b'IHDR':
        return None
    width, height = struct.unpack_from('>II', view, 16)
    return (height, width) if height and width else None


def _check_chunks(data: Any) -> None:
    """
    Raise FrameError for a PNG with a chunk beyond its end, for which the decoder takes memory.

    `data` is any buffer of bytes. A chunk has a length, a name, data and a checksum (W3C PNG,
    section 5.3).
    """
    view = memoryview(data)
    position = len(_PNG_START)
    for _ in range(_MOST_CHUNKS):
        if position + 12 > len(view):
            raise FrameError(f'PNG image is truncated: no chunk IEND in {len(view)} bytes')
        length = struct.unpack_from('>I', view, position)[0]
        if bytes(view[position + 4:position + 8]) == b'IEND':
            return
        if length > len(view) - position - 12:
            raise FrameError(f'PNG image is damaged: a chunk of {length} bytes at byte '
                             f'{position} of {len(view)}')
        position += 12 + length
    raise FrameError(f'PNG image has more than {_MOST_CHUNKS} chunks')


def _told_size(message: Any, kind: str, max_pixels: int) -> tuple[int, int]:
    """Return (height, width) from the header; raises FrameError if it may not be decoded."""
    size = (jpeg_size if kind == 'JPEG' else png_size)(message.data)
    if size is None:
        raise FrameError(f'{kind} image cannot be decoded: its header has no size')
    _check_size(size, max_pixels)
    if kind == 'PNG':
        _check_chunks(message.data)
    else:
        scans = bytes(message.data).count(_START_OF_SCAN)
        if scans * size[0] * size[1] > _MOST_SCANS * max_pixels:
            raise FrameError(f'JPEG image of {size[1]}x{size[0]} pixels has {scans} scans, '
                             'which are too many')
    return size


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise FrameError(f'image of {size[1]}x{size[0]} pixels is larger than max_image_pixels, '
                         f'{max_pixels}')


def _check_compressed(message: Any) -> str:
    """Return JPEG or PNG; raises FrameError for other data and for data without an end mark."""
    data = np.frombuffer(message.data, np.uint8)
    start = bytes(data[:len(_PNG_START)])
    if start.startswith(_JPEG_START):
        kind, mark = 'JPEG', _JPEG_END
    elif start == _PNG_START:
        kind, mark = 'PNG', _PNG_END
    else:
        raise FrameError(f'compressed image is neither JPEG nor PNG (it begins with '
                         f'{start[:4].hex(" ")}, format says {cut(message.format)!r})')
    # Without this check the decoder would fill a missing part with grey, without an error.
    if mark not in bytes(data[-_TAIL:]) and not _ends(bytes(data), mark):
        raise FrameError(f'{kind} image is truncated: no end mark after {len(data)} bytes')
    return kind


def _ends(data: bytes, mark: bytes) -> bool:
    """Return whether the end mark is before padding of any length."""
    place = data.rfind(mark)
    # A thumbnail in a JPEG's header also has an end mark, so it must come after the scan.
    return place >= 0 and (mark != _JPEG_END or place > data.rfind(_START_OF_SCAN))


def _decode(message: Any, kind: str, flag: int) -> Pixels:
    data = np.frombuffer(message.data, np.uint8)
    try:
        array, damage = decode_quietly(data, flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise FrameError(f'{kind} image cannot be decoded: {one_line(error)}') from None
    if array is None:
        raise FrameError(f'{kind} image of {len(data)} bytes cannot be decoded'
                         + (f': {damage}' if damage else ''))
    if damage:
        raise FrameError(f'{kind} image of {len(data)} bytes is damaged: {damage}')
    return Pixels(array, 'bgr')


def _check_header(message: Any) -> None:
    encoding, height, width, step = (
        message.encoding, message.height, message.width, message.step)
    if height == 0 or width == 0:
        raise FrameError(f'image has no pixels: {width}x{height}')
    rows, pixel_bytes = height, 1
    if encoding in _VIEWED:
        pixel_bytes = _VIEWED[encoding][0]
    elif encoding == 'mono16' or encoding in _YUV422:
        pixel_bytes = 2
    elif encoding in _YUV420:
        rows = height * 3 // 2
    elif encoding not in _BAYER:
        raise FrameError(f'unknown encoding {cut(encoding)!r}, must be one of '
                         f'{", ".join(ENCODINGS)}')
    if (encoding in _YUV422 or encoding in _YUV420) and width % 2:
        raise FrameError(f'{encoding} image is {width} pixels wide, must be even')
    if encoding in _YUV420 and height % 2:
        raise FrameError(f'{encoding} image is {height} pixels high, must be even')
    if step < width * pixel_bytes:
        raise FrameError(f'step is {step}, {width} pixels of {encoding} need at least '
                         f'{width * pixel_bytes}')
    if len(message.data) != step * rows:
        raise FrameError(f'data has {len(message.data)} bytes, {rows} rows of step {step} are '
                         f'{step * rows}')


def _view(message: Any, rows: int, columns: int, channels: int) -> np.ndarray:
    shape, strides = (rows, columns, channels), (message.step, channels, 1)
    sides = 2 if channels == 1 else 3
    return np.ndarray(shape[:sides], np.uint8, buffer=message.data, strides=strides[:sides])


def _mono16(message: Any) -> np.ndarray:
    order = '>u2' if message.is_bigendian else '<u2'
    deep = np.ndarray((message.height, message.width), order, buffer=message.data,
                      strides=(message.step, 2))
    # Contiguous, because OpenCV refuses rows at odd addresses.
    return cv2.convertScaleAbs(np.ascontiguousarray(deep, np.uint16), alpha=_MONO16_SCALE)
