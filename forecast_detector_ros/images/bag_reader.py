# SPDX-License-Identifier: Apache-2.0
"""
A reader of bags that tolerates unusable definitions of message types and truncated files.

Some recorders write definitions that rosbags refuses. These have the encoding ``unknown``, as for
events of services and feedback of actions, lack a nested type, or do not fit the topic's hash.
AnyReader then cannot open the bag. This module needs rosbags.
"""
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import suppress
from heapq import merge
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores
from rosbags.typesys.store import Typestore

from ..errors import one_line

_HASH = 'RIHS01_'  #: Start of the hash of a ROS 2 type; recorders write other texts for no hash
_ANY_SUM = '*'  #: Checksum of ROS 1 for a topic of any type
_IDL_HEAD = '=' * 80 + '\nIDL: '  #: Before the name and the text of a type in a definition


class BagReader(AnyReader):
    """
    AnyReader that parses the definition of a type only when its messages are read.

    :param default: types for ROS 2 topics without a usable definition in the bag
    """

    Error = AnyReaderError  #: Error of the methods; its message is one line

    def __init__(self, paths: Sequence[Path], default: Typestore) -> None:
        super().__init__(paths, default_typestore=default)
        if self.is2:
            # It uses private names of rosbags, which other versions may lack.
            with suppress(ImportError):
                from .bag_storages import TolerantReader
                self.readers = [TolerantReader(path) for path in paths]
        self._default = default
        self._stores: dict[tuple[Any, ...], Typestore] = {}
        self._broken: list[str] = []

    def _open(self) -> None:
        """Open the files, but unlike AnyReader parse no definitions."""
        assert self.stack is not None
        for reader in self.readers:
            self.stack.enter_context(reader)
        self.connections = [item for reader in self.readers for item in reader.connections]

    def messages(self, connections: Collection[Connection] = (), start: int | None = None,
                 stop: int | None = None
                 ) -> Generator[tuple[Connection, int, bytes], None, None]:
        """Read messages in the order of their stamps; see `take_broken`."""
        owners: dict[int, list[Connection]] = {}
        for connection in connections or self.connections:
            owners.setdefault(id(connection.owner), []).append(connection)
        parts = []
        for group in owners.values():
            owner: Any = group[0].owner
            parts.append(until_broken(owner.messages(group, start, stop), owner.path,
                                      self._broken))
        yield from merge(*parts, key=lambda item: item[1])

    def take_broken(self) -> list[str]:
        """Return and clear the lines about files in which `messages` found damage."""
        lines = self._broken.copy()
        self._broken.clear()
        for connection in self.connections:
            broken: list[str] = getattr(connection.owner, 'broken', [])
            lines += broken
            broken.clear()
        return lines

    def describe(self, connection: Connection) -> Typestore:
        """Return a typestore with the type of a topic; raises AnyReaderError if there is none."""
        key = (connection.msgtype, connection.msgdef, connection.digest)
        if key not in self._stores:
            self._stores[key] = self._described(connection)
        return self._stores[key]

    def message(self, connection: Connection, data: bytes) -> Any:
        """Deserialise a message; raises AnyReaderError if the bytes do not fit the type."""
        self.typestore = self.describe(connection)
        return self.deserialize(data, connection.msgtype)

    def _described(self, connection: Connection) -> Typestore:
        problem = 'the bag has none'
        if connection.msgdef.data.strip():
            # The parsers raise various errors for a malformed text.
            try:
                store = get_typestore(Stores.EMPTY)
                store.register(_types(connection))
                self._check(store, connection)
                return store
            except Exception as error:
                problem = one_line(error)
        if self.is2:
            with suppress(Exception):
                self._check(self._default, connection)
                return self._default
        raise AnyReaderError(f'no usable definition of {connection.msgtype}: {problem}')

    def _check(self, store: Typestore, connection: Connection) -> None:
        """Raise AnyReaderError if `store` lacks a part of a type, or the hash does not fit."""
        kind, digest = connection.msgtype, connection.digest
        try:
            found = store.hash_rihs01(kind) if self.is2 else store.generate_msgdef(kind)[1]
        except KeyError as error:
            raise AnyReaderError(f'it lacks {error}') from None
        known = digest.startswith(_HASH) if self.is2 else digest not in ('', _ANY_SUM)
        if known and digest != found:
            raise AnyReaderError(f'it does not fit its hash {digest}')


def until_broken(messages: Iterable[tuple[Connection, int, bytes]], file: Path,
                 broken: list[str]) -> Generator[tuple[Connection, int, bytes], None, None]:
    """
    Yield messages up to the first error of the file, and append a line about it to `broken`.

    Only the rest of the file is lost.
    """
    count = 0
    try:
        for message in messages:
            yield message
            count += 1
    except Exception as error:
        broken.append(f'{file}: breaks off after {count} messages: {one_line(error)}')


def _types(connection: Connection) -> dict[str, Any]:
    """Parse the definition of a topic's type; raises the errors of the parsers."""
    kind, definition = connection.msgtype, connection.msgdef
    if definition.format == MessageDefinitionFormat.MSG:
        return get_types_from_msg(definition.data, kind)
    # A line with the name precedes each type; for a single type it is optional.
    first, *others = definition.data.split(_IDL_HEAD)
    types: dict[str, Any] = {}
    for text in filter(str.strip, (first, *(part.partition('\n')[2] for part in others))):
        types.update(get_types_from_idl(text))
    return types
