# SPDX-License-Identifier: Apache-2.0
"""
Read the images of a bag in the order in which they were recorded, without ROS.

rosbags reads MCAP and sqlite3 bags of ROS 2, as folders or single files, split or compressed,
and ``.bag`` files of ROS 1. After a recorder was killed, complete files are read, sqlite3 files
with their log, and truncated MCAP files up to their end. `ImageBag.losses` lists what is lost.
"""
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
import re
import shutil
import sqlite3
import struct
from tempfile import TemporaryDirectory
from typing import Any

from .frame import Frame, SourceError
from .image_messages import compressed_frame, image_frame, MAX_IMAGE_PIXELS
from ..errors import cut, one_line

MAGIC = b'\x89MCAP0\r\n'
_HEAD = struct.Struct('<BQ')  #: Operation code and length of the content; starts each record
_DATA_END, _FOOTER = 0x0F, 0x02

_END = (_HEAD.pack(_DATA_END, 4) + bytes(4)  # No checksum,
        + _HEAD.pack(_FOOTER, 20) + bytes(20)  # no summary.
        + MAGIC)


def whole_length(file: Path) -> int:
    """
    Return the number of bytes of complete data records of an MCAP file; 0 for another file.

    Raises OSError.
    """
    size = file.stat().st_size
    with file.open('rb') as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            return 0
        position = len(MAGIC)
        while True:
            stream.seek(position)
            head = stream.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return position
            operation, length = _HEAD.unpack(head)
            end = position + _HEAD.size + length
            # A file system leaves zeros in a block that was not written.
            if operation in (0, _DATA_END, _FOOTER) or end > size:
                return position
            position = end


def mend(file: Path) -> int:
    """
    Cut an MCAP file after its complete records, and write its end, in place.

    Returns the number of removed bytes, 0 for a complete file. Raises OSError.
    """
    size, length = file.stat().st_size, whole_length(file)
    with file.open('r+b') as stream:
        stream.seek(-min(size, len(MAGIC)), 2)
        if size > len(MAGIC) and stream.read() == MAGIC:
            return 0
        stream.truncate(length)
        stream.seek(length)
        stream.write(_END if length else b'')
    return size - length


def salvage(file: Path, target: Path) -> int:
    """
    Copy the complete records of an MCAP file, and write the end of the copy.

    Returns the number of bytes that were not copied. Raises OSError.
    """
    length = whole_length(file)
    shutil.copyfile(file, target)
    with target.open('r+b') as copy:
        copy.truncate(length)
        copy.seek(length)
        copy.write(_END)
    return file.stat().st_size - length


def log_of(file: Path) -> Path | None:
    """
    Return the log beside a sqlite3 file; None for another file or an empty log.

    sqlite3 moves the log into the file when it is closed. A killed recorder leaves the log.
    """
    log = file.with_name(f'{file.name}-wal')
    return log if file.suffix == '.db3' and log.is_file() and log.stat().st_size else None


def merge_log(file: Path, log: Path, target: Path) -> None:
    """
    Copy a sqlite3 file, and merge its log into the copy.

    Raises SourceError if the log has no complete page; OSError or sqlite3.Error.
    """
    shutil.copyfile(file, target)
    shutil.copyfile(log, target.with_name(f'{target.name}-wal'))
    with closing(sqlite3.connect(target)) as database:
        _, pages, moved = database.execute('PRAGMA wal_checkpoint(FULL)').fetchone()
    if pages < 1 or moved < pages:
        raise SourceError(f'{max(moved, 0)} pages are whole')


#: Message types of pictures, and the function that makes a frame of each.
FRAME_MAKERS: dict[str, Callable[..., Frame]] = {
    'sensor_msgs/msg/Image': image_frame,
    'sensor_msgs/msg/CompressedImage': compressed_frame}
STORAGE_SUFFIXES = ('.mcap', '.db3')  #: Files of a ROS 2 bag
#: File that the recorder writes at its end; it is missing if the recorder was killed.
METADATA_NAME = 'metadata.yaml'
NANOSECONDS = 10 ** 9


@dataclass(frozen=True)
class ImageTopic:
    """A topic of a bag with pictures."""

    name: str
    kind: str  #: ``Image``, ``CompressedImage``, or both with a slash between them
    count: int  #: Number of messages by the index of the bag


@dataclass(frozen=True)
class BagImage:
    """One image message."""

    topic: str
    stamp_ns: int  #: Time of recording, nanoseconds since 1970
    header_stamp_ns: int  #: Stamp of its header, nanoseconds of the publisher's clock
    frame_id: str  #: frame_id of its header
    message_type: str  #: A key of `FRAME_MAKERS`
    message: Any  #: Message with the fields of sensor_msgs; `data` is an array of uint8

    def frame(self, max_pixels: int = MAX_IMAGE_PIXELS) -> Frame:
        """
        Make a frame without decoding the image.

        Raises FrameError for an invalid header or more than `max_pixels` pixels.
        """
        return FRAME_MAKERS[self.message_type](self.message, max_pixels=max_pixels)


class ImageBag:
    """
    A bag that is open for its pictures; use it in a ``with`` statement, or close it.

    `topics` has the `ImageTopic` of each topic with pictures, by name. `losses` has one line for
    each file or message that could not be read, and grows while `images` runs.

    :param path: folder of a ROS 2 bag, one of its ``.mcap`` or ``.db3`` files, or a ``.bag`` of
        ROS 1
    :param typestore: typestore of rosbags for types without a definition in the bag; None: the
        latest
    :raises SourceError: if rosbags is missing, there is no such bag, or no file of it can be read
    """

    def __init__(self, path: Path, typestore: Any = None) -> None:
        self.path = path
        self.losses: list[str] = []
        self._scratch = ExitStack()
        try:
            self._reader = _open(path, self.losses, self._scratch, typestore)
        except BaseException:
            self._scratch.close()
            raise
        self._connections: dict[str, list[Any]] = {}
        self._undefined: dict[str, str] = {}
        for connection in self._reader.connections:
            if connection.msgtype in FRAME_MAKERS:
                try:
                    self._reader.describe(connection)
                except self._reader.Error as error:
                    self._undefined[connection.topic] = (
                        f'{path}: {connection.topic} cannot be read: {one_line(error)}')
                else:
                    self._connections.setdefault(connection.topic, []).append(connection)
        self.losses.extend(self._undefined.values())
        self.topics = {
            name: ImageTopic(name, '/'.join(sorted({item.msgtype.rpartition('/')[2]
                                                    for item in connections})),
                             sum(item.msgcount for item in connections))
            for name, connections in sorted(self._connections.items())}

    def choose(self, topic: str | None = None) -> str:
        """
        Return the full name of an image topic.

        :param topic: name with or without the leading slash; None for the only image topic
        :raises SourceError: if there is no such topic, or if `topic` is None and there is not
            exactly one; the message lists the topics
        """
        listed = ', '.join(f'{item.name} ({item.count} {item.kind})'
                           for item in self.topics.values())
        if topic is not None:
            for name in (topic, f'/{topic}'):
                if name in self.topics:
                    return name
                if name in self._undefined:
                    raise SourceError(self._undefined[name])
            raise SourceError(f'{self.path}: no image topic {topic!r}; there is '
                              f'{listed or "none at all"}')
        filled = [name for name, item in self.topics.items() if item.count]
        if not filled and self._undefined:
            raise SourceError(next(iter(self._undefined.values())))
        if not filled:
            others = sorted({item.topic for item in self._reader.connections})
            raise SourceError(f'{self.path}: holds no images; topics are '
                              f'{", ".join(others) or "none"}')
        if len(filled) > 1:
            raise SourceError(f'{self.path}: has several image topics, name one of them: {listed}')
        return filled[0]

    def images(self, topics: Sequence[str]) -> Iterator[BagImage]:
        """
        Yield the images of some topics in the order in which they were recorded.

        Malformed messages, and the part of a file after a damage, are left out and noted in
        `losses`.

        :param topics: names in `topics`
        """
        wanted = [item for name in topics for item in self._connections[name]]
        if not wanted:
            return
        for read, (connection, stamp_ns, data) in enumerate(self._reader.messages(wanted), 1):
            try:
                message = self._reader.message(connection, data)
            except self._reader.Error as error:
                self.losses.append(f'{self.path}: image {read} of {connection.topic} is broken: '
                                   f'{one_line(error)}')
                continue
            stamp = message.header.stamp
            yield BagImage(connection.topic, stamp_ns, stamp.sec * NANOSECONDS + stamp.nanosec,
                           message.header.frame_id, connection.msgtype, message)
        self.losses += self._reader.take_broken()

    def messages(self, topic: str, message_type: str) -> list[Any]:
        """
        Return the messages of a topic with any type of message.

        Unreadable messages are left out.

        :raises SourceError: if there is no such topic, or no usable definition of its type
        """
        wanted = [item for item in self._reader.connections
                  if item.topic == topic and item.msgtype == message_type]
        if not wanted:
            listed = ', '.join(sorted({item.topic for item in self._reader.connections
                                       if item.msgtype == message_type}))
            raise SourceError(f'{self.path}: no topic {topic} with {message_type}; there is '
                              f'{listed or "none"}')
        for item in wanted:
            try:
                self._reader.describe(item)
            except self._reader.Error as error:
                raise SourceError(f'{self.path}: {topic} cannot be read: '
                                  f'{one_line(error)}') from None
        found = []
        for connection, _, data in self._reader.messages(wanted):
            with suppress(Exception):
                found.append(self._reader.message(connection, data))
        self._reader.take_broken()
        return found

    def close(self) -> None:
        """Close the files; images that were read stay valid."""
        self._reader.close()
        self._scratch.close()

    def __enter__(self) -> 'ImageBag':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_bag(path: Path) -> bool:
    """Return whether `path` is a bag, by its name or the names in the folder."""
    if path.is_dir():
        return (path / METADATA_NAME).is_file() or bool(_storage_files(path))
    return path.suffix in (*STORAGE_SUFFIXES, '.bag')


def _open(path: Path, losses: list[str], scratch: ExitStack, typestore: Any) -> Any:
    """
    Return a reader of a bag or its readable files; appends to `losses`; raises SourceError.

    `scratch` owns the temporary copies that the reader needs until it is closed.
    """
    try:
        from .bag_reader import BagReader
        from rosbags.typesys import get_typestore, Stores
    except ImportError as error:
        raise SourceError('bags need the Python package rosbags (pip install rosbags): '
                          f'{error}') from None
    try:
        if not path.exists():
            raise SourceError(f'{path}: no such bag')
        if not is_bag(path):
            raise SourceError(f'{path}: is no bag; a bag is a folder with {METADATA_NAME}, or a '
                              f'file *{", *".join(STORAGE_SUFFIXES)} or *.bag')
    except OSError as error:
        raise SourceError(f'{cut(path)}: cannot be read: {error.strerror}') from None

    def opened(paths: list[Path]) -> Any:
        # Bags from before Iron have no definitions, but those of images never changed.
        reader = BagReader(paths, typestore or get_typestore(Stores.LATEST))
        reader.open()
        return reader

    problem = f'{METADATA_NAME} is missing'
    files = _storage_files(path) if path.is_dir() else [path]
    # The metadata of a folder do not count the messages in logs.
    if not any(map(log_of, files)) and (not path.is_dir() or (path / METADATA_NAME).is_file()):
        try:
            return opened([path])
        except Exception as error:  # rosbags and its libraries raise various errors.
            problem = one_line(error)
    whole, broken = [], []
    for file in files:
        found, lost = _readable(file, opened, scratch)
        whole += found
        broken += lost
    with suppress(Exception):
        if whole:
            reader = opened(whole)
            losses.extend(broken or [f'{path}: its recording did not end well: {problem}'])
            return reader
    raise SourceError(broken[0] if broken else f'{path}: cannot be read: {problem}')


def _readable(file: Path, opened: Callable[[list[Path]], Any],
              scratch: ExitStack) -> tuple[list[Path], list[str]]:
    """Return the file, a repaired copy, or nothing; and a line for each loss."""
    lost = []
    log = log_of(file)
    if log is not None:
        try:
            return _rest(file, opened, scratch)
        except Exception as error:
            lost.append(f'{log}: cannot be read, and its messages are lost: {one_line(error)}')
    try:
        opened([file]).close()
        return [file], lost
    except Exception as error:
        lost.insert(0, f'{file}: cannot be read: {one_line(error)}')
    if file.suffix == '.mcap':
        with suppress(Exception):
            return _rest(file, opened, scratch)
    return [], lost


def _rest(file: Path, opened: Callable[[list[Path]], Any],
          scratch: ExitStack) -> tuple[list[Path], list[str]]:
    """Return a repaired copy of a file of a killed recorder, in `scratch`; raises any error."""
    with ExitStack() as kept:
        copy = Path(kept.enter_context(TemporaryDirectory())) / file.name
        log = log_of(file)
        if log is None:
            words = f'its last {salvage(file, copy)} bytes are lost'
        else:
            merge_log(file, log, copy)
            words = f'with {log.name}'
        with closing(opened([copy])) as reader:
            count = reader.message_count
        if not count and log is None:
            raise SourceError('no message is left')
        scratch.enter_context(kept.pop_all())
    return [copy], [f'{file}: was not closed; {words}, {count} messages are left']


def _storage_files(folder: Path) -> list[Path]:
    """Return the files of a bag in natural order, 9 before 10."""
    files = [file for file in folder.iterdir()
             if file.suffix in STORAGE_SUFFIXES and file.is_file()]
    return sorted(files, key=lambda file: [int(part) if part.isdecimal() else 0
                                           for part in re.split(r'(\d+)', file.name)])
