# SPDX-License-Identifier: Apache-2.0
"""
Do the same with many things: shares for several machines, processes for several cores.

A failure stays with the thing that failed; what the others gave is kept.  Results are numbered
by the place of the thing in the whole list, so that shares can be merged in the list's order.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
import os
import signal
import sys
import traceback
from types import FrameType, TracebackType
from typing import Any

from ..errors import InputError, one_line

POLL_S = 0.2
"""Seconds between two looks at whether somebody wants to stop."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ManyError(InputError):
    """A share that is none, or parts that do not fit together; one line."""


@dataclass(frozen=True)
class Share:
    """The part of a list that one of several runs works on: every `count`-th thing."""

    index: int = 0
    """From 0 to `count` - 1."""
    count: int = 1

    def of(self, things: Sequence[Any]) -> list[tuple[int, Any]]:
        """Return (number in the list, thing) for those of this share."""
        return [(number, thing) for number, thing in enumerate(things)
                if number % self.count == self.index]

    def __str__(self) -> str:
        """Write as `parse_share` reads it."""
        return f'{self.index + 1}/{self.count}'


def parse_share(text: str) -> Share:
    """Read ``i/n``, the i-th of n shares counted from 1; raises ManyError."""
    first, slash, second = text.partition('/')
    if slash and first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second):
        return Share(int(first) - 1, int(second))
    raise ManyError(f'shard is {text!r}, must be i/n with i from 1 to n, such as 1/4')


def share_of_environment(environment: Mapping[str, str] = os.environ) -> Share:
    """
    Return the share that torchrun names in RANK and WORLD_SIZE; everything without them.

    Raises ManyError when they make no sense.
    """
    if 'RANK' not in environment or 'WORLD_SIZE' not in environment:
        return Share()
    rank, size = environment['RANK'], environment['WORLD_SIZE']
    if rank.isdigit() and size.isdigit() and int(rank) < int(size):
        return Share(int(rank), int(size))
    raise ManyError(f'RANK is {rank!r} and WORLD_SIZE {size!r}; they must be whole numbers, '
                    'RANK from 0 on and below WORLD_SIZE')


def check_complete(numbers: Sequence[int], total: int) -> list[int]:
    """
    Return the numbers below `total` that no part holds.

    Raises ManyError when a number is held twice, or lies beyond.
    """
    seen: set[int] = set()
    for number in numbers:
        if number in seen:
            raise ManyError(f'number {number + 1} of {total} is in two of the parts')
        if not 0 <= number < total:
            raise ManyError(f'number {number + 1} is in a part, but there are only {total}')
        seen.add(number)
    return [number for number in range(total) if number not in seen]


@dataclass(frozen=True)
class Job:
    """One thing to do."""

    number: int
    """Its place in the whole list."""
    name: str
    argument: Any
    """What the work is called with; is pickled."""


@dataclass(frozen=True)
class Outcome:
    """What came of a job."""

    job: Job
    value: Any = None
    error: str | None = None
    """One line; None if there was none."""


class Interrupt:
    """Ctrl-C and SIGTERM as a flag that work looks at; a second signal ends at once."""

    def __init__(self, patient: bool = False) -> None:
        """Be not set; `patient`: further signals change nothing."""
        self.set = False
        self._patient = patient
        self._before: list[Any] = []

    def __enter__(self) -> Interrupt:
        """Take both signals; only in the main thread."""
        self._before = [signal.signal(number, self._note) for number in _SIGNALS]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Give them back."""
        for number, handler in zip(_SIGNALS, self._before):
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.set and not self._patient:
            raise KeyboardInterrupt
        self.set = True


Progress = Callable[[int, int], None]
"""Called with what is done of a job and what there is to do, 0 if unknown."""

Work = Callable[[Any, Progress, Interrupt], Any]
"""Called with a job's argument; gives its value.  Returns early when the flag is set."""


def run_many(prepare: Callable[[], Work], jobs: Sequence[Job], processes: int,
             expected: tuple[type[Exception], ...], interrupt: Interrupt,
             progress: Callable[[Job, int, int], None]) -> Iterator[Outcome]:
    """
    Do all jobs; yield each outcome when it is there.

    Parameters
    ----------
    prepare:
        Makes the work; called once in every process, and pickled.
    jobs:
        In the order in which they are begun.
    processes:
        1 works in this process.  More are started fresh, and a process that dies is replaced.
    expected:
        Errors whose message is all there is to say; others are printed with their traceback.
    interrupt:
        When it is set, no further job is begun; those in hand come to their early end.
    progress:
        Called with a job, what is done of it and what there is to do.

    """
    if processes > 1 and len(jobs) > 1:
        yield from _in_processes(prepare, jobs, processes, expected, interrupt, progress)
        return
    work: Work | None = None
    for job in jobs:
        if interrupt.set:
            return

        def tell(done: int, total: int, job: Job = job) -> None:
            progress(job, done, total)

        try:
            work = work or prepare()
            yield Outcome(job, work(job.argument, tell, interrupt))
        except Exception as error:
            yield Outcome(job, error=_line(error, expected))


def _in_processes(prepare: Callable[[], Work], jobs: Sequence[Job], processes: int,
                  expected: tuple[type[Exception], ...], interrupt: Interrupt,
                  progress: Callable[[Job, int, int], None]) -> Iterator[Outcome]:
    waiting = deque(jobs)
    busy: dict[Any, tuple[Any, Job]] = {}

    def begin(connection: Any, process: Any) -> None:
        job = waiting.popleft()
        busy[connection] = process, job
        with suppress(OSError):  # Its end is noticed when it is listened to.
            connection.send(job.argument)

    def start() -> None:
        begin(*_start(prepare, expected))

    try:
        for _ in range(min(processes, len(jobs))):
            start()
        told = False
        while busy:
            if interrupt.set and not told:
                told = True
                waiting.clear()
                for process, _ in busy.values():
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGINT)
            ready: list[Any] = wait(list(busy), POLL_S)
            for connection in ready:
                process, job = busy[connection]
                try:
                    kind, content = connection.recv()
                except (EOFError, OSError):
                    process.join()
                    kind, content = 'died', f'its process ended with code {process.exitcode}'
                if kind == 'progress':
                    progress(job, *content)
                    continue
                del busy[connection]
                if kind == 'died':
                    connection.close()
                    if waiting:
                        start()
                elif waiting:
                    begin(connection, process)
                else:
                    connection.close()
                    process.join()
                yield (Outcome(job, content) if kind == 'done'
                       else Outcome(job, error=content))
    finally:
        for process, _ in busy.values():
            process.kill()
            process.join()


def _start(prepare: Callable[[], Work], expected: tuple[type[Exception], ...]
           ) -> tuple[Connection, Any]:
    context = get_context('spawn')
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, prepare, expected), daemon=True)
    # A signal while the new process still imports shall wait until it has a handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    theirs.close()
    return ours, process


def _serve(connection: Connection, prepare: Callable[[], Work],
           expected: tuple[type[Exception], ...]) -> None:
    with Interrupt(patient=True) as interrupt:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        work: Work | None = None

        def tell(done: int, total: int) -> None:
            connection.send(('progress', (done, total)))

        while True:
            try:
                argument = connection.recv()
            except EOFError:
                return
            try:
                work = work or prepare()
                answer = 'done', work(argument, tell, interrupt)
            except Exception as error:
                answer = 'failed', _line(error, expected)
            connection.send(answer)


def _line(error: Exception, expected: tuple[type[Exception], ...]) -> str:
    if isinstance(error, expected):
        return one_line(error)
    traceback.print_exception(error, file=sys.stderr)
    return f'{type(error).__name__}: {" ".join(str(error).split())}'
