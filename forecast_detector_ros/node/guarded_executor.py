# SPDX-License-Identifier: Apache-2.0
"""An executor that outlives its callbacks."""
from __future__ import annotations

import traceback

from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger

from ..foreign_text import cut

MOST_IN_A_ROW = 100
"""Failures without a turn between them that went well: then it is the executor that is broken."""

_TRACEBACKS = 10
"""Kinds of failure that are logged in full; each of them once."""

_SAME_S = 5.0
"""Seconds between two lines about failures that were logged before."""


class GuardedExecutor(SingleThreadedExecutor):
    """
    Logs what a callback raises and goes on, where rclpy would end the process.

    Messages that cannot be deserialised, and requests that rclpy itself stumbles over, fail in
    code that no node can put a `try` around.
    """

    def __init__(self, name: str, fatal: tuple[type[BaseException], ...] = ()) -> None:
        """Log under `name`; exceptions of the types `fatal` are let through."""
        super().__init__()
        self._name = name
        self._fatal = fatal
        self._seen: set[str] = set()
        self._in_a_row = 0
        self.failures = 0
        """Callbacks that have failed."""

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run one callback; raises what `fatal` lists, and anything after MOST_IN_A_ROW."""
        try:
            super().spin_once(timeout_sec)
        except self._fatal:
            raise
        except Exception as error:
            self.failures += 1
            self._in_a_row += 1
            if self._in_a_row > MOST_IN_A_ROW:
                raise
            self._tell(error)
        else:
            self._in_a_row = 0

    def _tell(self, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        kind = f'{type(error).__name__} in {frames[-1].filename}:{frames[-1].lineno}'
        logger = get_logger(self._name)
        line = f'a callback failed, the node goes on: {kind}: {cut(error)}'
        if kind not in self._seen and len(self._seen) < _TRACEBACKS:
            self._seen.add(kind)
            logger.error(f'{line}\n{"".join(traceback.format_list(frames))}'.rstrip())
        else:
            logger.error(line, throttle_duration_sec=_SAME_S)
