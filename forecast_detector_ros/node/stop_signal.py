# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM: end a program at once, or when its work is finished."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_at_once() -> None:
    """
    Let the system itself end the process on a signal, until a StopSignal is made.

    To be called before libraries are imported, which takes seconds: Python's own handlers would
    wait for each of them. Only possible in the main thread.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


class StopSignal:
    """
    True once SIGINT or SIGTERM has arrived: what a loop asks between two pieces of work.

    For programs that must finish what they hold in their hands (a video, a bag): no exception
    breaks into a callback. Initialise rclpy with SignalHandlerOptions.NO beside it.
    """

    def __init__(self) -> None:
        """Install the handlers; only possible in the main thread."""
        self._arrived = False
        self._at_once = False
        for number in SIGNALS:
            signal.signal(number, self._note)

    @contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """End the process with exit code 0 on a signal: there is nothing to finish meanwhile."""
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
        """Tell whether a signal has arrived."""
        return self._arrived
