# SPDX-License-Identifier: Apache-2.0
"""An executor that outlives its callbacks."""
from __future__ import annotations

from rclpy.executors import SingleThreadedExecutor

from .failure_log import FailureLog

MOST_IN_A_ROW = 100
"""Failures without a turn between them that went well: then it is the executor that is broken."""


class GuardedExecutor(SingleThreadedExecutor):
    """
    Logs what a callback raises and goes on, where rclpy would end the process.

    Messages that cannot be deserialised, and requests that rclpy itself stumbles over, fail in
    code that no node can put a `try` around.
    """

    def __init__(self, name: str, fatal: tuple[type[BaseException], ...] = ()) -> None:
        """Log under `name`; exceptions of the types `fatal` are let through."""
        super().__init__()
        self._log = FailureLog(name)
        self._fatal = fatal
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
            self._log.tell('a callback failed, the node goes on', error)
        else:
            self._in_a_row = 0
