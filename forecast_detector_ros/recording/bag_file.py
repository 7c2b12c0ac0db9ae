# SPDX-License-Identifier: Apache-2.0
"""Bags of serialised messages: their types where no ROS is installed, and writing them whole."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import count
import os
from pathlib import Path
import shutil
from typing import Any

from ..images.bag_images import mend


def set_aside(partial: Path, final: Path) -> Path | None:
    """
    Rename what is left of a recording that was to become `final`; None when nothing is.

    ``annotated.part.mkv`` of ``annotated.mkv`` becomes ``annotated.unfinished-1.mkv``, or -2 and
    so on. MCAP files in a folder are ended properly, so that every reader takes them. Raises
    OSError.
    """
    if not partial.exists():
        return None
    for file in partial.glob('*.mcap') if partial.is_dir() else ():
        with suppress(OSError):  # Renamed as it is.
            mend(file)
    names = (f'{final.stem}.unfinished-{number}{final.suffix}' for number in count(1))
    target = next(path for path in map(final.with_name, names) if not path.exists())
    os.rename(partial, target)
    return target


try:
    from rosbags import interfaces
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys.store import Typestore
except ImportError as error:
    MISSING: str | None = f'bags need the Python package rosbags (pip install rosbags): {error}'
else:
    MISSING = None


class BagError(OSError):
    """A bag that cannot be written; the message is one line."""


class BagFile:
    """An MCAP bag in the making, in a hidden folder beside `path`."""

    def __init__(self, path: str | Path, keep_remains: bool = False) -> None:
        """
        Open the bag; raises BagError when `path` exists, or rosbags or a folder is missing.

        What an earlier one that was not closed has left is removed, or, with `keep_remains`, made
        readable and given a name, which is then in `remains`.
        """
        if MISSING:
            raise BagError(MISSING)
        self.path = Path(path)
        if self.path.exists():
            raise BagError(f'{self.path}: exists already and is not overwritten')
        # The bag's file is named after its folder, so only the folder's parent is temporary.
        self._partial = self.path.parent / f'.{self.path.name}.part'
        self._failed = False
        self.remains: Path | None = None
        if keep_remains:
            with self._one_line():
                self.remains = set_aside(self._partial / self.path.name, self.path)
        shutil.rmtree(self._partial, ignore_errors=True)
        self._writer = Writer(self._partial / self.path.name, version=9,
                              storage_plugin=StoragePlugin.MCAP)
        with self._one_line():
            self._writer.open()
        self._unwritten = False
        self._connections: dict[str, interfaces.Connection] = {}
        self.counts: dict[str, int] = {}

    def connect(self, topic: str, message_type: str, store: Typestore, qos: interfaces.Qos
                ) -> None:
        """
        Announce a topic; every topic comes once.

        :param topic: its full name
        :param message_type: such as ``vision_msgs/msg/Detection2DArray``
        :param store: knows the definition of the type, which goes into the bag
        :param qos: what to play the topic back with
        """
        self._connections[topic] = self._writer.add_connection(
            topic, message_type, typestore=store, offered_qos_profiles=[qos])
        self.counts[topic] = 0

    def write(self, topic: str, data: bytes | memoryview, time_ns: int) -> None:
        """Append a message, CDR-serialised; `time_ns` is when it was received."""
        with self._one_line():
            self._writer.write(self._connections[topic], time_ns, data)
        self.counts[topic] += 1
        self._unwritten = True

    def flush(self) -> None:
        """Bring everything to the disk in a chunk of its own; raises BagError."""
        if not self._unwritten:
            return
        # rosbags closes a chunk when it has a MiB, and has no call for it.
        storage: Any = self._writer.storage
        with self._one_line():
            storage.close_chunk()
            storage.bio.flush()
        self._unwritten = False

    def close(self) -> None:
        """Finish the bag and give it its name, unless it failed before; raises BagError."""
        if self._failed:
            return
        with self._one_line():
            self._writer.close()
            os.replace(self._partial / self.path.name, self.path)
            self._partial.rmdir()

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed = True
            with suppress(Exception):
                self._writer.abort()
            raise BagError(f'{self.path}: cannot be written: {error.strerror or error}') from None


def bag_qos(history: int, depth: int, reliability: int, durability: int) -> interfaces.Qos:
    """Return a QoS profile for `BagFile.connect`; policies are numbered as in rmw."""
    unlimited = interfaces.QosTime(0, 0)
    return interfaces.Qos(
        interfaces.QosHistory(history), depth, interfaces.QosReliability(reliability),
        interfaces.QosDurability(durability), unlimited, unlimited,
        interfaces.QosLiveliness.AUTOMATIC, unlimited, False)


DETECTIONS = 'vision_msgs/msg/Detection2DArray'
DECISION = 'diagnostic_msgs/msg/DiagnosticArray'

#: Fields by message, https://github.com/ros-perception/vision_msgs (branch ros2).
VISION_FIELDS = {
    'Point2D': 'float64 x\nfloat64 y',
    'Pose2D': 'vision_msgs/Point2D position\nfloat64 theta',
    'BoundingBox2D': 'vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y',
    'ObjectHypothesis': 'string class_id\nfloat64 score',
    'ObjectHypothesisWithPose':
        'vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose',
    'Detection2D':
        'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n'
        'vision_msgs/BoundingBox2D bbox\nstring id',
    'Detection2DArray': 'std_msgs/Header header\nvision_msgs/Detection2D[] detections',
}


@lru_cache(maxsize=1)
def vision_typestore() -> Typestore:
    """Return rosbags' latest types with those of vision_msgs that bags of detections need."""
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores

    store = get_typestore(Stores.LATEST)
    types = {}
    for name, fields in VISION_FIELDS.items():
        types.update(get_types_from_msg(f'{fields}\n', f'vision_msgs/msg/{name}'))
    store.register({name: fields for name, fields in types.items()
                    if name not in store.fielddefs})
    return store
