# SPDX-License-Identifier: Apache-2.0
"""Decide when each frame of a recording is due."""
from __future__ import annotations


class FrameSchedule:
    """
    An absolute schedule: frame n is due at origin + n * period, so lateness never adds up.

    A frame that is late by more than a period moves the origin. The next frames keep their
    distance. In a burst the receivers would lose all but the last.
    """

    def __init__(self, rate: float, origin: float) -> None:
        """Plan `rate` frames a second (> 0), the first at `origin` (seconds, steady clock)."""
        self._period = 1.0 / rate
        self._origin = origin
        self._count = 0
        self.stalls = 0
        """How often the source was too slow and the schedule had to move."""

    @property
    def due(self) -> float:
        """When the next frame is due, in seconds of the steady clock."""
        return self._origin + self._count * self._period

    def advance(self, now: float) -> float:
        """
        Count one frame, sent at `now`, and return by how many seconds it was late (>= 0).

        After a stall the returned lateness is 0: the frame's place is where it was sent.
        """
        late = max(0.0, now - self.due)
        if late > self._period:
            self._origin += late
            self.stalls += 1
            late = 0.0
        self._count += 1
        return late
