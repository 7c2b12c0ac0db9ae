# SPDX-License-Identifier: Apache-2.0
"""Decode and encode files of pictures."""
from pathlib import Path

import cv2
from forecast_detector_ros.images.frame import decode_file, encode_jpeg, FrameError
import numpy as np
import pytest


def test_a_picture_is_decoded_to_bgr(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    np.testing.assert_array_equal(decode_file(tmp_path / 'a.png'), picture)


@pytest.mark.parametrize('data', [b'', b'no picture', b'\x89PNG\r\n\x1a\n'])
def test_other_data_gives_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / 'a.png').write_bytes(data)
    assert decode_file(tmp_path / 'a.png') is None


def test_a_file_that_is_missing_raises(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        decode_file(tmp_path / 'a.png')


def test_a_picture_is_encoded_as_jpeg() -> None:
    picture = np.full((5, 7, 3), 100, np.uint8)
    decoded = cv2.imdecode(encode_jpeg(picture), cv2.IMREAD_COLOR)
    np.testing.assert_allclose(decoded, picture, atol=2)


def test_a_picture_that_is_too_wide_for_a_jpeg_is_named() -> None:
    # OpenCV 4.6 raises an exception; later versions return False.
    with pytest.raises(FrameError, match='^70000x1 pixels do not fit into a JPEG$'):
        encode_jpeg(np.zeros((1, 70000, 3), np.uint8))
