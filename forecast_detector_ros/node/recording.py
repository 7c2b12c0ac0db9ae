# SPDX-License-Identifier: Apache-2.0
"""
A recording in the making: annotated videos, a bag, and one line per frame.

Knows messages, but no node: whatever calls it can be a live node or a test.
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

_MOST = 256  #: Frame ids, cameras of each, and cameras in decisions that are remembered

Key = tuple[int, str]  #: Stamp (nanoseconds) and frame_id of an image


@dataclass
class _Open:
    """Answers that carry the same header, each kind in the order in which it came."""

    detections: list[Any] = field(default_factory=list)
    decisions: list[tuple[str, Any]] = field(default_factory=list)


class Answers:
    """
    Pairs detections with decisions and hands both to the camera that the decision names.

    Detections carry the image's header and no camera; a decision names the camera too. Both are
    published in the same order, so where several cameras have the same stamp and frame_id the
    first detections belong to the first decision, provided that none is missing.

    :param sink: called with camera, stamp, detections and decision; one of the last two may be
        None
    """

    def __init__(self, sink: Callable[[str, int, Any, Any], None]) -> None:
        """Know no camera yet."""
        self._sink = sink
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        self._cameras: dict[str, set[str]] = {}  #: Of each frame_id
        #: Detections that could belong to several cameras, because an answer was lost.
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
        """Hand on what still waits."""
        while self._open:
            self._close(next(iter(self._open)))

    def _settle(self, key: Key) -> None:
        waiting, cameras = self._open[key], self._cameras.get(key[1], set())
        complete = len(waiting.detections) == len(waiting.decisions) >= max(1, len(cameras))
        if complete:
            # A camera's answers come in order: what was opened before this is complete, too, or
            # has lost one. Of several cameras one may be late.
            older = [old for old in self._open if old[1] == key[1]]
            for old in older[:older.index(key)]:
                if len(cameras) == 1 or (
                        len(self._open[old].detections) == len(self._open[old].decisions)):
                    self._close(old)
            self._close(key)
        # Cameras that share a frame_id need not be in step, nor their answers in order.
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

    It belongs to the very installation the package's Python module is imported from. Raises
    BagError when there is none.
    """
    module = Path(importlib.import_module(package).__file__ or '')
    for prefix in module.parents:
        folder = prefix / 'share' / package / 'msg'
        if folder.is_dir():
            return folder
    raise BagError(f'the message definitions of {package} are not installed beside {module}')


class BagWriter(BagFile):
    """An MCAP bag in the making that knows rclpy's message classes and QoS profiles."""

    def __init__(self, path: str | Path) -> None:
        """Open the bag; raises BagError when `path` exists, or rosbags or a folder is missing."""
        super().__init__(path, keep_remains=True)
        self._store = typestore_with({
            f'vision_msgs/msg/{path.stem}': path.read_text(encoding='utf-8')
            for path in sorted(message_folder('vision_msgs').glob('*.msg'))})

    def add_topic(self, topic: str, message_class: type, qos: QoSProfile) -> None:
        """Announce a topic with the QoS to play it back with; every topic comes once."""
        package, _, _ = message_class.__module__.partition('.msg.')
        self.connect(topic, f'{package}/msg/{message_class.__name__}', self._store,
                     bag_qos(int(qos.history), qos.depth, int(qos.reliability),
                             int(qos.durability)))


VIDEO_NAME = 'annotated.mkv'
BAG_NAME = 'bag'


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
        self.answers = Answers(self._answer)
        self._named: set[str] = set()
        self.foreign = 0  #: Messages on the detector's topics that are not the detector's
        self.unsound = 0  #: Detections without a number, a place or a class

    @property
    def counts(self) -> Counts:
        """Return what has become of all cameras' frames so far."""
        each = [camera.counts for camera in self.cameras.values()]
        return Counts(sum(item.frames for item in each), sum(item.dropped for item in each),
                      sum(item.undecodable for item in each))

    @property
    def waiting(self) -> int:
        """Return the number of images that are not settled yet."""
        return sum(len(camera.join) for camera in self.cameras.values())

    @property
    def given_up(self) -> int:
        """Return how many images were written unanswered because too many were waiting."""
        return sum(camera.join.given_up for camera in self.cameras.values())

    @property
    def without_image(self) -> int:
        """Return how many decisions came whose image did not."""
        return sum(camera.join.without_image for camera in self.cameras.values())

    def add_image(self, camera: str, message: Image | CompressedImage) -> None:
        """Take an image of a camera, which is held until the detector's answers are there."""
        self.cameras[camera].add_image(message)

    def add_detections(self, message: Detection2DArray) -> None:
        """Take the detections of one image; those that are none are left out and counted."""
        self.unsound += sound_detections(message)
        self.answers.add_detections((stamp_ns(message), message.header.frame_id), message)

    def add_decision(self, message: DiagnosticArray) -> None:
        """Take the decision on one image; a message that is none is left out and counted."""
        try:
            decision = read_decision(message)
        except ValueError:
            self.foreign += 1
            return
        # The topic that the detector subscribes to.
        camera = message.status[0].hardware_id.removesuffix('/compressed')
        if len(self._named) < _MOST:
            self._named.add(camera)
        self.answers.add_decision((stamp_ns(message), message.header.frame_id), camera, decision)

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
            self.answers.flush()

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
