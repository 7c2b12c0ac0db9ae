# SPDX-License-Identifier: Apache-2.0
"""Pictures of noted frames come out of files, videos and bags; what is gone is said."""

import cv2
from forecast_detector_ros.recording.video_writer import VideoWriter
from forecast_detector_ros.report.noted_frames import noted_pictures
import numpy as np

from ..helpers.bags import jpeg_message, raw_message, write_bag
from ..helpers.runs import noted

BARE = {'right': (), 'missed': (), 'wrong': (), 'kind': None}


def grey(picture):
    """Return the mean of a JPEG, of which nothing is drawn over."""
    return cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR).mean()


def test_picture_video_and_bag(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((40, 60, 3), 200, np.uint8))
    writer = VideoWriter(tmp_path / 'b.mp4', 10.0)
    for number in range(6):
        writer.write(np.full((48, 64, 3), 30 * number, np.uint8))
    writer.close()
    write_bag(tmp_path / 'c', {'/left': [raw_message(n, grey=20 * n) for n in range(4)],
                               '/right/compressed': [jpeg_message(n, grey=50 * n)
                                                     for n in range(4)]})
    found = noted_pictures([
        noted('c', position=3, topic='/left', **BARE), noted('a.png', **BARE),
        noted('b.mp4', position=4, **BARE), noted('b.mp4', position=2, **BARE),
        noted('c', position=2, topic='/right/compressed', **BARE)], tmp_path)
    assert [item.missing for item in found] == [None] * 5
    np.testing.assert_allclose([grey(item) for item in found], [60, 200, 120, 60, 100], atol=4)


def test_boxes_and_border_are_drawn(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((60, 80, 3), 128, np.uint8))
    (drawn,) = noted_pictures([noted('a.png')], tmp_path)
    picture = cv2.imdecode(np.frombuffer(drawn.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (120, 160, 3)
    assert picture[0, 80, 2] > 150 > picture[0, 80, 1]  # The red border.
    assert picture[46, 8, 1] > picture[46, 8, 2]  # The green box.


def test_what_is_gone_costs_its_own_pictures_only(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((40, 60, 3), 200, np.uint8))
    (tmp_path / 'broken.mp4').write_bytes(b'nothing')
    writer = VideoWriter(tmp_path / 'short.mp4', 10.0)
    writer.write(np.full((48, 64, 3), 30, np.uint8))
    writer.close()
    found = noted_pictures([
        noted('none.png'), noted('none.mp4', position=1), noted('broken.mp4', position=1),
        noted('short.mp4', position=1), noted('none', position=0, topic='/camera'),
        noted('a.png')], tmp_path)
    assert [item.jpeg is None for item in found] == [True] * 5 + [False]
    assert 'none.png: is missing' in found[0].missing
    assert 'none.mp4: is missing' in found[1].missing
    assert 'no picture can be decoded' in found[2].missing or 'opened' in found[2].missing
    assert found[3].missing == 'the footage ends before it'
    assert 'no such bag' in found[4].missing
