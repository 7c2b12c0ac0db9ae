# SPDX-License-Identifier: Apache-2.0
"""Tell of exceptions that a node survives: in full the first time, shortly and seldom after it."""
from __future__ import annotations

from time import monotonic
import traceback

from rclpy.logging import get_logger

from ..errors import cut

_MOST_KINDS = 20
"""Kinds of failure that are told apart, each logged with its traceback once."""

_SAME_S = 5.0
"""Seconds between two lines about failures that were logged before."""


class FailureLog:
    """Remembers which failures were told already."""

    def __init__(self, name: str) -> None:
        """Log under `name`."""
        self._name = name
        self._told: dict[str, float] = {}
        """When each kind was told last, seconds of the steady clock."""

    def tell(self, what: str, error: BaseException) -> str:
        """
        Log that `what` happened because of `error`; return the reason as one line.

        The error loses its traceback, which would keep all that its functions held, an image
        among it, until the next garbage collection.
        """
        frames = traceback.extract_tb(error.__traceback__)
        error.with_traceback(None)
        reason = f'{type(error).__name__}: {cut(error)}'
        place = f'{frames[-1].filename}:{frames[-1].lineno}' if frames else ''
        kind = f'{type(error).__name__} {place}'
        logger = get_logger(self._name)
        now = monotonic()
        if len(self._told) >= _MOST_KINDS and kind not in self._told:
            kind = ''  # All the others are one kind.
        if kind not in self._told:
            logger.error(f'{what}: {reason}\n{"".join(traceback.format_list(frames))}'.rstrip())
        elif now - self._told[kind] > _SAME_S:
            logger.error(f'{what}: {reason}')
        else:
            return reason
        self._told[kind] = now
        return reason
