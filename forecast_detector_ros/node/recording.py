# SPDX-License-Identifier: Apache-2.0
"""
A recording in the making: annotated videos, a bag, and one line per frame.

Knows messages, but no node: whatever calls it can be a live node or a test.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from .answers import Answers
from .bag_writer import BagWriter
from .camera_recording import CameraRecording, Counts, stamp_ns
from ..errors import InputError
from ..recording.frame_record import RecordedFrame
from ..recording.result_messages import read_decision, sound_detections

VIDEO_NAME = 'annotated.mkv'
BAG_NAME = 'bag'

_MOST_CAMERAS = 256
"""Names of cameras in decisions that are remembered."""


class RecordingError(InputError):
    """A recording that cannot be made; the message is one line."""


class Recording:
    """Hands what arrives to the cameras that it belongs to, and keeps the bag."""

    def __init__(self, folder: str | Path, cameras: Sequence[str], rate: float = 0.0,
                 on_frame: Callable[[RecordedFrame], None] | None = None) -> None:
        """
        Begin a recording in `folder`, which is made if need be.

        `cameras` are their base topics, in full. `rate` is the video's, Hz; 0 measures it on the
        stamps of the first frames. `on_frame` is called for each frame once it is settled. What a
        recorder that was killed has left in the folder is kept under other names: `remains`.
        Raises RecordingError or BagError when the folder cannot be used or holds a recording.
        """
        self.folder = Path(folder)
        paths = {camera: self.folder / video_name(camera, len(cameras)) for camera in cameras}
        try:
            if (self.folder / BAG_NAME).exists() or any(
                    path.exists() for path in paths.values()):
                raise RecordingError(f'{self.folder}: holds a recording already; '
                                     'name another folder or remove it')
            self.folder.mkdir(parents=True, exist_ok=True)
            self.cameras = {
                camera: CameraRecording(path, camera if len(paths) > 1 else '', rate, on_frame)
                for camera, path in paths.items()}
        except OSError as error:
            raise RecordingError(f'{self.folder}: {error.strerror or error}') from None
        self.bag = BagWriter(self.folder / BAG_NAME)
        self.remains = [path for path in (
            *(camera.remains for camera in self.cameras.values()), self.bag.remains) if path]
        self._answers = Answers(self._answer)
        self._named: set[str] = set()
        self.foreign = 0
        """Messages on the detector's topics that are not the detector's."""
        self.unsound = 0
        """Detections without a number, a place or a class."""

    @property
    def counts(self) -> Counts:
        """Return what has become of all cameras' frames so far."""
        each = [camera.counts for camera in self.cameras.values()]
        return Counts(sum(item.frames for item in each), sum(item.dropped for item in each),
                      sum(item.undecodable for item in each))

    @property
    def waiting(self) -> int:
        """Return the number of images that are not settled yet."""
        return sum(camera.waiting for camera in self.cameras.values())

    @property
    def given_up(self) -> int:
        """Return how many images were written unanswered because too many were waiting."""
        return sum(camera.given_up for camera in self.cameras.values())

    @property
    def without_image(self) -> int:
        """Return how many decisions came whose image did not."""
        return sum(camera.without_image for camera in self.cameras.values())

    @property
    def ambiguous(self) -> int:
        """Return how many detections could belong to several cameras."""
        return self._answers.ambiguous

    def add_image(self, camera: str, message: Image | CompressedImage) -> None:
        """Take an image of a camera, which is held until the detector's answers are there."""
        self.cameras[camera].add_image(message)

    def add_detections(self, message: Detection2DArray) -> None:
        """Take the detections of one image; those that are none are left out and counted."""
        self.unsound += sound_detections(message)
        self._answers.add_detections((stamp_ns(message), message.header.frame_id), message)

    def add_decision(self, message: DiagnosticArray) -> None:
        """Take the decision on one image; a message that is none is left out and counted."""
        try:
            decision = read_decision(message)
        except ValueError:
            self.foreign += 1
            return
        # The topic that the detector subscribes to.
        camera = message.status[0].hardware_id.removesuffix('/compressed')
        if len(self._named) < _MOST_CAMERAS:
            self._named.add(camera)
        self._answers.add_decision((stamp_ns(message), message.header.frame_id), camera, decision)

    def flush(self) -> None:
        """Bring the bag's messages to the disk; raises BagError."""
        self.bag.flush()

    def close(self) -> None:
        """
        Write what is still waiting, finish all files and give them their names.

        Raises VideoError or BagError, when everything was tried, if a file is not whole.
        """
        with ExitStack() as closing:
            closing.callback(self.bag.close)
            for camera in self.cameras.values():
                closing.callback(camera.close)
            self._answers.flush()

    def _answer(self, name: str, stamp: int, detections: Any, decision: Any) -> None:
        camera = self.cameras.get(name)
        if camera is None and len(self.cameras) == 1 and len(self._named) == 1:
            # The only camera of both sides, under two names: one listens to a relay.
            (camera,) = self.cameras.values()
        if camera is not None:
            camera.add_answer(stamp, detections, decision)


def video_name(camera: str, cameras: int) -> str:
    """Return the name of the video of a camera's base topic, one of so many that are recorded."""
    if cameras == 1:
        return VIDEO_NAME
    path = Path(VIDEO_NAME)
    return f'{path.stem}.{camera.strip("/").replace("/", ".")}{path.suffix}'
