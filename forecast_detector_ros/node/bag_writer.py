# SPDX-License-Identifier: Apache-2.0
"""
Write messages of an installed ROS into a bag.

The bag contains the definitions of the message packages in use, found beside their Python modules,
and their type hashes. So any MCAP reader can decode the bag.
"""
from __future__ import annotations

import importlib
from pathlib import Path

from rclpy.qos import QoSProfile

from ..recording.bag_file import bag_qos, BagError, BagFile

try:
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores
    from rosbags.typesys.store import Typestore
except ImportError:
    pass  # Opening the file says so.


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


class BagWriter(BagFile):
    """An MCAP bag in the making that knows rclpy's message classes and QoS profiles."""

    def __init__(self, path: str | Path) -> None:
        """Open the bag; raises BagError when `path` exists, or rosbags or a folder is missing."""
        super().__init__(path, keep_remains=True)
        self._store = typestore_with('vision_msgs')

    def add_topic(self, topic: str, message_class: type, qos: QoSProfile) -> None:
        """Announce a topic with the QoS to play it back with; every topic comes once."""
        package, _, _ = message_class.__module__.partition('.msg.')
        self.connect(topic, f'{package}/msg/{message_class.__name__}', self._store,
                     bag_qos(int(qos.history), qos.depth, int(qos.reliability),
                             int(qos.durability)))
