# SPDX-License-Identifier: Apache-2.0
"""Reading pictures: colours, what is kept, and files that are none."""

from dataclasses import replace

import cv2
from forecast_detector_ros.annotations.errors import DataError
from forecast_detector_ros.annotations.frames import FrameReader
from forecast_detector_ros.annotations.video_json import FrameRecord, VideoRecord
import numpy as np
import pytest

NONE = np.zeros((0, 4), np.float32)


@pytest.fixture
def record(tmp_path):
    """Give a frame of 8x6 pixels, all of one colour."""
    path = tmp_path / 'picture.png'
    cv2.imwrite(str(path), np.full((6, 8, 3), (10, 20, 30), np.uint8))
    return FrameRecord(path, 8, 6, NONE, np.zeros(0, np.int64), np.zeros(0, np.float32), NONE)


def test_pictures_are_rgb(record):
    image = FrameReader().read(record)
    assert image.shape == (6, 8, 3) and image.dtype == np.uint8
    assert image[3, 4].tolist() == [30, 20, 10]


def test_pictures_are_rgb_with_an_opencv_that_cannot_decode_to_it(record, monkeypatch):
    monkeypatch.delattr(cv2, 'IMREAD_COLOR_RGB', raising=False)
    assert FrameReader().read(record)[3, 4].tolist() == [30, 20, 10]


def test_preloaded_frames_are_read_once_and_cannot_be_changed(record):
    reader = FrameReader()
    video = VideoRecord('v', (record, record))
    assert reader.preload([video]) == reader.preload([video]) == 8 * 6 * 3
    record.path.unlink()
    image = reader.read(record)
    assert reader.read(record) is image
    with pytest.raises(ValueError, match='read-only'):
        image[0, 0] = 0


def test_unusable_pictures_are_named(record):
    with pytest.raises(DataError, match=r'picture\.png: is 8x6 pixels, .* says 9x6'):
        FrameReader().read(replace(record, width=9))
    record.path.write_bytes(record.path.read_bytes()[:20])
    with pytest.raises(DataError, match=r'picture\.png: not a picture'):
        FrameReader().read(record)
    record.path.write_bytes(b'')
    with pytest.raises(DataError, match=r'picture\.png: not a picture'):
        FrameReader().read(record)
    record.path.unlink()
    with pytest.raises(DataError, match=r'picture\.png: cannot be read: No such file'):
        FrameReader().preload([VideoRecord('v', (record,))])
