# SPDX-License-Identifier: Apache-2.0
"""
Writers of bags and videos; a file gets its final name only when it is complete.

Bags contain serialised messages; their types are also known where ROS is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, ExitStack, suppress
from functools import lru_cache
from itertools import count
import os
from pathlib import Path
import shutil
import statistics
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import cv2
import numpy as np

from ..errors import cut
from ..images.bag_images import mend


def set_aside(partial: Path, final: Path) -> Path | None:
    """
    Rename the unfinished file or folder of `final`; return its new name, or None if there is none.

    ``annotated.part.mkv`` of ``annotated.mkv`` becomes ``annotated.unfinished-1.mkv``, or -2 and
    so on. MCAP files in a folder get a proper end, so that all readers accept them. Raises
    OSError.
    """
    if not partial.exists():
        return None
    for file in partial.glob('*.mcap') if partial.is_dir() else ():
        with suppress(OSError):  # A file that cannot be repaired is renamed as it is.
            mend(file)
    names = (f'{final.stem}.unfinished-{number}{final.suffix}' for number in count(1))
    target = next(path for path in map(final.with_name, names) if not path.exists())
    os.rename(partial, target)
    return target


try:
    from rosbags import interfaces
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores
    from rosbags.typesys.store import Typestore
except ImportError as error:
    MISSING: str | None = f'bags need the Python package rosbags (pip install rosbags): {error}'
else:
    MISSING = None


class BagError(OSError):
    """A bag cannot be written; the message is one line."""


class BagFile:
    """Writes an MCAP bag in a hidden folder beside `path`, and renames it at the end."""

    def __init__(self, path: str | Path, keep_remains: bool = False) -> None:
        """
        Open the bag; raises BagError if `path` exists, or rosbags or the folder is missing.

        The unfinished bag of an earlier run is removed. With `keep_remains` it is made readable
        and renamed to `remains`.
        """
        if MISSING:
            raise BagError(MISSING)
        self.path = Path(path)
        if self.path.exists():
            raise BagError(f'{self.path}: exists already and is not overwritten')
        # rosbags names the file after its folder, so the folder already has the final name.
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
        Add a topic, once.

        :param topic: full name
        :param message_type: such as ``vision_msgs/msg/Detection2DArray``
        :param store: has the definition of the type, which is written into the bag
        :param qos: profile for the playback of the topic
        """
        self._connections[topic] = self._writer.add_connection(
            topic, message_type, typestore=store, offered_qos_profiles=[qos])
        self.counts[topic] = 0

    def write(self, topic: str, data: bytes | memoryview, time_ns: int) -> None:
        """Append a CDR-serialised message, received at `time_ns` (ns); raises BagError."""
        with self._one_line():
            self._writer.write(self._connections[topic], time_ns, data)
        self.counts[topic] += 1
        self._unwritten = True

    def flush(self) -> None:
        """Write all messages to the disk as a chunk; raises BagError."""
        if not self._unwritten:
            return
        # rosbags closes a chunk only at one MiB, and has no public call to close it.
        storage: Any = self._writer.storage
        with self._one_line():
            storage.close_chunk()
            storage.bio.flush()
        self._unwritten = False

    def close(self) -> None:
        """Finish and rename the bag, unless it failed before; raises BagError."""
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
    """Return a QoS profile for `BagFile.connect`; the numbers of policies are those of rmw."""
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


def typestore_with(definitions: Mapping[str, str]) -> Typestore:
    """Return rosbags' latest types and `definitions`, the text of a .msg file by type name."""
    store = get_typestore(Stores.LATEST)
    types = {}
    for name, text in definitions.items():
        types.update(get_types_from_msg(text, name))
    store.register({name: fields for name, fields in types.items()
                    if name not in store.fielddefs})
    return store


@lru_cache(maxsize=1)
def vision_typestore() -> Typestore:
    """Return rosbags' latest types and the types of vision_msgs for detections."""
    return typestore_with({f'vision_msgs/msg/{name}': f'{fields}\n'
                           for name, fields in VISION_FIELDS.items()})


# MPEG-4 part 2 is the best codec in every build of OpenCV; H.264 needs a licensed build. It is
# cheap enough to run next to the detector.
CODEC = 'mp4v'

#: Frames from which a video's rate is measured; they are written when it is known.
RATE_FRAMES = 11
FALLBACK_RATE = 10.0  #: Rate of a video that is too short to measure, Hz
FASTEST = 240.0  #: Highest rate, Hz; a burst of images would give a rate that no player can keep


class VideoError(OSError):
    """A video cannot be written; the message is one line."""


class VideoWriter:
    """
    Writes a video at `path` with '.part' before its suffix, and renames it at the end.

    All pictures get the size of the first. A picture of another size is scaled to fit and centred
    on black.
    """

    def __init__(self, path: str | Path, rate: float) -> None:
        """Plan a video of `rate` pictures per second; the file is opened by the first write."""
        self.path = Path(path)
        # An absolute path, because FFmpeg reads text before a colon as a protocol.
        self._partial = self.path.absolute().with_suffix(f'.part{self.path.suffix}')
        # MPEG-4 divides a second into at most 65535 parts; OpenCV uses three decimals of a rate.
        self._rate = rate if rate < 65.0 else round(rate, 2 if rate < 655.0 else 1)
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self.written = 0

    def write(self, image: np.ndarray) -> None:
        """Append `image` (BGR, uint8, (H, W, 3)); raises VideoError."""
        size = (image.shape[1], image.shape[0])
        if self._writer is None:
            self._writer = self._encoder(self._partial, size)
            self._size = size
        self._check()
        if size != self._size:
            image = _fit(image, self._size)
        self._writer.write(image)
        self.written += 1

    def close(self) -> None:
        """
        Finish and rename the file; without a picture there is no file.

        Raises VideoError if the file is incomplete, which then keeps its partial name.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        self._verify()
        os.replace(self._partial, self.path)

    def _check(self) -> None:
        """Raise VideoError if a write has failed already."""

    def _verify(self) -> None:
        """Raise VideoError unless all pictures are in the file, as OpenCV reports no error."""
        capture = cv2.VideoCapture(str(self._partial))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found < self.written:
            raise VideoError(f'{self.path}: {found} of {self.written} pictures were written; '
                             'is the disk full?')

    def _encoder(self, path: Path, size: tuple[int, int]) -> cv2.VideoWriter:
        """Open OpenCV's encoder for (width, height); raises VideoError."""
        try:
            str(path).encode()
        except UnicodeEncodeError:  # OpenCV would end the process.
            raise VideoError(f'{cut(self.path)}: the name of a video must be UTF-8') from None
        writer = cv2.VideoWriter(
            str(path), cv2.VideoWriter.fourcc(*CODEC), self._rate, size)
        if not writer.isOpened():
            raise VideoError(f'{self.path}: this OpenCV cannot write a {CODEC} video of '
                             f'{size[0]} x {size[1]} pixels there')
        return writer


def measured_rate(stamps: Sequence[int]) -> float:
    """Return the rate of stamps (ns), Hz to two decimals, at most `FASTEST`."""
    steps = [later - earlier for earlier, later in zip(stamps, stamps[1:]) if later > earlier]
    if not steps:
        return FALLBACK_RATE
    return min(FASTEST, max(0.01, round(1e9 / statistics.median(steps), 2)))


def _fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    factor = min(width / image.shape[1], height / image.shape[0])
    inner = (max(1, int(image.shape[1] * factor)), max(1, int(image.shape[0] * factor)))
    canvas = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas[top:top + inner[1], left:left + inner[0]] = cv2.resize(
        image, inner, interpolation=cv2.INTER_AREA)
    return canvas


_BLOCK = 65536  #: Bytes of one read from the pipe, which is its capacity (man 7 pipe)


class StreamedVideoWriter(VideoWriter):
    """
    Writes a Matroska file that loses at most the last second if the process is killed.

    For a regular file, OpenCV's FFmpeg buffers 256 KiB, more than a minute of a calm scene. To a
    pipe it writes at once, in clusters of a second. So it writes to a pipe, and a thread copies
    the data to the file. The file has no index, so players must read it to seek.
    """

    def __init__(self, path: str | Path, rate: float) -> None:
        """Plan a video as `VideoWriter` does; `path` ends in ``.mkv``."""
        super().__init__(path, rate)
        self._thread: Thread | None = None
        self._problem: OSError | None = None

    def _encoder(self, path: Path, size: tuple[int, int]) -> cv2.VideoWriter:
        with ExitStack() as opened:
            try:
                target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                opened.callback(os.close, target)
                with TemporaryDirectory() as folder:
                    pipe = Path(folder) / path.name
                    os.mkfifo(pipe)
                    # Without O_NONBLOCK, open would wait for a writer, which may never come.
                    source = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
                    opened.callback(os.close, source)
                    writer = super()._encoder(pipe, size)
            except VideoError:
                raise
            except OSError as error:
                raise VideoError(f'{self.path}: cannot write: {error.strerror or error}') from None
            opened.pop_all()
        os.set_blocking(source, True)
        self._thread = Thread(target=self._carry, args=(source, target), daemon=True)
        self._thread.start()
        return writer

    def _carry(self, source: int, target: int) -> None:
        """Copy until the encoder ends; after an error, only empty the pipe."""
        while block := os.read(source, _BLOCK):
            try:
                while block and self._problem is None:
                    block = block[os.write(target, block):]
            except OSError as error:
                self._problem = error
        try:
            os.fsync(target)
        except OSError as error:
            self._problem = self._problem or error
        with suppress(OSError):
            os.close(target)
        os.close(source)

    def _check(self) -> None:
        if self._problem is not None:
            raise VideoError(f'{self.path}: cannot be written: '
                             f'{self._problem.strerror or self._problem}')

    def _verify(self) -> None:
        if self._thread is not None:
            self._thread.join()
        self._check()
