# SPDX-License-Identifier: Apache-2.0
"""
Storages of ROS 2 bags that ignore definitions of an unknown encoding.

rosbags cannot open a bag with such a definition, and does not read the files after a truncated
one. This module needs rosbags.
"""
from collections.abc import Collection, Generator
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.rosbag2.metadata import parse_qos, ReaderMetadata
from rosbags.rosbag2.reader import DirectoryReader, Reader
from rosbags.rosbag2.storage_mcap import McapReader, Schema
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from .bag_reader import until_broken

_FORMATS = {'ros2msg': MessageDefinitionFormat.MSG, 'ros2idl': MessageDefinitionFormat.IDL,
            'omgidl': MessageDefinitionFormat.IDL}
_NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, '')


class _Schemas(dict[int, Schema]):
    """Schemas of a file, without definitions of an encoding that rosbags does not know."""

    def __setitem__(self, key: int, schema: Schema) -> None:
        if schema.encoding not in _FORMATS:
            schema = schema._replace(encoding='', data='')
        super().__setitem__(key, schema)


class _Mcap(McapReader):
    """McapReader that ignores definitions of an unknown encoding."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.schemas = _Schemas()

    def messages(self, connections: Collection[Connection], start: int | None = None,
                 stop: int | None = None
                 ) -> Generator[tuple[Connection, int, bytes], None, None]:
        """Yield messages in the order of their stamps, also for a file without an index."""
        if self.chunks:
            yield from super().messages(connections, start, stop)
            return
        stamps = []
        # The second scan reports the end of a truncated file.
        with suppress(Exception):
            for _, stamp, _ in self.messages_scan(connections, start, stop):
                stamps.append(stamp)
        ranks = np.empty(len(stamps), np.int64)
        ranks[np.argsort(stamps, kind='stable')] = np.arange(len(stamps))
        # Only early messages are kept in memory; a recorder writes messages nearly in order.
        early: dict[int, tuple[Connection, int, bytes]] = {}
        due = 0
        for message, rank in zip(self.messages_scan(connections, start, stop), ranks.tolist()):
            early[rank] = message
            while due in early:
                yield early.pop(due)
                due += 1


class _Sqlite3(Sqlite3Reader):
    """Sqlite3Reader that ignores definitions of an unknown encoding."""

    def open(self) -> None:  # noqa: A003
        """Open the file with a quoted name, because rosbags puts the name into a URI."""
        path, self.path = self.path, Path(quote(str(self.path)))
        try:
            super().open()
        finally:
            self.path = path

    def _open(self) -> None:
        with suppress(KeyError):  # rosbags does not know the encoding of a definition.
            super()._open()
            return
        # Only files of Iron and later have definitions.
        assert self.dbconn is not None
        rows: Any = self.dbconn.execute(
            'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions '
            'ORDER BY id DESC')
        definitions = {kind: MessageDefinition(_FORMATS[encoding], text)
                       for kind, encoding, text in rows if encoding in _FORMATS}
        rows = self.dbconn.execute(
            'SELECT topics.id, name, type, type_description_hash, count(messages.id), '
            'serialization_format, offered_qos_profiles '
            'FROM topics LEFT JOIN messages ON topics.id == messages.topic_id '
            'GROUP BY topics.id ORDER BY topics.id')
        self.connections = [
            Connection(number, topic, kind, definitions.get(kind, _NO_DEFINITION), digest, count,
                       ConnectionExtRosbag2(serialization, parse_qos(qos)), self)
            for number, topic, kind, digest, count, serialization, qos in rows]
        rows = self.dbconn.execute('SELECT MIN(timestamp), MAX(timestamp), COUNT(*) FROM messages')
        (first, last, count), = rows
        if count:
            self.metadata = ReaderMetadata(last + 1 - first, first, last + 1, count,
                                           None, None, None, None)


class _Directory(DirectoryReader):
    """DirectoryReader that continues after a truncated file."""

    STORAGE_PLUGINS = {'mcap': _Mcap, 'sqlite3': _Sqlite3}

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.broken: list[str] = []  #: One line for each truncated file

    def messages(self, connections: Collection[Connection], start: int | None = None,
                 stop: int | None = None
                 ) -> Generator[tuple[Connection, int, bytes], None, None]:
        """Yield the messages of each file in turn."""
        for storage in self.storages:
            part = copy(self)
            part.storages = [storage]
            file: Any = storage
            yield from until_broken(DirectoryReader.messages(part, connections, start, stop),
                                    self.path / file.path.name, self.broken)


class TolerantReader(Reader):
    """Reader of an MCAP or sqlite3 bag, a folder or a single file."""

    STORAGE_PLUGINS = {'dir': _Directory, '.mcap': _Mcap, '.db3': _Sqlite3}
