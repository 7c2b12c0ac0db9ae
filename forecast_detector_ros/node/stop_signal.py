# SPDX-License-Identifier: Apache-2.0
"""Turn SIGINT and SIGTERM into a question that a loop asks between two pieces of work."""
from __future__ import annotations

import signal
from types import FrameType


class StopSignal:
    """
    True once SIGINT or SIGTERM has arrived.

    For programs that must finish what they hold in their hands (a video, a bag): no exception
    breaks into a callback. Initialise rclpy with SignalHandlerOptions.NO beside it.
    """

    def __init__(self) -> None:
        """Install the handlers; only possible in the main thread."""
        self._arrived = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._arrived = True

    def __bool__(self) -> bool:
        """Tell whether a signal has arrived."""
        return self._arrived
