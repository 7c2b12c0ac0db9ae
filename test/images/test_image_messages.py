# SPDX-License-Identifier: Apache-2.0
"""Check images of every encoding, refused images, and that data are read only when needed."""
from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any
import zlib

import cv2
from forecast_detector_ros.images.frame import FrameError
from forecast_detector_ros.images.image_messages import (
    compressed_frame,
    ENCODINGS,
    image_frame,
    jpeg_size,
    to_pixels,
)
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

HEIGHT, WIDTH = 6, 8


class Poison:
    """Image data that fails at every access except to its length."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: object) -> int:
        raise AssertionError('somebody looked')

    __iter__ = __getitem__  # type: ignore[assignment]

    @property
    def __array_interface__(self) -> dict[str, Any]:
        raise AssertionError('somebody looked')


def message(encoding: str, rows: np.ndarray, height: int = HEIGHT, width: int = WIDTH,
            padding: int = 0, big: bool = False) -> SimpleNamespace:
    """Return a message with these rows of bytes, each followed by padding."""
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAA)
    return SimpleNamespace(encoding=encoding, height=height, width=width, is_bigendian=int(big),
                           step=padded.shape[1], data=array('B', padded.tobytes()))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(('encoding', 'channels', 'order'), [
    ('rgb8', 3, 'rgb'), ('bgr8', 3, 'bgr'), ('rgba8', 4, 'rgba'), ('bgra8', 4, 'bgra'),
    ('mono8', 1, 'mono'), ('8UC1', 1, 'mono'), ('8UC3', 3, 'bgr'), ('8UC4', 4, 'bgra')])
def test_8_bit_images_are_not_copied(encoding: str, channels: int, order: str,
                                     padding: int) -> None:
    picture = noise(HEIGHT, WIDTH, channels)
    sent = message(encoding, picture.reshape(HEIGHT, -1), padding=padding)
    frame = image_frame(sent)
    pixels = frame.load()
    assert frame.size == pixels.size == (HEIGHT, WIDTH)
    assert pixels.order == order
    np.testing.assert_array_equal(pixels.array.reshape(HEIGHT, WIDTH, channels), picture)
    assert np.shares_memory(pixels.array, np.frombuffer(sent.data, np.uint8))


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('big', [False, True])
def test_mono16_is_scaled_from_its_whole_range(big: bool, padding: int) -> None:
    deep = np.zeros((HEIGHT, WIDTH), np.uint16)
    deep[0, :4] = (65535, 0, 257 * 100, 0x1234)
    rows = deep.astype('>u2' if big else '<u2').view(np.uint8).reshape(HEIGHT, -1)
    pixels = to_pixels(message('mono16', rows, padding=padding, big=big))
    assert pixels.order == 'mono'
    assert pixels.array[0, :4].tolist() == [255, 0, 100, round(0x1234 / 257)]


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize(('encoding', 'red_at', 'blue_at'), [
    ('bayer_rggb8', (0, 0), (1, 1)), ('bayer_bggr8', (1, 1), (0, 0)),
    ('bayer_gbrg8', (1, 0), (0, 1)), ('bayer_grbg8', (0, 1), (1, 0))])
def test_bayer_patterns_are_told_apart(encoding: str, red_at: tuple[int, int],
                                       blue_at: tuple[int, int], padding: int) -> None:
    mosaic = np.full((HEIGHT, WIDTH), 20, np.uint8)
    mosaic[red_at[0]::2, red_at[1]::2] = 200
    mosaic[blue_at[0]::2, blue_at[1]::2] = 90
    pixels = image_frame(message(encoding, mosaic, padding=padding)).load()
    assert pixels.order == 'bgr'
    assert pixels.array[2:-2, 2:-2].reshape(-1, 3).tolist() == [[90, 20, 200]] * (
        (HEIGHT - 4) * (WIDTH - 4))


def yuv_planes() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the Y, U and V planes of a picture of one colour, and the colour in BGR."""
    bgr = np.full((HEIGHT, WIDTH, 3), (40, 80, 200), np.uint8)
    planar = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    luma = planar[:HEIGHT]
    chroma = planar[HEIGHT:].reshape(2, -1)
    return luma, chroma[0, :1], chroma[1, :1], bgr


@pytest.mark.parametrize('padding', [0, 4])
@pytest.mark.parametrize('encoding', [
    'yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv', 'nv12', 'nv21'])
def test_yuv_is_converted_to_the_original_colour(encoding: str, padding: int) -> None:
    luma, u, v, bgr = yuv_planes()
    if encoding in ('nv12', 'nv21'):
        first, second = (u, v) if encoding == 'nv12' else (v, u)
        chroma = np.empty((HEIGHT // 2, WIDTH), np.uint8)
        chroma[:, 0::2], chroma[:, 1::2] = first, second
        rows = np.vstack((luma, chroma))
    else:
        rows = np.empty((HEIGHT, 2 * WIDTH), np.uint8)
        at = 1 if encoding in ('yuv422', 'uyvy') else 0
        rows[:, at::2] = luma
        rows[:, 1 - at::4], rows[:, 3 - at::4] = u, v
    pixels = image_frame(message(encoding, rows, padding=padding)).load()
    assert pixels.order == 'bgr'
    assert np.abs(pixels.array.astype(int) - bgr).max() <= 3


@pytest.mark.parametrize(('changes', 'words'), [
    ({'height': 0}, ['8x0']),
    ({'width': 0}, ['0x6']),
    ({'encoding': '32FC1'}, ["'32FC1'", 'bgr8', 'nv21']),
    ({'encoding': ''}, ["''"]),
    ({'step': 23}, ['23', '24', 'step']),
    ({'data': Poison(143)}, ['143', '144']),
    ({'data': Poison(145)}, ['145', '144']),
    ({'encoding': 'uyvy', 'width': 7}, ['7', 'even']),
    ({'encoding': 'nv12', 'height': 5}, ['5', 'even']),
    ({'encoding': 'mono16', 'step': 15, 'data': Poison(90)}, ['15', '16'])])
def test_contradictions_are_refused_unread(changes: dict[str, Any], words: list[str]) -> None:
    sent = SimpleNamespace(encoding='bgr8', height=HEIGHT, width=WIDTH, step=3 * WIDTH,
                           is_bigendian=0, data=Poison(3 * WIDTH * HEIGHT))
    image_frame(sent)
    for key, value in changes.items():
        setattr(sent, key, value)
    with pytest.raises(FrameError) as refusal:
        image_frame(sent)
    text = str(refusal.value)
    assert '\n' not in text
    assert all(word in text for word in words), text


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_frame_is_made_without_reading_the_data(encoding: str) -> None:
    step = 4 * WIDTH
    rows = HEIGHT * 3 // 2 if encoding in ('nv12', 'nv21') else HEIGHT
    sent = SimpleNamespace(encoding=encoding, height=HEIGHT, width=WIDTH, step=step,
                           is_bigendian=0, data=Poison(rows * step))
    frame = image_frame(sent)
    assert frame.size == (HEIGHT, WIDTH)
    with pytest.raises((AssertionError, TypeError)):
        frame.load()


def encoded(extension: str, picture: np.ndarray) -> bytes:
    done, data = cv2.imencode(extension, picture)
    assert done
    return data.tobytes()


def test_compressed_frame_is_made_without_reading_the_data() -> None:
    assert compressed_frame(SimpleNamespace(data=Poison(9), format='jpeg')).size is None


@pytest.mark.parametrize('extension', ['.png', '.jpg'])
@pytest.mark.parametrize('padding', [0, 100, 1024, 100_000])
def test_format_is_recognised_by_the_signature(extension: str, padding: int) -> None:
    picture = cv2.resize(noise(3, 4, 3), (WIDTH * 4, HEIGHT * 4))
    data = encoded(extension, picture) + bytes(padding)
    pixels = compressed_frame(SimpleNamespace(data=array('B', data), format='h264')).load()
    assert pixels.order == 'bgr'
    assert np.abs(pixels.array.astype(int) - picture).mean() < (1 if extension == '.png' else 12)


@pytest.mark.parametrize('cut', [300, 3000])
def test_end_mark_of_a_thumbnail_does_not_end_the_picture(cut: int) -> None:
    thumbnail = encoded('.jpg', noise(8, 8, 3))
    # An application segment comes first (T.81, section B.2.4.6).
    segment = b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail
    whole = encoded('.jpg', noise(80, 80, 3))
    data = whole[:2] + segment + whole[2:]
    assert compressed_frame(SimpleNamespace(data=array('B', data), format='jpeg')).load()
    with pytest.raises(FrameError, match='truncated: no end mark'):
        compressed_frame(SimpleNamespace(
            data=array('B', data[:-cut] + bytes(2000)), format='jpeg')).load()


def test_bytes_after_the_end_mark_are_ignored() -> None:
    picture = cv2.resize(noise(3, 4, 3), (WIDTH * 4, HEIGHT * 4))
    data = encoded('.jpg', picture)
    # The rest of an earlier, longer picture in the camera's buffer, without its end mark.
    rest = encoded('.jpg', noise(80, 80, 3))[-4000:-2]
    pixels = compressed_frame(SimpleNamespace(data=array('B', data + rest), format='jpeg')).load()
    assert np.abs(pixels.array.astype(int) - picture).mean() < 12


def test_grey_and_deep_png_become_bgr_of_8_bit() -> None:
    deep = np.full((HEIGHT, WIDTH), 0x8000, np.uint16)
    pixels = compressed_frame(SimpleNamespace(data=encoded('.png', deep), format='')).load()
    assert pixels.array.shape == (HEIGHT, WIDTH, 3)
    assert pixels.array.max() == 0x80


@pytest.mark.parametrize(('data', 'words'), [
    (b'', ['no data']),
    (b'GIF89a' + bytes(20), ['neither JPEG nor PNG', '47 49 46 38', "'jpeg'"]),
    (b'\xff', ['neither']),
    (encoded('.jpg', noise(40, 40, 3))[:-300], ['JPEG', 'truncated']),
    (encoded('.png', noise(40, 40, 3))[:-300], ['PNG', 'truncated']),
    (b'\xff\xd8\xff' + bytes(50) + b'\xff\xd9', ['JPEG', 'cannot be decoded'])])
def test_broken_compressed_image_is_refused(data: bytes, words: list[str]) -> None:
    with pytest.raises(FrameError) as refusal:
        compressed_frame(SimpleNamespace(data=array('B', data), format='jpeg')).load()
    text = str(refusal.value)
    assert '\n' not in text
    assert all(word in text for word in words), text


@settings(max_examples=40)
@given(height=st.integers(96, 400), width=st.integers(96, 400), wanted=st.tuples(
    st.integers(8, 200), st.integers(8, 200)), quality=st.integers(30, 95))
def test_jpeg_is_decoded_no_larger_than_needed(
        height: int, width: int, wanted: tuple[int, int], quality: int) -> None:
    picture = cv2.resize(noise(4, 4, 3), (width, height))
    done, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    sent = SimpleNamespace(data=array('B', data.tobytes()), format='jpeg')
    frame = compressed_frame(sent)
    pixels, size = frame.load_for(wanted)
    assert size == (height, width) == jpeg_size(sent.data) == frame.load().size
    scale = -(-height // pixels.size[0])
    assert pixels.size == (-(-height // scale), -(-width // scale)) and scale in (1, 2, 4, 8)
    fits = [all(-(-side // s) >= least for side, least in zip(size, wanted)) for s in (8, 4, 2)]
    assert scale == next((s for s, fit in zip((8, 4, 2), fits) if fit), 1)
    # Except for JPEG's loss, pixels are averages over blocks of `scale` pixels.
    rows, columns = pixels.size
    whole = np.pad(frame.load().array, ((0, rows * scale - height), (0, columns * scale - width),
                                        (0, 0)), 'edge')
    blocks = whole.reshape(rows, scale, columns, scale, 3).mean((1, 3))
    assert np.abs(pixels.array - blocks).mean() < 2


def test_png_is_decoded_in_full_size() -> None:
    frame = compressed_frame(SimpleNamespace(data=encoded('.png', noise(64, 64, 3)), format=''))
    pixels, size = frame.load_for((8, 8))
    assert pixels.size == size == (64, 64)


@given(st.binary(max_size=60))
def test_any_bytes_have_a_size_or_none(tail: bytes) -> None:
    size = jpeg_size(b'\xff\xd8' + tail)
    assert size is None or min(size) > 0


@pytest.mark.parametrize('flags', [
    [], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
    # OpenCV 4.6 does not have this option.
    *([[cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]]
      if hasattr(cv2, 'IMWRITE_JPEG_SAMPLING_FACTOR') else [])])
def test_size_of_every_kind_of_jpeg(flags: list[int]) -> None:
    _, data = cv2.imencode('.jpg', noise(50, 70, 3), flags)
    assert jpeg_size(data.tobytes()) == (50, 70)
    # A long comment with false frame headers, and fill bytes, come before the frame header.
    comment = b'\xff\xfe' + (2 + 500).to_bytes(2, 'big') + b'\xff\xc0' * 250 + b'\xff\xff'
    assert jpeg_size(b'\xff\xd8' + comment + data.tobytes()[2:]) == (50, 70)


@pytest.mark.parametrize('data', [
    encoded('.jpg', noise(80, 80, 3))[:-300], b'\xff\xd8\xff' + bytes(50) + b'\xff\xd9'])
def test_broken_jpeg_is_also_refused_when_reduced(data: bytes) -> None:
    with pytest.raises(FrameError):
        compressed_frame(SimpleNamespace(data=array('B', data), format='jpeg')).load_for((8, 8))


def png_that_says(width: int, height: int) -> bytes:
    """Return a PNG of one bit per pixel that announces this size but lacks the pixels."""
    def chunk(name: bytes, body: bytes) -> bytes:
        return (len(body).to_bytes(4, 'big') + name + body
                + zlib.crc32(name + body).to_bytes(4, 'big'))

    header = width.to_bytes(4, 'big') + height.to_bytes(4, 'big') + b'\x01\x00\x00\x00\x00'
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
            + chunk(b'IDAT', zlib.compress(bytes(100))) + chunk(b'IEND', b''))


def jpeg_that_says(width: int, height: int) -> bytes:
    data = bytearray(encoded('.jpg', noise(16, 16, 3)))
    at = data.index(b'\xff\xc0') + 5
    data[at:at + 4] = height.to_bytes(2, 'big') + width.to_bytes(2, 'big')
    return bytes(data)


@pytest.mark.parametrize('data', [png_that_says(30_000, 30_000), jpeg_that_says(65_500, 65_500)])
@pytest.mark.parametrize('least', [None, (64, 64)])
def test_huge_compressed_image_is_refused_before_it_is_decoded(
        monkeypatch: pytest.MonkeyPatch, data: bytes, least: tuple[int, int] | None) -> None:
    monkeypatch.setattr(cv2, 'imdecode', None)
    frame = compressed_frame(SimpleNamespace(data=array('B', data), format=''))
    with pytest.raises(FrameError, match=r'larger than max_image_pixels, 64000000'):
        frame.load_for(least) if least else frame.load()


@pytest.mark.parametrize(('place', 'reason'), [
    (8, 'damaged: a chunk of 2147483661 bytes at byte 8'),
    (33, 'damaged: a chunk of 21474')])
@pytest.mark.parametrize('least', [None, (64, 64)])
def test_png_chunk_beyond_the_end_takes_no_memory(
        monkeypatch: pytest.MonkeyPatch, place: int, reason: str, least: tuple[int, int] | None
        ) -> None:
    # OpenCV would allocate the announced size of the chunk, 2 GB here, before reading it.
    monkeypatch.setattr(cv2, 'imdecode', None)
    data = bytearray(encoded('.png', noise(40, 40, 3)))
    data[place] |= 0x80
    frame = compressed_frame(SimpleNamespace(data=array('B', data), format=''))
    with pytest.raises(FrameError, match=reason):
        frame.load_for(least) if least else frame.load()


def test_png_of_too_many_chunks_is_refused() -> None:
    sound = encoded('.png', noise(4, 4, 3))
    empty = bytes(4) + b'tEXt' + zlib.crc32(b'tEXt').to_bytes(4, 'big')
    for count, fits in ((1000, True), (200_000, False)):
        data = sound[:33] + count * empty + sound[33:]
        frame = compressed_frame(SimpleNamespace(data=array('B', data), format=''))
        if fits:
            assert frame.load().size == (4, 4)
        else:
            with pytest.raises(FrameError, match='more than 100000 chunks'):
                frame.load()


@pytest.mark.parametrize('extension', ['.png', '.jpg'])
def test_limit_of_compressed_pixels_is_exact(extension: str) -> None:
    sent = SimpleNamespace(data=encoded(extension, noise(10, 20, 3)), format='')
    assert compressed_frame(sent, max_pixels=200).load().size == (10, 20)
    with pytest.raises(FrameError, match='20x10 pixels'):
        compressed_frame(sent, max_pixels=199).load()


def test_huge_raw_image_is_refused_without_reading_data() -> None:
    sent = SimpleNamespace(encoding='mono8', height=10, width=20, step=20, is_bigendian=0,
                           data=Poison(200))
    image_frame(sent, max_pixels=200)
    with pytest.raises(FrameError, match='20x10 pixels is larger than max_image_pixels, 199'):
        image_frame(sent, max_pixels=199)


@pytest.mark.parametrize('lie', [b'\xff\xd0', b'\xff\x01', b'\xff\x00', b'\xff\xe0\x00\x00',
                                 b'\xff\xff\xd0', b'junk'])
def test_jpeg_cannot_hide_its_size_behind_a_false_header(lie: bytes) -> None:
    # A wrong parser takes the inserted bytes as a segment that hides the decoder's header.
    small = b'\xff\xc0\x00\x11\x08\x00\x08\x00\x08'
    huge = jpeg_that_says(65_500, 65_500)
    data = huge[:2] + lie + small[2:4] + huge[2:] + small + bytes(20) + huge[-2:]
    assert jpeg_size(data) in (None, (65_500, 65_500))


@pytest.mark.parametrize('extension', ['.png', '.jpg'])
@pytest.mark.parametrize('reduced', [False, True])
def test_compressed_image_without_its_second_half_is_refused(extension: str, reduced: bool
                                                             ) -> None:
    picture = cv2.resize(noise(30, 40, 3), (320, 240))
    data = encoded(extension, picture)
    end = data[-2:] if extension == '.jpg' else data[-12:]
    frame = compressed_frame(SimpleNamespace(data=data[:len(data) // 2] + end, format=''))
    with pytest.raises(FrameError, match='damaged|cannot be decoded'):
        frame.load_for((64, 64)) if reduced else frame.load()


def test_jpeg_with_too_many_scans_is_refused() -> None:
    _, data = cv2.imencode('.jpg', noise(40, 40, 3), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    whole = data.tobytes()
    scans = whole.count(b'\xff\xda')
    assert scans > 1
    assert compressed_frame(SimpleNamespace(data=whole, format=''), 40 * 40).load()
    # Empty scans, which refine no bit, of 11 bytes each.
    busy = whole[:-2] + b'\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10\x00' * 1000 + whole[-2:]
    with pytest.raises(FrameError, match=f'{1000 + scans} scans'):
        compressed_frame(SimpleNamespace(data=busy, format=''), 40 * 40).load()


@pytest.mark.parametrize('text', ['x' * 100_000, '\n' * 100_000, '\0' * 100_000, 'ö' * 100_000])
def test_long_text_is_quoted_in_short(text: str) -> None:
    with pytest.raises(FrameError, match='unknown encoding') as of_raw:
        image_frame(message(text, noise(HEIGHT, 3 * WIDTH)))
    with pytest.raises(FrameError, match='neither JPEG nor PNG') as of_compressed:
        compressed_frame(SimpleNamespace(format=text, data=b'GIF89a')).load()
    for told in (str(of_raw.value), str(of_compressed.value)):
        assert len(told) < 500 and told.isprintable()
