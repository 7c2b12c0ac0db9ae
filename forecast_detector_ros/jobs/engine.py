# SPDX-License-Identifier: Apache-2.0
"""
Run many jobs in this process, in several processes, or with Ray.

A failed job does not affect the others. Each process is a pool of one worker
(`concurrent.futures`), so that the job of a process that dies is known.
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

ATTEMPTS = 3  #: Most starts of a job whose process or machine is lost

POLL_S = 0.2  #: Period of checking for an interrupt, seconds

SIGNALS = (signal.SIGINT, signal.SIGTERM)

LOCAL = 'local'  #: Ray's name of a cluster that is started for the call and ended with it


@dataclass(frozen=True)
class Job:
    """One unit of work."""

    number: int  #: Index in the list of all jobs
    name: str
    argument: Any  #: Argument of the work; it is pickled


@dataclass(frozen=True)
class Outcome:
    """The result of a job."""

    job: Job
    value: Any = None
    error: str | None = None  #: One line; None without an error


class StoppedError(Exception):
    """Work was stopped and has no value."""


class StopFlag(Protocol):
    """A flag that asks work to end early."""

    @property
    def is_set(self) -> bool:
        """Return whether the work is asked to end early."""


#: Called with the done and the total amount of a job; the total is 0 if unknown.
Progress = Callable[[int, int], None]

#: Called with a job's argument; returns its value. If the flag is set, it returns early or raises
#: StoppedError. For a job whose process was lost, it is called again from the start.
Work = Callable[[Any, Progress, StopFlag], Any]

Prepare = Callable[[], Work]  #: Returns the work; called once in each process, and pickled

#: Called with a job, and its done and total amount.
Tell = Callable[[Job, int, int], None]

#: Errors that are reported by their message alone; others are printed with their traceback.
Expected = tuple[type[Exception], ...]


class Interrupt:
    """A flag that Ctrl-C and SIGTERM set; a second signal ends the process at once."""

    def __init__(self) -> None:
        self.is_set = False
        self._before: list[Any] = []

    def __enter__(self) -> Interrupt:
        """Handle both signals; only possible in the main thread."""
        self._before = [signal.signal(number, self._note) for number in SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(SIGNALS, self._before):
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True


def describe_job(error: Exception, expected: Expected) -> tuple[str, str]:
    """Return an error as one line, and its traceback, empty for an expected error."""
    if isinstance(error, expected):
        return one_line(error), ''
    return (f'{type(error).__name__}: {" ".join(str(error).split())}',
            ''.join(traceback.format_exception(error)))


#: Indices of the numbers that a process shares with its parent. They have no lock, because a
#: killed process would never release it.
_STOP, _DONE, _TOTAL = range(3)


def run_here(prepare: Prepare, jobs: Sequence[Job], expected: Expected, interrupt: Interrupt,
             tell: Tell) -> Iterator[Outcome]:
    """Run all jobs in this process; see `run_many`."""
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
    """Run all jobs in `processes` new processes; see `run_many`."""
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
    """Return the outcome of a job; None if it was stopped or its process was lost."""
    try:
        kind, content = future.result()
    except BrokenProcessPool:
        worker.broken = True
        return None
    except Exception as error:
        # For example, the value cannot be pickled.
        return Outcome(job, error=_printed(error, expected))
    if kind == 'stopped':
        return None
    return Outcome(job, content) if kind == 'done' else Outcome(job, error=content)


class _Worker:
    """One process that runs one job at a time."""

    def __init__(self, prepare: Prepare, expected: Expected) -> None:
        context = get_context('spawn')
        self._common = context.RawArray('q', 3)
        self._pool = ProcessPoolExecutor(1, context, _begin, (self._common, prepare, expected))
        self._process: Any = None
        self.broken = False

    def submit(self, argument: Any) -> Future[Any]:
        """Start a job."""
        self._common[_DONE] = self._common[_TOTAL] = 0
        before = set(active_children())
        # Ctrl-C in a terminal also reaches the process, but only its parent should stop it.
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
        """Return done and total amount of the current job; None before its first report."""
        done, total = self._common[_DONE], self._common[_TOTAL]
        return (done, total) if done or total else None

    @property
    def exit_code(self) -> int | None:
        """Return the exit code of an ended process."""
        # A thread of the pool also waits for the process, and only one wait gets the code.
        deadline = monotonic() + 10.0
        while (code := self._process.exitcode) is None and monotonic() < deadline:
            sleep(0.01)
        return code

    def stop(self) -> None:
        """Ask the job to end early."""
        self._common[_STOP] = 1

    def close(self) -> None:
        """End the process, which must have no job."""
        self._pool.shutdown()

    def kill(self) -> None:
        """End the process and its job."""
        self._process.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Told:
    """The flag of a process, which its parent sets."""

    def __init__(self, common: Any) -> None:
        self._common = common

    @property
    def is_set(self) -> bool:
        return bool(self._common[_STOP])


_here: dict[str, Any] = {}  #: State of a process from job to job


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
    """How jobs are run."""

    ray: str | None = None  #: Address of a Ray cluster; None: processes on this machine
    #: Most jobs at a time; None: one, with Ray as many as the cluster has resources for.
    processes: int | None = None
    threads: int = 1  #: CPU cores of a job
    gpus: float = 0  #: GPUs of a job; only used by Ray

    def is_here(self, jobs: int) -> bool:
        """Return whether this number of jobs runs in this process."""
        return self.ray is None and (jobs < 2 or (self.processes or 1) < 2)


def parse_engine(text: str) -> str | None:
    """
    Parse ``local``, ``ray`` or ``ray=ADDRESS``; return the address of the Ray cluster or None.

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
    Run all jobs; yield each outcome when it is ready.

    A job whose process or machine is lost is started again, at most `ATTEMPTS` times in all.

    :param prepare: returns the work; called once in each process, and pickled
    :param jobs: in the order of their start
    :param expected: errors that are reported by their message alone; others are printed with their
        traceback
    :param interrupt: if it is set, no further job starts, and running jobs end early
    :param tell: called with a job, and its done and total amount
    :raises MissingLibraryError: if Ray is not installed
    :raises InputError: if there is no cluster at the address
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
