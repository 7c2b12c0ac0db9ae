# SPDX-License-Identifier: Apache-2.0
"""
Files and folders at URLs: ``s3://``, ``gs://``, ``file://`` and others of fsspec.

OpenCV, rosbags and safetensors need files, so inputs and outputs are copied by way of a temporary
place.
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
    """A URL that cannot be read or written; one line."""


class Url(str):
    """The place of a file or folder, for fsspec."""

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
        """Return the last part without its ending."""
        return PurePosixPath(self.name).stem


Location: TypeAlias = Path | Url


def name_of(where: Location) -> str:
    """Return the name of a file or folder, also of ``.``."""
    return where.name if isinstance(where, Url) else where.resolve().name


def location(text: str) -> Location:
    """Read an argument: a URL if it has ``://`` in it, else a path."""
    return Url(text) if '://' in text else Path(text)


def list_files(url: Url) -> dict[str, str]:
    """
    Return what fsspec calls each file below a URL, by its path relative to it.

    A file has itself, under its own name.  Raises LocationError, MissingLibraryError.
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
    Copy a file, or a folder with all that is below it.

    :param folder: where to; exists
    :param empty_pictures: make an empty file of each picture instead; a `PictureStore` gives them
        later
    :returns: the copy, under the name that it has at the URL
    :raises LocationError, MissingLibraryError: if it cannot be read
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
    """Copy files, by their paths in `folder`, from what fsspec calls them."""
    system, _ = _system(url)
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with _in_one_line(url, 'read'):
        # All at once: an object store answers many requests in the time of one.
        system.get(list(files.values()), [str(folder / name) for name in files])


@dataclass(frozen=True)
class PictureStore:
    """A folder whose pictures are still at a URL; here they are empty files."""

    folder: Path
    url: Url

    @contextmanager
    def fetched(self, paths: Sequence[Path]) -> Iterator[list[Path]]:
        """
        Give copies of pictures that `paths` name in the folder, until the end.

        An InputError names the URL, and not the copy.  Raises LocationError.
        """
        root = _system(self.url)[1]
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        with TemporaryDirectory(prefix='forecast_detector_') as folder, _naming(folder, self.url):
            _copy(self.url, {name: f'{root}/{name}' for name in names}, Path(folder))
            yield [Path(folder) / name for name in names]


def put(path: Path, url: Url) -> None:
    """
    Copy a file, or all files below a folder, to a URL; raises LocationError.

    The result of a run takes the place of an earlier one.
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
    Give the path of what lies at a location; a copy of what is at a URL, until the end.

    An InputError names the URL, and not the copy.
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
    """Let errors name the URL in place of the copy."""
    try:
        yield
    except InputError as error:
        error.args = tuple(item.replace(copy, url) if isinstance(item, str) else item
                           for item in error.args)
        raise


@cache
def picture_store(url: Url) -> PictureStore:
    """Fetch all that is in a folder but the pictures; it is kept until the process ends."""
    return PictureStore(fetch(url, scratch(), empty_pictures=True), url)


@cache
def kept(where: Location) -> Path:
    """
    Give the path of what lies at a location; a copy of what is at a URL, until the process ends.

    The card beside a checkpoint comes with it.  Raises LocationError, MissingLibraryError.
    """
    if isinstance(where, Path):
        return where
    path = fetch(where, scratch())
    if path.suffix == '.safetensors':
        fetch(Url(f'{where[:-len(path.suffix)]}.yaml'), path.parent)
    return path


def scratch() -> Path:
    """Make a folder that is deleted when the process ends."""
    folder = TemporaryDirectory(prefix='forecast_detector_')
    atexit.register(folder.cleanup)
    return Path(folder.name)


def pack(folder: Path) -> bytes:
    """Put a folder with all that is below it into one value, which can be sent."""
    packed = BytesIO()
    # A machine without a clock writes files of 1970, and a ZIP begins with 1980.
    with ZipFile(packed, 'w', strict_timestamps=False) as archive:
        for path in sorted(folder.rglob('*')):
            archive.write(path, path.relative_to(folder))
    return packed.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Write what `pack` took into a folder, which is made."""
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
    """Make a LocationError of whatever the library of a file system raises."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Every library has errors of its own.
        raise LocationError(f'{url}: cannot be {what}: {one_line(error)}') from None
