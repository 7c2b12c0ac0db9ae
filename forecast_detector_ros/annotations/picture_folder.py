# SPDX-License-Identifier: Apache-2.0
"""Find pictures by the names that a file of annotations gives them, within one folder."""

from __future__ import annotations

from functools import lru_cache
import os
from pathlib import Path

from .findings import DataError, Kind
from ..errors import cut

#: Bytes of a name and of a path (NAME_MAX and PATH_MAX of Linux).
_MOST_NAME, _MOST_PATH = 255, 4096


class PictureFolder:
    """A folder that pictures are looked for in; with `outside` also where their names lead to."""

    def __init__(self, root: str | Path, outside: bool = False) -> None:
        """Take a folder, which need not exist."""
        self.root = Path(root)
        self._outside = outside
        self._real_root = os.path.realpath(self.root)
        # Thousands of pictures lie in one folder.
        self._real_folder = lru_cache(maxsize=1024)(os.path.realpath)

    def place(self, name: str, where: str) -> Path:
        """
        Return the path of a picture, which need not exist.

        :param name: relative to the folder
        :param where: the file and the entry, for the message
        :raises DataError: the name can be that of no file, or it leads out of the folder: by
            ``..``, from the root of the file system, or by a symbolic link
        """
        path = self.root / name
        if ('\0' in name or len(os.fsencode(path)) >= _MOST_PATH
                or any(len(os.fsencode(part)) > _MOST_NAME for part in path.parts)):
            raise DataError(f'{where}: file_name {cut(name)!r} cannot be the name of a file')
        if not self._outside and not self._is_inside(path):
            raise DataError(f'{where}: file_name {cut(name)!r} leads out of {self.root}; '
                            '--outside allows that, or outside: true in a recipe', Kind.OUTSIDE)
        return path

    def _is_inside(self, path: Path) -> bool:
        if path.name == '..' or os.path.islink(path):
            real = os.path.realpath(path)
        else:
            real = os.path.join(self._real_folder(path.parent), path.name)
        return os.path.commonpath((real, self._real_root)) == self._real_root
