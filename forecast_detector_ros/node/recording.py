# SPDX-License-Identifier: Apache-2.0
"""
A recording: annotated videos, a bag, and a record of each frame.

This module needs ROS messages but no node.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
import importlib
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from .camera_recording import CameraRecording, Counts
from ..errors import InputError
from ..recording.output_files import bag_qos, BagError, BagFile, typestore_with
from ..recording.recorded_frame import RecordedFrame
from ..recording.result_messages import read_decision, sound_detections, stamp_ns

_MOST = 256  #: Most frame ids, cameras of a frame id, and cameras named in decisions

Key = tuple[int, str]  #: Stamp (nanoseconds) and frame_id of an image


@dataclass
class _Open:
    """Answers with the same header, each kind in the order of arrival."""

    detections: list[Any] = field(default_factory=list)
    decisions: list[tuple[str, Any]] = field(default_factory=list)


class Answers:
    """
    Pairs detections with decisions and passes both on for the camera that the decision names.

    Detections have the image's header, which does not name the camera. Both are published in the
    same order. So for several cameras with the same stamp and frame_id, the n-th detections belong
    to the n-th decision if no message is missing.

    :param sink: called with camera, stamp (ns), detections and decision; either of the last two
        may be None
    """

    def __init__(self, sink: Callable[[str, int, Any, Any], None]) -> None:
        self._sink = sink
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        self._cameras: dict[str, set[str]] = {}  #: Cameras of each frame_id
        #: Detections of an unknown camera, because an answer was lost.
        self.ambiguous = 0

    def add_detections(self, key: Key, detections: Any) -> None:
        """Take the detections with this header."""
        self._open.setdefault(key, _Open()).detections.append(detections)
        self._settle(key)

    def add_decision(self, key: Key, camera: str, decision: Any) -> None:
        """Take the decision with this header, on an image of `camera`."""
        if len(self._cameras) > _MOST:
            self._cameras.clear()
        cameras = self._cameras.setdefault(key[1], set())
        if len(cameras) < _MOST:
            cameras.add(camera)
        self._open.setdefault(key, _Open()).decisions.append((camera, decision))
        self._settle(key)

    def flush(self) -> None:
        """Pass on all waiting answers."""
        while self._open:
            self._close(next(iter(self._open)))

    def _settle(self, key: Key) -> None:
        waiting, cameras = self._open[key], self._cameras.get(key[1], set())
        complete = len(waiting.detections) == len(waiting.decisions) >= max(1, len(cameras))
        if complete:
            # Answers of a camera come in order, so older headers are complete or have lost one.
            # With several cameras, an answer of another camera may be late.
            older = [old for old in self._open if old[1] == key[1]]
            for old in older[:older.index(key)]:
                if len(cameras) == 1 or (
                        len(self._open[old].detections) == len(self._open[old].decisions)):
                    self._close(old)
            self._close(key)
        # Cameras that share a frame_id may differ in time, so their answers may be out of order.
        while len(self._open) > 2 * max(1, len(cameras)):
            self._close(next(iter(self._open)))

    def _close(self, key: Key) -> None:
        waiting = self._open.pop(key)
        count = len(waiting.decisions)
        if len(waiting.detections) == count:
            for detections, (camera, decision) in zip(waiting.detections, waiting.decisions):
                self._sink(camera, key[0], detections, decision)
            return
        for camera, decision in waiting.decisions:
            self._sink(camera, key[0], None, decision)
        cameras = self._cameras.get(key[1], set())
        if len(cameras) == 1:
            (camera,) = cameras
            for detections in waiting.detections[:1]:
                self._sink(camera, key[0], detections, None)
        else:
            self.ambiguous += len(waiting.detections)


def message_folder(package: str) -> Path:
    """
    Return the folder of the .msg files of a ROS `package`.

    It is in the same installation as the package's Python module. Raises BagError if it does not
    exist.
    """
    module = Path(importlib.import_module(package).__file__ or '')
    for prefix in module.parents:
        folder = prefix / 'share' / package / 'msg'
        if folder.is_dir():
            return folder
    raise BagError(f'the message definitions of {package} are not installed beside {module}')


class BagWriter(BagFile):
    """An MCAP bag that takes rclpy's message classes and QoS profiles."""

    def __init__(self, path: str | Path) -> None:
        """Open the bag; raises BagError if `path` exists, or rosbags or the folder is missing."""
        super().__init__(path, keep_remains=True)
        self._store = typestore_with({
            f'vision_msgs/msg/{path.stem}': path.read_text(encoding='utf-8')
            for path in sorted(message_folder('vision_msgs').glob('*.msg'))})

    def add_topic(self, topic: str, message_class: type, qos: QoSProfile) -> None:
        """Add a topic, once, with the QoS for its playback; raises BagError."""
        package, _, _ = message_class.__module__.partition('.msg.')
        self.connect(topic, f'{package}/msg/{message_class.__name__}', self._store,
                     bag_qos(int(qos.history), qos.depth, int(qos.reliability),
                             int(qos.durability)))


VIDEO_NAME = 'annotated.mkv'
BAG_NAME = 'bag'


class RecordingError(InputError):
    """A recording is not possible; the message is one line."""


class Recording:
    """Passes messages to the recordings of their cameras, and owns the bag."""

    def __init__(self, folder: str | Path, cameras: Sequence[str], rate: float = 0.0,
                 on_frame: Callable[[RecordedFrame], None] | None = None) -> None:
        """
        Begin a recording in `folder`, which is created if it does not exist.

        `cameras` are their resolved base topics. `rate` is that of the videos, Hz; 0: measured
        from the first stamps. `on_frame` is called for each settled frame. Unfinished files of an
        earlier recorder are renamed to `remains`. Raises RecordingError or BagError if the folder
        cannot be used or has a recording.
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
        self.answers = Answers(self._answer)
        self._named: set[str] = set()
        self.foreign = 0  #: Messages on the detector's topics that are not decisions
        self.unsound = 0  #: Detections without a class or with unusable numbers

    @property
    def counts(self) -> Counts:
        """Return the sums of all cameras' counts so far."""
        each = [camera.counts for camera in self.cameras.values()]
        return Counts(sum(item.frames for item in each), sum(item.dropped for item in each),
                      sum(item.undecodable for item in each))

    @property
    def waiting(self) -> int:
        """Return the number of images that are not settled yet."""
        return sum(len(camera.join) for camera in self.cameras.values())

    @property
    def given_up(self) -> int:
        """Return how many images were written without an answer because too many were waiting."""
        return sum(camera.join.given_up for camera in self.cameras.values())

    @property
    def without_image(self) -> int:
        """Return how many decisions came without their image."""
        return sum(camera.join.without_image for camera in self.cameras.values())

    def add_image(self, camera: str, message: Image | CompressedImage) -> None:
        """Take an image of a camera, and hold it until the detector's answers have come."""
        self.cameras[camera].add_image(message)

    def add_detections(self, message: Detection2DArray) -> None:
        """Take the detections of one image; unusable ones are left out and counted."""
        self.unsound += sound_detections(message)
        self.answers.add_detections((stamp_ns(message), message.header.frame_id), message)

    def add_decision(self, message: DiagnosticArray) -> None:
        """Take the decision on one image; any other message is left out and counted."""
        try:
            decision = read_decision(message)
        except ValueError:
            self.foreign += 1
            return
        # The hardware id is the topic to which the detector subscribes.
        camera = message.status[0].hardware_id.removesuffix('/compressed')
        if len(self._named) < _MOST:
            self._named.add(camera)
        self.answers.add_decision((stamp_ns(message), message.header.frame_id), camera, decision)

    def flush(self) -> None:
        """Write the bag's messages to the disk; raises BagError."""
        self.bag.flush()

    def close(self) -> None:
        """
        Write the waiting frames, then finish and rename all files.

        Raises VideoError or BagError if a file is incomplete, after all files were closed.
        """
        with ExitStack() as closing:
            closing.callback(self.bag.close)
            for camera in self.cameras.values():
                closing.callback(camera.close)
            self.answers.flush()

    def _answer(self, name: str, stamp: int, detections: Any, decision: Any) -> None:
        camera = self.cameras.get(name)
        if camera is None and len(self.cameras) == 1 and len(self._named) == 1:
            # Both sides have one camera, but one of them subscribes to a relay of its topic.
            (camera,) = self.cameras.values()
        if camera is not None:
            camera.add_answer(stamp, detections, decision)


def video_name(camera: str, cameras: int) -> str:
    """Return the video's file name for a base topic; `cameras`: number of recorded cameras."""
    if cameras == 1:
        return VIDEO_NAME
    path = Path(VIDEO_NAME)
    return f'{path.stem}.{camera.strip("/").replace("/", ".")}{path.suffix}'
