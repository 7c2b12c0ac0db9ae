# SPDX-License-Identifier: Apache-2.0
"""Show how far a long job is: a bar in a terminal, a line now and then elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import logging
import sys
from time import monotonic

LINE_EVERY_S = 10.0
"""Seconds between lines where there is no terminal."""

_log = logging.getLogger(__name__)

Show = Callable[[int, int], None]
"""Called with what is done and what there is to do, 0 if unknown."""


@contextmanager
def show_progress(title: str) -> Iterator[Show]:
    """Give a function to call after each step, with (done, total); it is silent as the log is."""
    if sys.stderr.isatty() and _log.isEnabledFor(logging.INFO):
        try:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )
        except ImportError:
            pass
        else:
            with Progress(TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                          TextColumn('left:'), TimeRemainingColumn(),
                          console=Console(stderr=True)) as bar:
                task = bar.add_task(title, total=None)
                yield lambda done, total: bar.update(task, completed=done, total=total or None)
            return
    yield _Lines(title)


class _Lines:
    """Logs a line when the last one is old; the first step counts from where it begins."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._start = self._last = monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = monotonic()
        if self._first is None:
            self._first = done - 1
        if now - self._last < LINE_EVERY_S:
            return
        self._last = now
        if not total:
            _log.info('%s: %d', self._title, done)
            return
        left = round((now - self._start) / (done - self._first) * (total - done))
        _log.info('%s: %d of %d, %d:%02d:%02d left', self._title, done, total, left // 3600,
                  left // 60 % 60, left % 60)
