# SPDX-License-Identifier: Apache-2.0
"""Find the folders with pictures in them, and the order of the pictures."""

from collections.abc import Sequence
from pathlib import Path
import re
from typing import Any

from .teacher import TeacherError

#: Pictures are the files with these endings, upper or lower case.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def picture_folders(root: Path, names: Sequence[str] = ()) -> dict[str, list[Path]]:
    """
    Find the folders with pictures in them.

    :param root: searched with all folders below it
    :param names: only these folders, relative to `root`, with those below them; empty for all
    :returns: pictures in the order of their names, numbers in them by value; by folder relative to
        `root`. A last part ``frames`` is left out of a folder's name.
    :raises TeacherError: if a folder does not exist or there are no pictures
    """
    found: dict[Path, set[Path]] = {}
    for start in ([root / name for name in names] or [root]):
        if not start.is_dir():
            raise TeacherError(f'{start}: no such folder')
        pictures = [path for path in start.rglob('*')
                    if path.suffix.lower() in SUFFIXES and path.is_file()]
        if not pictures:
            raise TeacherError(f'{start}: no pictures ({", ".join(SUFFIXES)}) here')
        for path in pictures:
            found.setdefault(path.parent, set()).add(path)
    folders = {}
    for folder in sorted(found):
        named = folder
        if folder.name == 'frames' and folder != root and folder.parent not in found:
            named = folder.parent
        name = named.relative_to(root).as_posix() if named != root else root.resolve().name
        folders[name] = sorted(found[folder], key=_natural)
    return folders


def _natural(path: Path) -> list[Any]:
    """Order frame10 behind frame9."""
    parts = re.split(r'(\d+)', path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]
