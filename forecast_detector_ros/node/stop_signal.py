# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM: end a program at once, or after its current work."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_at_once() -> None:
    """
    Let the system end the process on a signal, until a StopSignal is created.

    Call it before slow imports, because Python's own handlers would wait for each import. Only
    possible in the main thread.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


class StopSignal:
    """
    True once SIGINT or SIGTERM has arrived; a loop checks it between two pieces of work.

    For programs that must finish a video or a bag: no exception interrupts a callback. rclpy must
    be initialised with SignalHandlerOptions.NO.
    """

    def __init__(self) -> None:
        """Install the handlers; only possible in the main thread."""
        self._arrived = False
        self._at_once = False
        for number in SIGNALS:
            signal.signal(number, self._note)

    @contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """End the process with exit code 0 on a signal, while there is nothing to finish."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._at_once:
            os._exit(0)
        self._arrived = True

    def __bool__(self) -> bool:
        return self._arrived
