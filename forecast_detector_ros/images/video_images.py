# SPDX-License-Identifier: Apache-2.0
"""Read a video file with the interface of a bag with one camera."""

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
UNKNOWN_RATE = 30.0  #: Pictures per second of a file without a rate


class VideoImages:
    """
    A video file with the interface of `ImageBag`; close it at the end.

    Stamps start at 0 and follow the rate of the file.

    :raises SourceError: if no picture can be decoded
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.losses: list[str] = []
        self._video = VideoFile(path)
        self.topics = {VIDEO_TOPIC: ImageTopic(VIDEO_TOPIC, 'Image', self._video.announced or 0)}

    def choose(self, topic: str | None = None) -> str:
        """Return the name of the only topic; raises SourceError for another name."""
        if topic not in (None, VIDEO_TOPIC, VIDEO_TOPIC[1:]):
            raise SourceError(f'{self.path}: is a video, its only topic is {VIDEO_TOPIC}; '
                              f'there is no {topic!r}')
        return VIDEO_TOPIC

    def images(self, topics: Sequence[str]) -> Iterator[BagImage]:
        """Yield the pictures in order; `topics` has the name that `choose` returns."""
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
        """Raise SourceError, because a video has no messages."""
        raise SourceError(f'{self.path}: is a video and has no topic {topic} with {message_type}')

    def close(self) -> None:
        """Close the file."""
        self._video.close()


def open_images(path: Path, typestore: Any = None) -> ImageBag | VideoImages:
    """
    Open a bag, or by its suffix a video file; close it at the end.

    :param typestore: see `ImageBag`
    :raises SourceError: if it is neither, or cannot be read
    """
    if path.suffix.lower() in VIDEO_SUFFIXES and os.path.isfile(path):
        return VideoImages(path)
    if os.path.isfile(path) and not is_bag(path):
        raise SourceError(f'{path}: is neither a bag nor a video '
                          f'(*{", *".join(VIDEO_SUFFIXES)}) by its name')
    return ImageBag(path, typestore)
