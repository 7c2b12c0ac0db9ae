# SPDX-License-Identifier: Apache-2.0
"""
A reader of bags that no odd definition of a message type stops, and no file that breaks off.

Recorders write definitions that rosbags refuses: of the encoding ``unknown`` for types without a
.msg file (events of services, feedback of actions), without a nested type, or with another hash
than the topic's. AnyReader then opens nothing of the bag. Import this only where rosbags is
installed.
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

_HASH = 'RIHS01_'  #: What a hash of a ROS 2 type starts with; recorders write others for none
_ANY_SUM = '*'  #: Of ROS 1: a topic of any type
_IDL_HEAD = '=' * 80 + '\nIDL: '  #: Before the name and the text of a type in a definition


class BagReader(AnyReader):
    """
    AnyReader that asks for the definition of a type only when its messages are read.

    :param default: for ROS 2 types that the bag does not define in a way that can be used
    """

    Error = AnyReaderError  #: What the methods raise; its message is one line

    def __init__(self, paths: Sequence[Path], default: Typestore) -> None:
        super().__init__(paths, default_typestore=default)
        if self.is2:
            # They use names inside rosbags, which another version may lack.
            with suppress(ImportError):
                from .bag_storages import TolerantReader
                self.readers = [TolerantReader(path) for path in paths]
        self._default = default
        self._stores: dict[tuple[Any, ...], Typestore] = {}
        self._broken: list[str] = []

    def _open(self) -> None:
        """Open the files; AnyReader would parse the definitions of all topics, too."""
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
        """Return a line for each file that broke off while `messages` read it, once."""
        lines = self._broken.copy()
        self._broken.clear()
        for connection in self.connections:
            broken: list[str] = getattr(connection.owner, 'broken', [])
            lines += broken
            broken.clear()
        return lines

    def describe(self, connection: Connection) -> Typestore:
        """Return a store with the type of a topic; raises AnyReaderError if nothing defines it."""
        key = (connection.msgtype, connection.msgdef, connection.digest)
        if key not in self._stores:
            self._stores[key] = self._described(connection)
        return self._stores[key]

    def message(self, connection: Connection, data: bytes) -> Any:
        """Make a message of its bytes; raises AnyReaderError if they are not of its type."""
        self.typestore = self.describe(connection)
        return self.deserialize(data, connection.msgtype)

    def _described(self, connection: Connection) -> Typestore:
        problem = 'the bag has none'
        if connection.msgdef.data.strip():
            # The parsers raise whatever a text makes them stumble over.
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
        """Raise AnyReaderError if `store` lacks a part of a type, or has another of its hash."""
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
    Yield messages until they cannot be read; then append a line to `broken`.

    Whatever a database or a decompressor raises, the rest of the file alone is lost.
    """
    count = 0
    try:
        for message in messages:
            yield message
            count += 1
    except Exception as error:
        broken.append(f'{file}: breaks off after {count} messages: {one_line(error)}')


def _types(connection: Connection) -> dict[str, Any]:
    """Parse the definition of a topic's type; raises what the parsers raise."""
    kind, definition = connection.msgtype, connection.msgdef
    if definition.format == MessageDefinitionFormat.MSG:
        return get_types_from_msg(definition.data, kind)
    # Several types have a line with the name before each; a single one needs none.
    first, *others = definition.data.split(_IDL_HEAD)
    types: dict[str, Any] = {}
    for text in filter(str.strip, (first, *(part.partition('\n')[2] for part in others))):
        types.update(get_types_from_idl(text))
    return types
