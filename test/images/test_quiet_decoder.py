# SPDX-License-Identifier: Apache-2.0
"""Check that messages of the decoder are caught and other messages are not."""
from __future__ import annotations

import os
from typing import Any

import cv2
from forecast_detector_ros.images import quiet_decoder
from forecast_detector_ros.images.quiet_decoder import decode_quietly
import numpy as np
import pytest

#: Values of OpenCV's core/utils/logger.defines.hpp.
LOG_LEVEL_SILENT, LOG_LEVEL_WARNING = 0, 3


def picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def encoded(extension: str, flags: tuple[int, ...] = ()) -> bytes:
    return cv2.imencode(extension, picture(), flags)[1].tobytes()


def decode(data: bytes, flags: int = cv2.IMREAD_COLOR) -> tuple[np.ndarray | None, str]:
    return decode_quietly(np.frombuffer(data, np.uint8), flags)


@pytest.mark.parametrize('progressive', [0, 1])
@pytest.mark.parametrize('flags', [cv2.IMREAD_COLOR, cv2.IMREAD_REDUCED_COLOR_4])
def test_jpeg_that_lost_its_second_half_is_damaged(
        capfd: pytest.CaptureFixture[str], progressive: int, flags: int) -> None:
    data = encoded('.jpg', (cv2.IMWRITE_JPEG_PROGRESSIVE, progressive))
    assert decode(data, flags)[1] == ''
    _, damage = decode(data[:len(data) // 2] + b'\xff\xd9', flags)
    assert damage == 'Corrupt JPEG data: premature end of data segment'
    assert capfd.readouterr().err == ''


def test_png_that_lost_its_second_half_is_not_decoded(capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded('.png')
    found, damage = decode(data[:len(data) // 2] + data[-12:])
    assert found is None
    assert 'libpng error' in damage
    assert capfd.readouterr().err == ''


# Newer versions report a missing IHDR, OpenCV 4.6 a wrong checksum of JHDR.
@pytest.mark.parametrize('level, word', [(LOG_LEVEL_WARNING, 'HDR'), (LOG_LEVEL_SILENT, '')])
def test_png_without_its_header_is_damaged_and_prints_nothing(
        capfd: pytest.CaptureFixture[str], level: int, word: str) -> None:
    # OpenCV is silent in a process that has opened a video.
    set_level = getattr(cv2, 'setLogLevel', None) or cv2.utils.logging.setLogLevel
    before = set_level(level)
    data = bytearray(encoded('.png'))
    data[12:16] = b'JHDR'
    try:
        found, damage = decode(bytes(data))
    finally:
        set_level(before)
    assert found is None
    assert word in damage
    assert capfd.readouterr() == ('', '')


def test_padded_scan_of_a_webcam_is_accepted(capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded('.jpg', (cv2.IMWRITE_JPEG_RST_INTERVAL, 1))
    sound, _ = decode(data)
    found, damage = decode(data[:-2] + bytes(8) + data[-2:])
    np.testing.assert_array_equal(found, sound)
    assert damage == ''
    assert decode(data[:-2] + bytes(5000) + data[-2:])[1].endswith('bytes before marker 0xd9')
    assert capfd.readouterr().err == ''


def test_messages_of_others_are_passed_on(
        capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def imdecode(*_: Any) -> np.ndarray:
        os.write(2, b'the roof is on fire\nCorrupt JPEG data: bad Huffman code\n')
        return picture()

    monkeypatch.setattr(quiet_decoder.cv2, 'imdecode', imdecode)
    assert decode(b'')[1] == 'Corrupt JPEG data: bad Huffman code'
    assert capfd.readouterr().err == 'the roof is on fire\n'


def test_closed_stream_stays_closed() -> None:
    kept = os.dup(2)
    os.close(2)
    try:
        found, _ = decode(encoded('.png'))
        with pytest.raises(OSError):
            os.fstat(2)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    np.testing.assert_array_equal(found, picture())


def test_interrupt_restores_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, dup2 = os.dup(2), os.dup2

    def interrupted(*arguments: Any, **named: Any) -> None:
        dup2(*arguments, **named)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'dup2', interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            decode(encoded('.png'))
        assert os.path.samestat(os.fstat(2), os.fstat(kept))
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def test_no_file_stays_open() -> None:
    data = encoded('.png')
    before = os.listdir('/proc/self/fd')
    for _ in range(20):
        decode(data)
    assert len(os.listdir('/proc/self/fd')) == len(before)
