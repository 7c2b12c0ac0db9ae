# SPDX-License-Identifier: Apache-2.0
"""Versions and machine of a result, lines of its summary, and its folder."""
from __future__ import annotations

from collections.abc import Mapping
import fcntl
from importlib import metadata
import os
from pathlib import Path
import platform
import shutil
from typing import Any, TextIO

import cv2

from .shell import check_output
from ..detector.host import instruction_set
from ..files import RESULT_MARK

DISTRIBUTIONS = ('forecast_detector_ros', 'torch', 'torchvision', 'numpy', 'rclpy',
                 'vision_msgs', 'rosbags')


def versions(*more: str) -> dict[str, str | None]:
    """
    Return the versions of Python and of the libraries; None for a library that is missing.

    `more` are further distributions that affect the result.
    """
    found: dict[str, str | None] = {'python': platform.python_version(),
                                    'opencv': cv2.__version__}
    for name in (*DISTRIBUTIONS, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, str | int | float | None]:
    """Return what latencies depend on: processor, its instructions, cores, load and system."""
    return {'processor': _processor(), 'instructions': instruction_set(), 'cores': os.cpu_count(),
            'load_1min': round(os.getloadavg()[0], 2), 'system': platform.platform()}


def _processor() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """Return the lines on latencies and boxes of a summary of frames."""
    lines = [f'latency of a {kind} frame: p50 {latency["p50"]:.1f} ms, p95 {latency["p95"]:.1f} '
             f'ms, max {latency["max"]:.1f} ms'
             for kind, latency in figures['latency_ms'].items() if latency['count']]
    found = ', '.join(f'{count} {name}' for name, count in figures['boxes_per_class'].items())
    return [*lines, f'boxes: {found or "none"}']


class ResultFolder:
    """
    A folder of results that is written at `<path>.part` and moved to `<path>` when complete.

    An interrupted or failed run leaves `<path>.part` with its logs until the next run. A folder
    is deleted only if it contains the mark of this class.
    """

    MARK = RESULT_MARK

    def __init__(self, path: str | Path) -> None:
        """Make the folder `<path>.part`; raises FileExistsError, InputError."""
        # A symbolic link stays; its target is replaced.
        self.path = Path(path).resolve()
        if not self.path.name:
            raise FileExistsError(f'{self.path}: cannot be replaced by results; name another '
                                  '--output')
        self.partial = self.path.with_name(f'{self.path.name}.part')
        # Hidden, because a user's own backup may be called `<path>.old`.
        self._old = self.path.with_name(f'.{self.path.name}.old')
        for folder in (self.path, self.partial, self._old):
            if folder.exists() and not self._is_ours(folder):
                raise FileExistsError(f'{folder}: exists and is no result of an earlier run; '
                                      'name another --output')
        for place in (Path(path), self.partial):
            check_output('--output', place, True)
        if self.partial.exists():
            self._lock().close()
            shutil.rmtree(self.partial)
        self.partial.mkdir(parents=True)
        self._locked = self._lock()

    def accept(self) -> None:
        """Replace the results of an earlier run by these."""
        self._drop_old()
        if self.path.exists():
            os.rename(self.path, self._old)
        os.rename(self.partial, self.path)
        self._locked.close()
        self._drop_old()

    def _drop_old(self) -> None:
        if self._old.exists():
            shutil.rmtree(self._old)

    def discard(self) -> None:
        """Delete `<path>.part`; the results of an earlier run stay."""
        shutil.rmtree(self.partial)
        self._locked.close()

    def _lock(self) -> TextIO:
        """Lock the mark of the partial folder as long as the file is open."""
        mark = (self.partial / self.MARK).open('a', encoding='utf-8')
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mark.close()
            raise FileExistsError(f'{self.partial}: another run is writing there; name another '
                                  '--output') from None
        except OSError:
            pass  # A file system without locks.
        return mark

    def _is_ours(self, folder: Path) -> bool:
        return folder.is_dir() and (
            (folder / self.MARK).is_file() or not any(folder.iterdir()))
