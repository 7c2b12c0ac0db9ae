# SPDX-License-Identifier: Apache-2.0
"""
One of many things to do, what came of it, and how it is told to stop.

A failure stays with the job that failed; what the others gave is kept.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import signal
import traceback
from types import FrameType, TracebackType
from typing import Any, Protocol

from ..errors import one_line

ATTEMPTS = 3  #: How often a job is begun whose process or machine is lost

POLL_S = 0.2  #: Seconds between two looks at whether somebody wants to stop

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Job:
    """One thing to do."""

    number: int  #: Its place in the whole list
    name: str
    argument: Any  #: What the work is called with; is pickled


@dataclass(frozen=True)
class Outcome:
    """The result of a job."""

    job: Job
    value: Any = None
    error: str | None = None  #: One line; None if there was none


class StoppedError(Exception):
    """Work that was told to stop, and has no value to give."""


class StopFlag(Protocol):
    """Tells work that it shall come to an early end."""

    @property
    def is_set(self) -> bool:
        """Tell whether it shall."""


#: Called with what is done of a job and what there is to do, 0 if unknown.
Progress = Callable[[int, int], None]

#: Called with a job's argument; gives its value. When the flag is set it returns early, or raises
#: StoppedError. It may be called again for a job whose process was lost, and then begins anew.
Work = Callable[[Any, Progress, StopFlag], Any]

Prepare = Callable[[], Work]  #: Makes the work; called once in every process, and pickled

#: Called with a job, what is done of it and what there is to do.
Tell = Callable[[Job, int, int], None]

#: Errors whose message is all there is to say; of others the traceback is printed, too.
Expected = tuple[type[Exception], ...]


class Interrupt:
    """Ctrl-C and SIGTERM as a flag that work looks at; a second signal ends at once."""

    def __init__(self) -> None:
        """Be not set."""
        self.is_set = False
        self._before: list[Any] = []

    def __enter__(self) -> Interrupt:
        """Take both signals; only in the main thread."""
        self._before = [signal.signal(number, self._note) for number in SIGNALS]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Give them back."""
        for number, handler in zip(SIGNALS, self._before):
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True


def describe_job(error: Exception, expected: Expected) -> tuple[str, str]:
    """Return an error as one line, and its traceback; an expected one has none."""
    if isinstance(error, expected):
        return one_line(error), ''
    return (f'{type(error).__name__}: {" ".join(str(error).split())}',
            ''.join(traceback.format_exception(error)))
