# SPDX-License-Identifier: Apache-2.0
"""
Write serialised messages into an MCAP bag that appears under its name only when it is whole.

The definitions that go into the bag are those of the message packages in use, found beside
their Python modules; with them, and their type hashes, any MCAP reader can decode the bag.
"""
from __future__ import annotations

import importlib
import os
from pathlib import Path
import shutil

from rclpy.qos import QoSProfile

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
    """A bag that cannot be written; the message is one line."""


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


def typestore_with(*packages: str) -> Typestore:
    """Return rosbags' standard types plus all messages of `packages`; raises BagError."""
    store = get_typestore(Stores.LATEST)
    for package in packages:
        types = {}
        for path in sorted(message_folder(package).glob('*.msg')):
            types.update(get_types_from_msg(path.read_text(encoding='utf-8'),
                                            f'{package}/msg/{path.stem}'))
        store.register({name: fields for name, fields in types.items()
                        if name not in store.fielddefs})
    return store


class BagWriter:
    """An MCAP bag in the making, in a hidden folder beside `path`."""

    def __init__(self, path: str | Path) -> None:
        """Open the bag; raises BagError when `path` exists, or rosbags or a folder is missing."""
        if MISSING:
            raise BagError(MISSING)
        self.path = Path(path)
        if self.path.exists():
            raise BagError(f'{self.path}: exists already and is not overwritten')
        # The bag's file is named after its folder, so only the folder's parent is temporary.
        self._partial = self.path.parent / f'.{self.path.name}.part'
        shutil.rmtree(self._partial, ignore_errors=True)
        self._store = typestore_with('vision_msgs')
        self._writer = Writer(self._partial / self.path.name, version=9,
                              storage_plugin=StoragePlugin.MCAP)
        try:
            self._writer.open()
        except OSError as error:
            raise BagError(f'{self.path}: {error.strerror or error}') from None
        self._connections: dict[str, interfaces.Connection] = {}
        self.counts: dict[str, int] = {}

    def add_topic(self, topic: str, message_class: type, qos: QoSProfile) -> None:
        """Announce a topic with the QoS to play it back with; every topic comes once."""
        package, _, name = message_class.__module__.partition('.msg.')
        self._connections[topic] = self._writer.add_connection(
            topic, f'{package}/msg/{message_class.__name__}', typestore=self._store,
            offered_qos_profiles=[_offered(qos)])
        self.counts[topic] = 0

    def write(self, topic: str, data: bytes, time_ns: int) -> None:
        """Append a message, CDR-serialised as it came from the middleware."""
        self._writer.write(self._connections[topic], time_ns, data)
        self.counts[topic] += 1

    def close(self) -> None:
        """Finish the bag and give it its name."""
        self._writer.close()
        os.replace(self._partial / self.path.name, self.path)
        self._partial.rmdir()


def _offered(qos: QoSProfile) -> interfaces.Qos:
    """Translate a QoS profile of rclpy; both number their policies as rmw does."""
    unlimited = interfaces.QosTime(0, 0)
    return interfaces.Qos(
        interfaces.QosHistory(int(qos.history)), qos.depth,
        interfaces.QosReliability(int(qos.reliability)),
        interfaces.QosDurability(int(qos.durability)), unlimited, unlimited,
        interfaces.QosLiveliness.AUTOMATIC, unlimited, False)
