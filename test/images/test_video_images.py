# SPDX-License-Identifier: Apache-2.0
"""Read a video like the images of a bag: pictures, stamps, topic and losses."""

from contextlib import closing
import re

import cv2
from forecast_detector_ros.images.bag_images import ImageBag
from forecast_detector_ros.images.frame import FrameError, SourceError
from forecast_detector_ros.images.video_images import open_images, VIDEO_TOPIC
from forecast_detector_ros.images.video_source import VideoFile
import numpy as np
import pytest

from ..helpers.bags import raw_message, write_bag


COUNT = 12


def write_clip(path, codec):
    """Write a video of noise at 25 Hz."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25.0, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(COUNT):
        writer.write(rng.integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    return path


@pytest.fixture
def clip(tmp_path):
    """Return a video with the suffix of a camera's file."""
    return write_clip(tmp_path / 'clip.MP4', 'mp4v')


def test_pictures_and_stamps(clip):
    video = VideoFile(clip)
    with closing(open_images(clip)) as images:
        assert images.topics[VIDEO_TOPIC].count == COUNT
        # A replay may use a picture after the next one was read.
        found = list(images.images([images.choose()]))
        for number, image in enumerate(found):
            pixels = image.frame().load()
            np.testing.assert_array_equal(pixels.array, video.read())
            assert pixels.order == 'bgr' and image.header_stamp_ns == 40_000_000 * number
        assert number == COUNT - 1 and images.losses == []


def test_a_truncated_video(tmp_path):
    path = write_clip(tmp_path / 'clip.avi', 'MJPG')
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    with closing(open_images(path)) as images:
        assert 1 < len(list(images.images([VIDEO_TOPIC]))) < COUNT
        assert re.search(r'clip.avi: broke off after \d+ of 12 frames', images.losses[0])


def test_too_many_pixels_are_refused(clip):
    with closing(open_images(clip)) as images:
        image = next(iter(images.images([VIDEO_TOPIC])))
        with pytest.raises(FrameError, match='64x48 pixels'):
            image.frame(max_pixels=10)


def test_a_video_has_one_topic_and_no_messages(clip):
    with closing(open_images(clip)) as images:
        assert images.choose('image_raw') == VIDEO_TOPIC
        with pytest.raises(SourceError, match="only topic is /image_raw; there is no '/left'"):
            images.choose('/left')
        with pytest.raises(SourceError, match='no topic /truth'):
            images.messages('/truth', 'vision_msgs/msg/Detection2DArray')


def test_a_bag_is_opened_as_a_bag(tmp_path):
    path = write_bag(tmp_path / 'walk.mp4', {'/left': [raw_message(0, seed=1)]})
    with closing(open_images(path)) as images:
        assert isinstance(images, ImageBag) and list(images.topics) == ['/left']


def test_other_files_are_refused(tmp_path):
    (tmp_path / 'notes.txt').write_text('boxes')
    with pytest.raises(SourceError, match=r'notes.txt: is neither a bag nor a video \(\*.avi'):
        open_images(tmp_path / 'notes.txt')
    for ending in ('', '.mp4', '.mcap'):
        with pytest.raises(SourceError, match='cannot be read: File name too long'):
            open_images(tmp_path / (300 * 'x' + ending))
