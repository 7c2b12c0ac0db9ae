# SPDX-License-Identifier: Apache-2.0
"""Read a video file as the images of one camera, as if a bag had recorded them."""

from collections.abc import Iterator, Sequence
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .bag_images import BagImage, ImageBag, ImageTopic, is_bag, NANOSECONDS
from .frame import SourceError
from .video_source import VideoFile

VIDEO_SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.webm')
VIDEO_TOPIC = '/image_raw'  #: The name of a video's only camera
UNKNOWN_RATE = 30.0  #: Pictures per second of a file that does not say its own


class VideoImages:
    """
    A video file that gives its pictures as `ImageBag` does; close it at the end.

    Stamps start at 0 and have the distance that the file's rate says.

    :raises SourceError: if no picture can be decoded
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.losses: list[str] = []
        self._video = VideoFile(path)
        self.topics = {VIDEO_TOPIC: ImageTopic(VIDEO_TOPIC, 'Image', self._video.announced or 0)}

    def choose(self, topic: str | None = None) -> str:
        """Return the name of the only topic; raises SourceError if another one is meant."""
        if topic not in (None, VIDEO_TOPIC, VIDEO_TOPIC[1:]):
            raise SourceError(f'{self.path}: is a video, its only topic is {VIDEO_TOPIC}; '
                              f'{topic!r} is none of it')
        return VIDEO_TOPIC

    def images(self, topics: Sequence[str]) -> Iterator[BagImage]:
        """Yield the pictures in their order; `topics` has the name that `choose` gives."""
        gap_ns = NANOSECONDS / (self._video.rate or UNKNOWN_RATE)
        number = 0
        while (picture := self._video.read()) is not None:
            stamp_ns = round(number * gap_ns)
            height, width = picture.shape[:2]
            yield BagImage(VIDEO_TOPIC, stamp_ns, stamp_ns, '', 'sensor_msgs/msg/Image',
                           SimpleNamespace(height=height, width=width, encoding='bgr8',
                                           is_bigendian=0, step=3 * width,
                                           data=picture.reshape(-1)))
            number += 1
        if (loss := self._video.loss()) is not None:
            self.losses.append(loss)

    def messages(self, topic: str, message_type: str) -> list[Any]:
        """Refuse: a video has no messages."""
        raise SourceError(f'{self.path}: is a video and has no topic {topic} with {message_type}')

    def close(self) -> None:
        """Close the file."""
        self._video.close()


def open_images(path: Path, typestore: Any = None) -> ImageBag | VideoImages:
    """
    Open a bag, or a video file by its ending; close it at the end.

    :param typestore: see `ImageBag`
    :raises SourceError: if it cannot be read
    """
    if path.suffix.lower() in VIDEO_SUFFIXES and os.path.isfile(path):
        return VideoImages(path)
    if os.path.isfile(path) and not is_bag(path):
        raise SourceError(f'{path}: is neither a bag nor a video '
                          f'(*{", *".join(VIDEO_SUFFIXES)}) by its name')
    return ImageBag(path, typestore)
