# SPDX-License-Identifier: Apache-2.0
"""
Files and folders at URLs: ``s3://``, ``gs://``, ``file://`` and others of fsspec.

OpenCV, rosbags and safetensors need files, so inputs and outputs are copied through a temporary
folder.
"""
from __future__ import annotations

import atexit
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias
from zipfile import ZipFile

from ..errors import InputError, MissingLibraryError, one_line
from ..files import RESULT_MARK

PICTURES = ('.bmp', '.jpeg', '.jpg', '.png', '.webp')


class LocationError(InputError):
    """A URL cannot be read or written; the message is one line."""


class Url(str):
    """The URL of a file or folder, for fsspec."""

    @property
    def name(self) -> str:
        """Return the last part, as of a `Path`."""
        return PurePosixPath(self.partition('://')[2]).name

    @property
    def parent(self) -> Url:
        """Return the URL without its last part."""
        return Url(self.rstrip('/').rpartition('/')[0])

    @property
    def stem(self) -> str:
        """Return the last part without its suffix."""
        return PurePosixPath(self.name).stem


Location: TypeAlias = Path | Url


def name_of(where: Location) -> str:
    """Return the name of a file or folder, also for ``.``."""
    return where.name if isinstance(where, Url) else where.resolve().name


def location(text: str) -> Location:
    """Return an argument as a URL if it has ``://``, else as a path."""
    return Url(text) if '://' in text else Path(text)


def list_files(url: Url) -> dict[str, str]:
    """
    Return fsspec's name of each file below a URL, by the relative path.

    For the URL of a file, this is the file by its name. Raises LocationError,
    MissingLibraryError.
    """
    system, root = _system(url)
    with _in_one_line(url, 'read'):
        if system.isfile(root):
            return {url.name: root}
        found = {file[len(root):].lstrip('/'): file for file in sorted(system.find(root))}
    if not found:
        raise LocationError(f'{url}: no such file or folder')
    for name in found:
        if '..' in PurePosixPath(name).parts:
            raise LocationError(f'{url}: has a file {name}, which would leave the folder')
    return found


def fetch(url: Url, folder: Path, empty_pictures: bool = False) -> Path:
    """
    Copy a file, or a folder and all its contents.

    :param folder: existing folder of the copy
    :param empty_pictures: create an empty file for each picture, for a `PictureStore`
    :returns: the copy, with the name at the URL
    :raises LocationError: if the URL cannot be read
    :raises MissingLibraryError: if fsspec is not installed
    """
    files = list_files(url)
    here = folder / url.name
    if list(files.values()) == [_system(url)[1]]:
        _copy(url, files, folder)
        return here
    if empty_pictures:
        for name in [name for name in files if name.lower().endswith(PICTURES)]:
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).touch()
            del files[name]
    _copy(url, files, here)
    return here


def _copy(url: Url, files: dict[str, str], folder: Path) -> None:
    system, _ = _system(url)
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with _in_one_line(url, 'read'):
        # All together, because an object store handles many requests in parallel.
        system.get(list(files.values()), [str(folder / name) for name in files])


@dataclass(frozen=True)
class PictureStore:
    """A folder whose pictures are empty files, and are fetched from a URL on demand."""

    folder: Path
    url: Url

    @contextmanager
    def fetched(self, paths: Sequence[Path]) -> Iterator[list[Path]]:
        """
        Yield copies of the pictures at `paths` in the folder, until the context ends.

        An InputError in the context names the URL and not the copy. Raises LocationError.
        """
        root = _system(self.url)[1]
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        with TemporaryDirectory(prefix='forecast_detector_') as folder, _naming(folder, self.url):
            _copy(self.url, {name: f'{root}/{name}' for name in names}, Path(folder))
            yield [Path(folder) / name for name in names]


def put(path: Path, url: Url) -> None:
    """
    Copy a file, or all files below a folder, to a URL; raises LocationError.

    The result of a run replaces an earlier one.
    """
    system, root = _system(url)
    files = {str(path): root}
    if path.is_dir():
        files = {str(item): f'{root}/{item.relative_to(path).as_posix()}'
                 for item in sorted(path.rglob('*')) if item.is_file()}
    with _in_one_line(url, 'written'):
        if (path / RESULT_MARK).is_file() and system.exists(f'{root}/{RESULT_MARK}'):
            system.rm(root, recursive=True)
        for folder in sorted({name.rpartition('/')[0] for name in files.values()} - {''}):
            system.makedirs(folder, exist_ok=True)
        system.put(list(files), list(files.values()))


@contextmanager
def fetched(where: Location) -> Iterator[Path]:
    """
    Yield a path, or for a URL the path of a copy that exists until the context ends.

    An InputError in the context names the URL and not the copy.
    """
    if isinstance(where, Path):
        yield where
        return
    with TemporaryDirectory(prefix='forecast_detector_') as folder:
        path = fetch(where, Path(folder))
        with _naming(str(path), where):
            yield path


@contextmanager
def _naming(copy: str, url: Url) -> Iterator[None]:
    """Replace the path of the copy by the URL in messages of an InputError."""
    try:
        yield
    except InputError as error:
        error.args = tuple(item.replace(copy, url) if isinstance(item, str) else item
                           for item in error.args)
        raise


@cache
def picture_store(url: Url) -> PictureStore:
    """Fetch a folder without its pictures; it exists until the process ends."""
    return PictureStore(fetch(url, scratch(), empty_pictures=True), url)


@cache
def kept(where: Location) -> Path:
    """
    Return a path, or for a URL the path of a copy that exists until the process ends.

    A checkpoint is copied with its card. Raises LocationError, MissingLibraryError.
    """
    if isinstance(where, Path):
        return where
    path = fetch(where, scratch())
    if path.suffix == '.safetensors':
        fetch(Url(f'{where[:-len(path.suffix)]}.yaml'), path.parent)
    return path


def scratch() -> Path:
    """Create a folder that is deleted when the process ends."""
    folder = TemporaryDirectory(prefix='forecast_detector_')
    atexit.register(folder.cleanup)
    return Path(folder.name)


def pack(folder: Path) -> bytes:
    """Return a folder and all its contents as a ZIP archive."""
    packed = BytesIO()
    # A machine without a clock writes files of 1970, but times in a ZIP start in 1980.
    with ZipFile(packed, 'w', strict_timestamps=False) as archive:
        for path in sorted(folder.rglob('*')):
            archive.write(path, path.relative_to(folder))
    return packed.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Write the contents of a result of `pack` into a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with ZipFile(BytesIO(packed)) as archive:
        archive.extractall(folder)


def _system(url: Url) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise MissingLibraryError(f'{url}: URLs need fsspec (pip install '
                                  f'forecast_detector_ros[cloud]): {one_line(error)}') from None
    try:
        system, root = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise LocationError(f'{url}: {one_line(error)}') from None
    return system, str(root).rstrip('/')


@contextmanager
def _in_one_line(url: Url, what: str) -> Iterator[None]:
    """Turn errors of a file system's library into LocationError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Each library has its own errors.
        raise LocationError(f'{url}: cannot be {what}: {one_line(error)}') from None
