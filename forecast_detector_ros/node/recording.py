# SPDX-License-Identifier: Apache-2.0
"""
A recording in the making: annotated video, bag, and one line per frame.

Knows messages, but no node: whatever calls it can be a live node or a test.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from .bag_writer import BagWriter
from .frame_join import FrameJoin, JoinedFrame
from ..errors import InputError
from ..images.frame import as_bgr, FrameError
from ..images.image_messages import compressed_frame, image_frame
from ..recording.annotate import annotate, status_text
from ..recording.frame_record import DROPPED, RecordedFrame
from ..recording.result_messages import read_decision, read_detections
from ..recording.video_writer import measured_rate, RATE_FRAMES, VideoWriter

VIDEO_NAME = 'annotated.mp4'
BAG_NAME = 'bag'


class RecordingError(InputError):
    """A recording that cannot be made; the message is one line."""


@dataclass
class Counts:
    """What has become of the frames so far."""

    frames: int = 0
    """Images that arrived and were settled."""
    dropped: int = 0
    """Of these, the ones the detector never answered."""
    undecodable: int = 0
    """Images that could not be drawn into the video; in it they are missing."""


class Recording:
    """Joins what arrives by stamp and writes video, bag and frame lines in order."""

    def __init__(self, folder: str | Path, rate: float = 0.0,
                 on_frame: Callable[[RecordedFrame], None] | None = None) -> None:
        """
        Begin a recording in `folder`, which is made if need be.

        `rate` is the video's, Hz; 0 measures it on the stamps of the first frames. `on_frame`
        is called for each frame once it is settled. Raises RecordingError or BagError when the
        folder cannot be used or holds a recording already.
        """
        self.folder = Path(folder)
        if (self.folder / VIDEO_NAME).exists():
            raise RecordingError(f'{self.folder}: holds a recording already; '
                                 'name another folder or remove it')
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordingError(f'{self.folder}: {error.strerror or error}') from None
        self.bag = BagWriter(self.folder / BAG_NAME)
        self.counts = Counts()
        self._join: FrameJoin[Image | CompressedImage, Detection2DArray, DiagnosticArray]
        self._join = FrameJoin()
        self._rate = rate
        self._first_stamps: list[int] = []
        self._video: VideoWriter | None = None
        self._on_frame = on_frame

    @property
    def waiting(self) -> int:
        """Return the number of images that are not settled yet."""
        return len(self._join)

    @property
    def given_up(self) -> int:
        """Return how many images were written unanswered because too many were waiting."""
        return self._join.given_up

    @property
    def without_image(self) -> int:
        """Return how many decisions came whose image did not."""
        return self._join.without_image

    def add_image(self, message: Image | CompressedImage) -> None:
        """Take an image, which is held until the detector's answers are there."""
        stamp = stamp_ns(message)
        if self._video is None:
            self._first_stamps.append(stamp)
        self._join.add_image(stamp, message, len(message.data))
        self._write_settled()

    def add_detections(self, message: Detection2DArray) -> None:
        """Take the detections of one image."""
        self._join.add_detections(stamp_ns(message), message)
        self._write_settled()

    def add_decision(self, message: DiagnosticArray) -> None:
        """Take the decision on one image."""
        self._join.add_decision(stamp_ns(message), message)
        self._write_settled()

    def close(self) -> None:
        """Write what is still waiting, finish both files and give them their names."""
        video = self._video or self._open_video()
        for frame in self._join.flush():
            self._write(frame, video)
        video.close()
        self.bag.close()

    def _write_settled(self) -> None:
        if self._video is None and not self._rate and len(self._first_stamps) < RATE_FRAMES:
            return
        video = self._video or self._open_video()
        for frame in self._join.settled():
            self._write(frame, video)

    def _open_video(self) -> VideoWriter:
        rate = self._rate or measured_rate(self._first_stamps)
        self._video = VideoWriter(self.folder / VIDEO_NAME, rate)
        return self._video

    def _write(self, frame: JoinedFrame[Image | CompressedImage, Detection2DArray,
                                        DiagnosticArray], video: VideoWriter) -> None:
        record, boxes = frame_record(frame)
        self.counts.frames += 1
        self.counts.dropped += record.dropped
        try:
            picture = bgr_picture(frame.image)
        except FrameError:
            self.counts.undecodable += 1
        else:
            annotate(picture, boxes, record, status_text(record, self.counts.frames))
            video.write(picture)
        if self._on_frame is not None:
            self._on_frame(record)


def frame_record(frame: JoinedFrame) -> tuple[RecordedFrame, np.ndarray]:
    """Return what is kept of a frame and its boxes, (N, 4) xyxy in pixels."""
    record = RecordedFrame(stamp_ns=frame.stamp, kind=DROPPED)
    if frame.decision is not None:
        record = replace(record, **read_decision(frame.decision))
    boxes = np.empty((0, 4), np.float32)
    if frame.detections is not None:
        boxes, labels, scores = read_detections(frame.detections)
        record = replace(record, labels=tuple(labels), scores=tuple(scores))
    return record, boxes


def bgr_picture(message: Image | CompressedImage) -> np.ndarray:
    """
    Return the picture of a message, BGR, (H, W, 3) uint8, to draw into.

    It may lie in the message's own data, which is spent then. Raises FrameError.
    """
    frame = (compressed_frame(message) if isinstance(message, CompressedImage)
             else image_frame(message))
    pixels = frame.load()
    if pixels.order == 'bgr':
        return pixels.array if pixels.array.flags.writeable else pixels.array.copy()
    return as_bgr(pixels.array, pixels.order)


def stamp_ns(message: Image | CompressedImage | Detection2DArray | DiagnosticArray) -> int:
    """Return the stamp of a message's header in nanoseconds."""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
