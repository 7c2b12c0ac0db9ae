# SPDX-License-Identifier: Apache-2.0
"""Join the images of one camera with the detector's answers, and draw them into a video."""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from ..images.frame import as_bgr, FrameError
from ..images.image_messages import compressed_frame, image_frame
from ..recording.drawing import annotate, status_text
from ..recording.output_files import (
    measured_rate,
    RATE_FRAMES,
    set_aside,
    StreamedVideoWriter,
    VideoWriter,
)
from ..recording.recorded_frame import DROPPED, RecordedFrame
from ..recording.result_messages import read_detections, read_ids, stamp_ns


@dataclass(frozen=True)
class JoinedFrame:
    """An image with its detections and decision; None where the detector published nothing."""

    stamp: int  #: Nanoseconds, from the image's header
    image: Any
    detections: Any
    decision: Any


class FrameJoin:
    """
    Keeps images until the detector's answers to them are settled.

    A frame is settled when both answers have come. It is settled as dropped when the answers to a
    later received image have come. It is also settled when more than `frame_limit` frames or
    `byte_limit` bytes of images wait. Stamps are nanoseconds. When the images' stamps step back (a
    loop, a restarted clock), all waiting frames are settled first.
    """

    def __init__(self, frame_limit: int = 250, byte_limit: int = 256 * 2**20) -> None:
        """Hold at most `frame_limit` images, and at most `byte_limit` bytes of them."""
        self._frame_limit = frame_limit
        self._byte_limit = byte_limit
        self._images: deque[tuple[int, Any, int]] = deque()
        self._detections: dict[int, Any] = {}
        self._decisions: dict[int, Any] = {}
        self._bytes = 0
        self._last_image = -1
        self._released: deque[JoinedFrame] = deque()
        self.given_up = 0  #: Frames released without an answer because too many were waiting
        self.without_image = 0  #: Answers whose image never came, or came too late

    def __len__(self) -> int:
        """Return the number of images that wait."""
        return len(self._images)

    def add_image(self, stamp: int, image: Any, size: int = 0) -> None:
        """Take an image of `size` bytes."""
        if stamp <= self._last_image:
            # Answers are kept, because the answer to this image may have come already.
            while self._images:
                self._release()
        self._last_image = stamp
        self._images.append((stamp, image, size))
        self._bytes += size
        while len(self._images) > self._frame_limit or (
                self._bytes > self._byte_limit and len(self._images) > 1):
            self._forget_before(self._release())
            self.given_up += 1

    def add_detections(self, stamp: int, detections: Any) -> None:
        """Take the detections of the image with this stamp."""
        self._add(self._detections, stamp, detections)

    def add_decision(self, stamp: int, decision: Any) -> None:
        """Take the decision on the image with this stamp."""
        self._add(self._decisions, stamp, decision)

    def settled(self) -> Iterator[JoinedFrame]:
        """Yield the settled frames in order."""
        while True:
            while self._released:
                yield self._released.popleft()
            if not self._images or not self._is_settled(self._images[0][0]):
                return
            self._forget_before(self._release())

    def flush(self) -> Iterator[JoinedFrame]:
        """Yield all waiting frames in order, answered or not."""
        while self._images:
            self._forget_before(self._release())
        while self._released:
            yield self._released.popleft()

    def _add(self, answers: dict[int, Any], stamp: int, answer: Any) -> None:
        answers[stamp] = answer
        if len(answers) > self._frame_limit:
            del answers[next(iter(answers))]
            self.without_image += answers is self._decisions

    def _is_settled(self, stamp: int) -> bool:
        # An answer with a stamp after the last image may date from before a step back.
        return all(
            stamp in answers or any(stamp < other <= self._last_image for other in answers)
            for answers in (self._detections, self._decisions))

    def _release(self) -> int:
        stamp, image, size = self._images.popleft()
        self._bytes -= size
        self._released.append(JoinedFrame(stamp, image, self._detections.pop(stamp, None),
                                          self._decisions.pop(stamp, None)))
        return stamp

    def _forget_before(self, stamp: int) -> None:
        """Drop answers older than a released frame, because their images cannot come any more."""
        for answers in (self._detections, self._decisions):
            for old in [key for key in answers if key < stamp]:
                del answers[old]
                self.without_image += answers is self._decisions


@dataclass
class Counts:
    """Counts of the frames so far."""

    frames: int = 0  #: Images that arrived and were settled
    dropped: int = 0  #: Those of them that the detector never answered
    undecodable: int = 0  #: Images that could not be decoded and are missing in the video


class CameraRecording:
    """Joins images and answers of one camera by stamp and writes them in order."""

    def __init__(self, path: Path, camera: str, rate: float,
                 on_frame: Callable[[RecordedFrame], None] | None) -> None:
        """
        Plan the video at `path`, a ``.mkv`` of `rate` Hz; 0: measured from the first stamps.

        Each frame's record names `camera`, and `on_frame` is called with it. An unfinished video
        of an earlier recording is renamed to `remains`. Raises OSError.
        """
        self.counts = Counts()
        self._camera = camera
        self._path = path
        self.remains = set_aside(path.with_suffix(f'.part{path.suffix}'), path)
        self.join = FrameJoin()
        self._rate = rate
        self._first_stamps: list[int] = []
        self._video: VideoWriter | None = None
        self._on_frame = on_frame

    def add_image(self, message: Image | CompressedImage) -> None:
        """Take an image, and hold it until the detector's answers have come."""
        stamp = stamp_ns(message)
        if self._video is None and len(self._first_stamps) < RATE_FRAMES:
            self._first_stamps.append(stamp)
        self.join.add_image(stamp, message, len(message.data))
        self._write_settled()

    def add_answer(self, stamp: int, detections: Detection2DArray | None,
                   decision: dict[str, Any] | None) -> None:
        """Take the detections, the values of `read_decision`, or both, for an image's stamp."""
        if detections is not None:
            self.join.add_detections(stamp, detections)
        if decision is not None:
            self.join.add_decision(stamp, decision)
        self._write_settled()

    def close(self) -> None:
        """Write the waiting frames, then finish and rename the video; raises VideoError."""
        video = self._video or self._open_video()
        try:
            self._write_all(self.join.flush(), video)
        finally:
            video.close()

    def _write_settled(self) -> None:
        if self._video is None and not self._rate and len(self._first_stamps) < RATE_FRAMES:
            return
        self._write_all(self.join.settled(), self._video or self._open_video())

    def _open_video(self) -> VideoWriter:
        self._video = StreamedVideoWriter(
            self._path, self._rate or measured_rate(self._first_stamps))
        return self._video

    def _write_all(self, frames: Iterator[JoinedFrame], video: VideoWriter) -> None:
        for frame in frames:
            record, boxes = self._record(frame)
            self.counts.frames += 1
            self.counts.dropped += record.dropped
            try:
                picture = bgr_picture(frame.image)
                annotate(picture, boxes, record, status_text(record, self.counts.frames))
            except (FrameError, cv2.error):
                self.counts.undecodable += 1
            else:
                video.write(picture)
            if self._on_frame is not None:
                self._on_frame(record)

    def _record(self, frame: JoinedFrame) -> tuple[RecordedFrame, np.ndarray]:
        """Return the record of a frame, and its boxes, (N, 4) float32, xyxy in pixels."""
        record = RecordedFrame(stamp_ns=frame.stamp, kind=DROPPED, camera=self._camera)
        if frame.decision is not None:
            record = replace(record, **frame.decision)
        boxes = np.empty((0, 4), np.float32)
        if frame.detections is not None:
            boxes, labels, scores = read_detections(frame.detections)
            record = replace(record, labels=tuple(labels), scores=tuple(scores),
                             ids=read_ids(frame.detections))
        return record, boxes


def bgr_picture(message: Image | CompressedImage) -> np.ndarray:
    """
    Return the picture of a message, BGR, (H, W, 3) uint8, writable.

    It may share the memory of the message. Raises FrameError.
    """
    frame = (compressed_frame(message) if isinstance(message, CompressedImage)
             else image_frame(message))
    pixels = frame.load()
    if pixels.order == 'bgr':
        return pixels.array if pixels.array.flags.writeable else pixels.array.copy()
    return as_bgr(pixels.array, pixels.order)
