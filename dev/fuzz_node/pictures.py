# SPDX-License-Identifier: Apache-2.0
"""Images for running detectors: sequences of valid pictures, and hostile messages."""
from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
import struct
from typing import Any
import zlib

import cv2
import numpy as np
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

SIZE = (240, 320)  #: Height and width of valid pictures

MOST_PIXELS = 4_000_000  #: Parameter `max_image_pixels` of the nodes under trial

_P_PICTURE = 0.015  #: Probability of a message that may be a valid picture

_LONG, _P_LONG = 'x' * 100_000, 0.01  #: A very long text, and its probability

_FIRST_NS = 1_000_000_000_000
_STEP_NS = 100_000_000

_VALID_ENCODINGS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1, 'mono16': 2,
                    'bayer_rggb8': 1, 'yuv422': 2, 'yuv422_yuy2': 2, '8UC3': 3}


def drawn_sequence(seed: int, length: int) -> list[np.ndarray]:
    """Draw some shapes that move over a texture: BGR, ``(240, 320, 3)`` uint8."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    ground = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (width, height),
                        interpolation=cv2.INTER_CUBIC)
    shapes = [(rng.integers(0, (width, height)), rng.integers(-8, 9, 2),
               int(rng.integers(15, 60)), tuple(map(int, rng.integers(0, 256, 3))))
              for _ in range(4)]
    pictures = []
    for index in range(length):
        picture = ground.copy()
        for number, (place, speed, size, colour) in enumerate(shapes):
            x, y = map(int, place + index * speed)
            if number % 2:
                cv2.circle(picture, (x, y), size, colour, -1)
            else:
                cv2.rectangle(picture, (x - size, y - size // 2), (x + size, y + size // 2),
                              colour, -1)
        pictures.append(picture)
    return pictures


def message_of(picture: np.ndarray, transport: str, name: str, index: int = 0) -> Any:
    """Return a valid message of a picture called `name`, the `index`-th of its sequence."""
    if transport == 'compressed':
        # JPEG and PNG in turns.
        suffix = ('.jpg', '.png')[index % 2]
        message = CompressedImage(format=suffix[1:])
        message.data = array('B', cv2.imencode(suffix, picture)[1].tobytes())
    else:
        height, width = picture.shape[:2]
        message = Image(height=height, width=width, encoding='bgr8', step=3 * width)
        message.data = array('B', picture.tobytes())
    message.header.frame_id = name
    stamp = _FIRST_NS + index * _STEP_NS
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
    return message


@dataclass
class Hostile:
    """A message that the node may refuse, and that must not harm it."""

    kind: str
    message: Any  #: A message, or bytes in its place
    surely_refused: bool  #: Whether every detector must refuse it


class HostileMessages:
    """Makes inconsistent messages, from a seed."""

    def __init__(self, transport: str, rng: Random) -> None:
        """Make messages for a transport."""
        self._transport = transport
        self._rng = rng
        small = drawn_sequence(7, 1)[0][::4, ::4].copy()
        self._encoded = {suffix: cv2.imencode(suffix, small)[1].tobytes()
                         for suffix in ('.jpg', '.png')}
        self._small = small
        self._pngs = {side: _white_png(side) for side in (500, 1990, 2001, 30_000)}
        # Valid pictures are rare, because the network takes time for them.
        often: list[Callable[[], Hostile]] = [self._garbage]
        seldom: list[Callable[[], Hostile]]
        if transport == 'compressed':
            often += [self._no_picture, self._cut, self._told_size]
            seldom = [self._flipped, self._padded, self._scans, self._large_png]
        else:
            often += [self._wrong_length, self._wrong_step, self._wrong_encoding,
                      self._wrong_size, self._odd]
            seldom = [self._other_encoding]
        self._often, self._seldom = often, seldom

    def anything(self) -> Hostile:
        """Return the next message."""
        makers = self._seldom if self._rng.random() < _P_PICTURE else self._often
        return self._finish(self._rng.choice(makers)())

    def refused(self) -> Hostile:
        """Return the next message that is surely refused."""
        while True:
            made = self.anything()
            if made.surely_refused:
                return made

    def _finish(self, made: Hostile) -> Hostile:
        if not isinstance(made.message, bytes):
            rng, header = self._rng, made.message.header
            header.frame_id = rng.choice(('hostile', '', 'zwölf\nboxes\x07', '$x^$', '/../' * 9))
            header.stamp.sec = rng.choice((0, -2**31, 2**31 - 1, rng.randrange(2**31)))
            header.stamp.nanosec = rng.choice((0, 999_999_999, 2**32 - 1))
        return made

    def _text(self) -> str:
        if self._rng.random() < _P_LONG:
            return _LONG
        return self._rng.choice(('', 'bgr8 ', 'BGR8', '$x^$', '\n\n', 'ö' * 300,
                                 '16UC1', '32FC1', '%s%n{0}', 'bgr8; jpeg'))

    def _number(self) -> int:
        return self._rng.choice((0, 1, 2, 3, 7, 255, 2**16, 2**31, 2**32 - 1,
                                 self._rng.randrange(2**32)))

    def _garbage(self) -> Hostile:
        """Return bytes that are no message, or a message that is cut off."""
        rng = self._rng
        if rng.random() < 0.5:
            return Hostile('garbage', rng.randbytes(rng.randrange(4, 200)), True)
        sound = serialize_message(message_of(self._small, self._transport, 'cut'))
        return Hostile('garbage', sound[:rng.randrange(4, len(sound) - 64)], True)

    # Raw images.

    def _image(self) -> Image:
        return message_of(self._small, 'raw', 'hostile')

    def _wrong_length(self) -> Hostile:
        message = self._image()
        message.data = array('B', self._rng.randbytes(self._rng.choice((
            0, 1, len(message.data) - 1, len(message.data) + 1, self._rng.randrange(4000)))))
        return Hostile('wrong length', message, True)

    def _wrong_step(self) -> Hostile:
        message = self._image()
        right, message.step = message.step, self._number()
        return Hostile('wrong step', message, message.step != right)

    def _wrong_encoding(self) -> Hostile:
        message = self._image()
        message.encoding = self._text()
        return Hostile('wrong encoding', message, True)

    def _wrong_size(self) -> Hostile:
        message = self._image()
        right = message.height
        message.height = self._number()
        if self._rng.random() < 0.5:
            message.width = self._number()
        return Hostile('wrong size', message, message.height != right)

    def _other_encoding(self) -> Hostile:
        """Return any encoding with data of its length: a valid picture of noise."""
        rng = self._rng
        encoding, size = rng.choice(list(_VALID_ENCODINGS.items()))
        height, width = rng.randrange(1, 90), 2 * rng.randrange(1, 60)
        padding = rng.choice((0, 0, 1, 13))
        message = Image(height=height, width=width, encoding=encoding,
                        step=size * width + padding, is_bigendian=rng.randrange(2))
        message.data = array('B', rng.randbytes(height * message.step))
        return Hostile('other encoding', message, False)

    def _odd(self) -> Hostile:
        """Return an image whose rows end with half a pair of pixels."""
        width = 2 * self._rng.randrange(1, 60) + 1
        message = Image(height=3, width=width, encoding=self._rng.choice(('nv12', 'yuv422')),
                        step=2 * width)
        message.data = array('B', bytes(6 * width))
        return Hostile('odd width', message, True)

    # Compressed images.

    def _compressed(self, data: bytes) -> CompressedImage:
        message = CompressedImage(format=self._text())
        message.data = array('B', data)
        return message

    def _sound(self) -> bytes:
        return self._encoded[self._rng.choice(('.jpg', '.png'))]

    def _no_picture(self) -> Hostile:
        rng = self._rng
        start = rng.choice((b'', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'GIF89a', b'BM'))
        data = b'' if rng.random() < 0.2 else start + rng.randbytes(rng.randrange(60))
        return Hostile('no picture', self._compressed(data), True)

    def _cut(self) -> Hostile:
        data = self._sound()
        return Hostile('cut', self._compressed(data[:self._rng.randrange(len(data) - 2)]), True)

    def _flipped(self) -> Hostile:
        data = bytearray(self._sound())
        for _ in range(self._rng.randrange(1, 9)):
            data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
        return Hostile('flipped bits', self._compressed(bytes(data)), False)

    def _told_size(self) -> Hostile:
        """Return a picture whose header has more pixels than allowed."""
        side = self._rng.randrange(2001, 65_536)
        data = bytearray(self._encoded['.jpg'])
        place = data.find(b'\xff\xc0')
        struct.pack_into('>HH', data, place + 5, side, side)
        return Hostile('told size', self._compressed(bytes(data)), True)

    def _padded(self) -> Hostile:
        padding = bytes(self._rng.randrange(5000))
        return Hostile('padded', self._compressed(self._sound() + padding), False)

    def _scans(self) -> Hostile:
        """Return a picture of many scans, each a pass over all pixels."""
        data = self._encoded['.jpg']
        place = data.find(b'\xff\xda')
        scan = data[place:-2]
        return Hostile('many scans', self._compressed(
            data[:place] + scan * self._rng.randrange(2, 40) + data[-2:]), False)

    def _large_png(self) -> Hostile:
        """Return a few bytes with many pixels, more or fewer than the limit."""
        side, data = self._rng.choice(list(self._pngs.items()))
        return Hostile('large PNG', self._compressed(data), side * side > MOST_PIXELS)


def _white_png(side: int) -> bytes:
    """Return a PNG of `side` x `side` pixels of 1 bit; a large one lacks its rows."""
    rows = zlib.compress(bytes((1 + -(-side // 8)) * min(side, 2001)), 9)
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
        for kind, body in ((b'IHDR', struct.pack('>IIBBBBB', side, side, 1, 0, 0, 0, 0)),
                           (b'IDAT', rows), (b'IEND', b'')))
