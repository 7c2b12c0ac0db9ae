# SPDX-License-Identifier: Apache-2.0
"""
Many jobs: what they are, and how they are done: here, by several processes, or by Ray.

A failure stays with the job that failed; what the others gave is kept. Every process of this
machine is a pool of one (`concurrent.futures`): when it dies, it is known which job it had.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for_end
import os
import signal
import sys
from threading import Thread
from time import monotonic, sleep
import traceback
from typing import Any, Protocol

from ..errors import InputError, one_line

ATTEMPTS = 3  #: How often a job is begun whose process or machine is lost

POLL_S = 0.2  #: Seconds between two looks at whether somebody wants to stop

SIGNALS = (signal.SIGINT, signal.SIGTERM)

LOCAL = 'local'  #: Ray's own name of a cluster that is started for the call and ended with it


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

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, handler in zip(SIGNALS, self._before):
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True


def describe_job(error: Exception, expected: Expected) -> tuple[str, str]:
    """Return an error as one line, and its traceback; an expected one has none."""
    if isinstance(error, expected):
        return one_line(error), ''
    return (f'{type(error).__name__}: {" ".join(str(error).split())}',
            ''.join(traceback.format_exception(error)))


#: The numbers that a process and its parent have in common. They have no lock, which a process
#: that is killed would take with it.
_STOP, _DONE, _TOTAL = range(3)


def run_here(prepare: Prepare, jobs: Sequence[Job], expected: Expected, interrupt: Interrupt,
             tell: Tell) -> Iterator[Outcome]:
    """Do all jobs in this process; see `run_many`."""
    work: Work | None = None
    for job in jobs:
        if interrupt.is_set:
            return
        try:
            work = work or prepare()
            outcome = Outcome(job, work(job.argument, partial(tell, job), interrupt))
        except StoppedError:
            return
        except Exception as error:
            outcome = Outcome(job, error=_printed(error, expected))
        yield outcome


def run_in_processes(prepare: Prepare, jobs: Sequence[Job], processes: int, expected: Expected,
                     interrupt: Interrupt, tell: Tell) -> Iterator[Outcome]:
    """Do all jobs in fresh processes, as many as `processes`; see `run_many`."""
    waiting = deque(jobs)
    lost: dict[int, int] = {}
    busy: dict[Future[Any], tuple[_Worker, Job]] = {}

    def begin(worker: _Worker) -> None:
        job = waiting.popleft()
        busy[worker.submit(job.argument)] = worker, job

    try:
        for _ in range(min(processes, len(jobs))):
            begin(_Worker(prepare, expected))
        while busy:
            if interrupt.is_set:
                waiting.clear()
                for worker, _ in busy.values():
                    worker.stop()
            ready = wait(busy, POLL_S, FIRST_COMPLETED).done
            for worker, job in busy.values():
                if worker.told:
                    tell(job, *worker.told)
            for future in ready:
                worker, job = busy.pop(future)
                outcome = _outcome(worker, job, future, expected)
                if worker.broken and not interrupt.is_set:
                    lost[job.number] = lost.get(job.number, 0) + 1
                    if lost[job.number] < ATTEMPTS:
                        waiting.appendleft(job)
                    else:
                        outcome = Outcome(job, error=f'its process ended {ATTEMPTS} times, last '
                                          f'with code {worker.exit_code}')
                if waiting:
                    begin(_Worker(prepare, expected) if worker.broken else worker)
                else:
                    worker.close()
                if outcome is not None:
                    yield outcome
    finally:
        for worker, _ in busy.values():
            worker.kill()


def _outcome(worker: _Worker, job: Job, future: Future[Any], expected: Expected
             ) -> Outcome | None:
    """Return what came of a job; None if it was stopped, or its process lost."""
    try:
        kind, content = future.result()
    except BrokenProcessPool:
        worker.broken = True
        return None
    except Exception as error:
        # What cannot be pickled, for example.
        return Outcome(job, error=_printed(error, expected))
    if kind == 'stopped':
        return None
    return Outcome(job, content) if kind == 'done' else Outcome(job, error=content)


class _Worker:
    """One process that does one job after another."""

    def __init__(self, prepare: Prepare, expected: Expected) -> None:
        context = get_context('spawn')
        self._common = context.RawArray('q', 3)
        self._pool = ProcessPoolExecutor(1, context, _begin, (self._common, prepare, expected))
        self._process: Any = None
        self.broken = False

    def submit(self, argument: Any) -> Future[Any]:
        """Begin a job."""
        self._common[_DONE] = self._common[_TOTAL] = 0
        before = set(active_children())
        # Ctrl-C in a terminal reaches the process, too, which shall only be told by its parent.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            future = self._pool.submit(_do, argument)
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if self._process is None:
            (self._process,) = set(active_children()) - before
        return future

    @property
    def told(self) -> tuple[int, int] | None:
        """Return what is done of the job in hand and what there is to do; None at first."""
        done, total = self._common[_DONE], self._common[_TOTAL]
        return (done, total) if done or total else None

    @property
    def exit_code(self) -> int | None:
        """Return that of a process that has ended."""
        # A thread of the pool waits for it, too: one of both is told the code, and notes it.
        deadline = monotonic() + 10.0
        while (code := self._process.exitcode) is None and monotonic() < deadline:
            sleep(0.01)
        return code

    def stop(self) -> None:
        """Ask for an early end."""
        self._common[_STOP] = 1

    def close(self) -> None:
        """End the process, which has no job."""
        self._pool.shutdown()

    def kill(self) -> None:
        """End the process with its job."""
        self._process.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Told:
    """The flag in a process, which its parent sets."""

    def __init__(self, common: Any) -> None:
        self._common = common

    @property
    def is_set(self) -> bool:
        return bool(self._common[_STOP])


_here: dict[str, Any] = {}  #: What a process keeps from job to job


def _begin(common: Any, prepare: Prepare, expected: Expected) -> None:
    _here.update(common=common, prepare=prepare, expected=expected)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait_for_end([parent.sentinel])
    os._exit(1)


def _do(argument: Any) -> tuple[str, Any]:
    common = _here['common']

    def progress(done: int, total: int) -> None:
        common[_DONE], common[_TOTAL] = done, total

    try:
        if 'work' not in _here:
            _here['work'] = _here['prepare']()
        return 'done', _here['work'](argument, progress, _Told(common))
    except StoppedError:
        return 'stopped', None
    except Exception as error:
        return 'failed', _printed(error, _here['expected'])


def _printed(error: Exception, expected: Expected) -> str:
    line, trace = describe_job(error, expected)
    if trace:
        print(trace, end='', file=sys.stderr)
    return line


@dataclass(frozen=True)
class Engine:
    """Runs the jobs."""

    ray: str | None = None  #: Address of a Ray cluster; None: processes of this machine
    #: At most so many jobs at a time; None: one, or with Ray as many as there is room for.
    processes: int | None = None
    threads: int = 1  #: CPU cores that a job takes
    gpus: float = 0  #: GPUs that a job takes; Ray alone counts them

    def is_here(self, jobs: int) -> bool:
        """Tell whether so many jobs are done in this very process."""
        return self.ray is None and (jobs < 2 or (self.processes or 1) < 2)


def parse_engine(text: str) -> str | None:
    """
    Read ``local``, ``ray`` or ``ray=ADDRESS``; return the address of the Ray cluster, if any.

    Raises InputError.
    """
    name, given, address = text.partition('=')
    if text == 'local':
        return None
    if name == 'ray' and bool(given) == bool(address):
        return address or LOCAL
    raise InputError(f'engine is {text!r}, must be local, ray or ray=ADDRESS, such as '
                     'ray=auto or ray=10.0.0.1:6379')


def run_many(engine: Engine, prepare: Prepare, jobs: Sequence[Job], expected: Expected,
             interrupt: Interrupt, tell: Tell) -> Iterator[Outcome]:
    """
    Do all jobs; yield each outcome when it is there.

    A job whose process or machine is lost is begun anew, `ATTEMPTS` times in all.

    :param prepare: makes the work; called once in every process, and pickled
    :param jobs: in the order in which they are begun
    :param expected: errors whose message is all there is to say; others are printed with their
        traceback
    :param interrupt: when it is set, no further job is begun; those in hand come to their early
        end
    :param tell: called with a job, what is done of it and what there is to do
    :raises MissingLibraryError, InputError: if Ray is not installed, or there is no cluster at the
        address
    """
    if engine.is_here(len(jobs)):
        yield from run_here(prepare, jobs, expected, interrupt, tell)
    elif engine.ray is None:
        yield from run_in_processes(prepare, jobs, engine.processes or 1, expected, interrupt,
                                    tell)
    else:
        from .ray_engine import run_on_ray
        yield from run_on_ray(prepare, jobs, engine.ray, engine.processes, engine.threads,
                              engine.gpus, expected, interrupt, tell)
