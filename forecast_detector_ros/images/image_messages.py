# SPDX-License-Identifier: Apache-2.0
"""
Turn image messages into frames that are looked at only when somebody loads them.

Knows the fields of sensor_msgs/Image and sensor_msgs/CompressedImage, not their classes, so that
messages of a live graph and messages out of a bag are read by the same code.

The header of a message (size, encoding, step, length of the data) is checked when the frame is
made. Only `Frame.load` touches the bytes of the picture. It checks the size of a compressed
picture before it allocates memory.
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
#: Encodings that are used where they lie: bytes per pixel and channel order.
_VIEWED = {
    'rgb8': (3, 'rgb'), 'bgr8': (3, 'bgr'), 'rgba8': (4, 'rgba'), 'bgra8': (4, 'bgra'),
    'mono8': (1, 'mono'), '8UC1': (1, 'mono'), '8UC3': (3, 'bgr'), '8UC4': (4, 'bgra'),
}
#: ROS names the four pixels in the corner, OpenCV two of the second row: the same four.
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

#: Bytes at the end in which most pictures have their end mark: cameras pad their buffers.
_TAIL = 1024
#: Scales that libjpeg decodes at, smallest picture first.
_REDUCED = ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4),
            (2, cv2.IMREAD_REDUCED_COLOR_2))
#: JPEG markers SOF0 to SOF15, which tell the size; the three are tables (T.81, table B.1).
_FRAME_HEADERS = frozenset(range(0xc0, 0xd0)) - {0xc4, 0xc8, 0xcc}
_END_OF_HEADER = (0xd9, 0xda)  #: End of image and start of scan
#: TEM and RST0 to RST7: no length follows (T.81, table B.1).
_LONE_MARKERS = frozenset((0x01, *range(0xd0, 0xd8)))
_START_OF_SCAN = b'\xff\xda'

#: Of a JPEG as large as the limit, and proportionally more of a smaller one. Every scan of a
#: progressive JPEG is a pass over all its pixels, and takes a few bytes only if it says nothing;
#: libjpeg's encoder makes 10.
_MOST_SCANS = 16
#: Of a PNG; encoders write 8 KiB or more into each, and each takes time to look at.
_MOST_CHUNKS = 100_000
#: Converts a sound sensor_msgs/Image, given the bytes of a row, to BGR; None where it cannot.
Converter = Callable[[Any, int], 'np.ndarray | None']


@dataclass
class LazyPixels:
    """Load pixels once, however often they are asked for; a failure is not kept."""

    read: Callable[[], Pixels]
    pixels: Pixels | None = None

    def __call__(self) -> Pixels:
        """Return the pixels; raises what `read` raises."""
        if self.pixels is None:
            self.pixels = self.read()
        return self.pixels


def image_frame(message: Any, convert: Converter | None = None,
                max_pixels: int = MAX_IMAGE_PIXELS) -> Frame:
    """
    Make a frame of a sensor_msgs/Image without looking at its data.

    `message` needs the fields of sensor_msgs/Image; `data` may be any buffer of bytes. `convert`
    is asked first for what has to be converted.

    Raises FrameError when size, encoding, step and length of the data contradict each other, the
    encoding is not one of ENCODINGS, or the image has more than `max_pixels` pixels.
    """
    _check_header(message)
    _check_size((message.height, message.width), max_pixels)
    return Frame((message.height, message.width), LazyPixels(lambda: to_pixels(message, convert)))


def compressed_frame(message: Any, max_pixels: int = MAX_IMAGE_PIXELS) -> Frame:
    """
    Make a frame of a sensor_msgs/CompressedImage without looking at its data.

    Its size is unknown until it is loaded, which fails above `max_pixels` pixels. The detector
    gets a JPEG decoded at a reduced scale where that is enough for it. Raises FrameError when
    there is no data.
    """
    if len(message.data) == 0:
        raise FrameError('compressed image has no data')
    return Frame(None, LazyPixels(lambda: decode(message, max_pixels)),
                 partial(decode_reduced, message, max_pixels=max_pixels))


def to_pixels(message: Any, convert: Converter | None = None) -> Pixels:
    """
    Return the pixels of a sensor_msgs/Image whose header is known to be sound.

    8-bit grey and colour images are views of the message's data. mono16 (16-bit range scaled to 8
    bit), Bayer and YUV images are converted to grey or BGR, by `convert` if it can. Raises
    FrameError when the conversion fails.
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

    The first bytes decide which; the field `format` is only quoted in error messages, because
    drivers disagree on it. The result is BGR, 8 bit, in the orientation in which it is stored,
    so that boxes fit what image_transport makes of the same message. Raises FrameError for what
    is damaged, or has more than `max_pixels` pixels by its header; it is not decoded then.
    """
    kind = _check_compressed(message)
    _told_size(message, kind, max_pixels)
    return _decode(message, kind, cv2.IMREAD_COLOR)


def decode_reduced(message: Any, least: tuple[int, int], max_pixels: int = MAX_IMAGE_PIXELS
                   ) -> tuple[Pixels, tuple[int, int]]:
    """
    Decode no more of a compressed image than a use needs.

    A JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that still has `least`
    (height, width) pixels: libjpeg then computes fewer pixels and averages. Other images come in
    full. Returns the pixels, as `decode` does, and the (height, width) of the whole picture.
    Raises FrameError as `decode` does.
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
    Return (height, width) that the header of a JPEG tells, or None if it tells none.

    `data` is any buffer of bytes. The header is walked marker by marker to the first frame
    header (ITU-T T.81, section B.1).
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
            # The decoder reads on behind what contradicts itself, where another size may stand.
            if marker == 0x00 or length < 2:
                return None
            position += 2 + length
    return None


def png_size(data: Any) -> tuple[int, int] | None:
    """
    Return (height, width) that the first chunk of a PNG tells, or None if it tells none.

    `data` is any buffer of bytes (W3C PNG, section 11.2.1).
    """
    view = memoryview(data)
    if len(view) < 24 or bytes(view[12:16]) != b'IHDR':
        return None
    width, height = struct.unpack_from('>II', view, 16)
    return (height, width) if height and width else None


def _check_chunks(data: Any) -> None:
    """
    Refuse a PNG with a chunk that reaches beyond its end: the decoder takes memory for it first.

    `data` is any buffer of bytes. A chunk is its length, its name, its data and a checksum (W3C
    PNG, section 5.3).
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
    """Return the (height, width) in the header of a compressed picture, if it may be decoded."""
    size = (jpeg_size if kind == 'JPEG' else png_size)(message.data)
    if size is None:
        raise FrameError(f'{kind} image cannot be decoded: its header tells no size')
    _check_size(size, max_pixels)
    if kind == 'PNG':
        _check_chunks(message.data)
    else:
        scans = bytes(message.data).count(_START_OF_SCAN)
        if scans * size[0] * size[1] > _MOST_SCANS * max_pixels:
            raise FrameError(f'JPEG image of {size[1]}x{size[0]} pixels has {scans} scans; so '
                             'many passes over it are refused')
    return size


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise FrameError(f'image of {size[1]}x{size[0]} pixels is larger than max_image_pixels, '
                         f'{max_pixels}')


def _check_compressed(message: Any) -> str:
    """Return JPEG or PNG; raise FrameError for anything else, and for what has no end."""
    data = np.frombuffer(message.data, np.uint8)
    start = bytes(data[:len(_PNG_START)])
    if start.startswith(_JPEG_START):
        kind, mark = 'JPEG', _JPEG_END
    elif start == _PNG_START:
        kind, mark = 'PNG', _PNG_END
    else:
        raise FrameError(f'compressed image is neither JPEG nor PNG (it begins with '
                         f'{start[:4].hex(" ")}, format says {cut(message.format)!r})')
    # Without this check the decoder fills what is missing with grey and says nothing.
    if mark not in bytes(data[-_TAIL:]) and not _ends(bytes(data), mark):
        raise FrameError(f'{kind} image is truncated: no end mark after {len(data)} bytes')
    return kind


def _ends(data: bytes, mark: bytes) -> bool:
    """Look for the end mark from the end, over padding of any length."""
    place = data.rfind(mark)
    # A thumbnail in a JPEG's header has an end of its own; the picture's lies behind its scan.
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
    # Contiguous, because OpenCV refuses rows that begin at odd addresses.
    return cv2.convertScaleAbs(np.ascontiguousarray(deep, np.uint16), alpha=_MONO16_SCALE)
