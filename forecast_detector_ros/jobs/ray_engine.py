# SPDX-License-Identifier: Apache-2.0
"""
Run many jobs with Ray, on this machine or on a cluster (https://docs.ray.io).

A job is a Ray task. Ray starts a task again if its process or machine is lost, or if its result is
lost before it was fetched.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
import os
import signal
from socket import create_connection
import sys
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from .engine import (
    ATTEMPTS,
    describe_job,
    Expected,
    Interrupt,
    Job,
    LOCAL,
    Outcome,
    POLL_S,
    Prepare,
    SIGNALS,
    StoppedError,
    Tell,
    Work,
)
from ..errors import InputError, MissingLibraryError, one_line

CONNECT_S = 10.0  #: Time limit for the answer of a cluster, seconds

TELL_S = 1.0  #: Period of a task's messages about its progress, seconds

BEGIN_S = 60.0  #: Longest wait of a task before its start for an answer of the board, seconds

PATIENCE_S = 10.0  #: Longest wait of a running task for an answer of the board, seconds


def run_on_ray(prepare: Prepare, jobs: Sequence[Job], address: str, processes: int | None,
               threads: int, gpus: float, expected: Expected, interrupt: Interrupt, tell: Tell
               ) -> Iterator[Outcome]:
    """
    Run all jobs with Ray.

    :param prepare, jobs, expected, interrupt, tell: as in `engine.run_many`
    :param address: address of a cluster for `ray.init`; `LOCAL` starts one on this machine
    :param processes: most jobs at a time; None: as many as the cluster has resources for
    :param threads, gpus: CPU cores and GPUs of a job
    :raises MissingLibraryError: if Ray is not installed
    :raises InputError: if there is no cluster at the address
    """
    ray = _library()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address, processes, threads)
    try:
        yield from _run(ray, prepare, jobs, processes, threads, gpus, expected, interrupt, tell)
    finally:
        if ours:
            ray.shutdown()


def _library() -> Any:
    # Otherwise Ray sends usage statistics over the network.
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    try:
        import ray
    except ImportError as error:
        raise MissingLibraryError('--engine ray needs Ray (pip install '
                                  f'forecast_detector_ros[ray]): {one_line(error)}') from None
    return ray


def _connect(ray: Any, address: str, processes: int | None, threads: int) -> None:
    _look_for(address)
    handlers = [signal.getsignal(number) for number in SIGNALS]
    more: dict[str, Any] = {}
    if address == LOCAL:
        more = {'include_dashboard': False}
        if processes is not None:
            more['num_cpus'] = processes * threads
    try:
        ray.init(address=address, log_to_driver=False, logging_level='ERROR', **more)
    except Exception as error:  # Ray raises a bare Exception if a node does not start in time.
        raise _no_cluster(address, error) from None
    finally:
        # ray.init replaces the handler of SIGTERM.
        for number, handler in zip(SIGNALS, handlers):
            signal.signal(number, handler)


def _look_for(address: str) -> None:
    """Raise InputError if the address does not accept connections; Ray would wait 15 minutes."""
    host, colon, port = address.rpartition(':')
    if not colon or not port.isdigit() or '/' in address:
        return
    try:
        with create_connection((host.strip('[]'), int(port)), CONNECT_S):
            pass
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> InputError:
    return InputError(f'--engine ray={address}: there is no cluster: {one_line(error)}')


def _run(ray: Any, prepare: Prepare, jobs: Sequence[Job], processes: int | None, threads: int,
         gpus: float, expected: Expected, interrupt: Interrupt, tell: Tell) -> Iterator[Outcome]:
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=True)
    board = ray.remote(_Board).options(num_cpus=0, max_restarts=-1,
                                       scheduling_strategy=here).remote()
    task = ray.remote(_do).options(num_cpus=threads, num_gpus=gpus, max_retries=ATTEMPTS - 1,
                                   retry_exceptions=False)
    run, common = uuid4().hex, ray.put((prepare, expected))
    waiting = list(reversed(jobs))
    pending: dict[Any, Job] = {}
    most = processes or len(jobs)
    numbered = {job.number: job for job in jobs}
    while waiting or pending:
        while waiting and len(pending) < most:
            job = waiting.pop()
            pending[task.remote(run, common, job.number, job.argument, board)] = job
        ready, _ = ray.wait(list(pending), timeout=POLL_S)
        if interrupt.is_set:
            # Tasks that have not started end at their start.
            waiting.clear()
        # The machine of the board may be lost.
        with suppress(ray.exceptions.RayError):
            if interrupt.is_set:
                board.stop.remote()
            for number, (done, total) in ray.get(board.read.remote(), timeout=5.0).items():
                tell(numbered[number], done, total)
        for reference in ready:
            outcome = _outcome(ray, pending.pop(reference), reference)
            if outcome is not None:
                yield outcome
    with suppress(ray.exceptions.RayError):
        for number, (done, total) in ray.get(board.read.remote(), timeout=5.0).items():
            tell(numbered[number], done, total)


def _outcome(ray: Any, job: Job, reference: Any) -> Outcome | None:
    try:
        kind, content, trace = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        line, trace = describe_job(error, ())
        kind, content = 'failed', line.splitlines()[0]
    except ray.exceptions.RayError as error:
        kind, trace = 'failed', ''
        content = f'its process or machine was lost {ATTEMPTS} times: {one_line(error)}'
    if trace:
        print(trace, end='', file=sys.stderr)
    if kind == 'stopped':
        return None
    return Outcome(job, content) if kind == 'done' else Outcome(job, error=content)


class _Board:
    """An actor with the progress of all tasks, and the request to stop."""

    def __init__(self) -> None:
        self._stop = False
        self._told: dict[int, tuple[int, int]] = {}

    def tell(self, number: int, done: int, total: int) -> bool:
        """Store the progress of a task; return whether it must stop."""
        self._told[number] = done, total
        return self._stop

    def read(self) -> dict[int, tuple[int, int]]:
        """Return the progress reported since the last call, by the number of the job."""
        told, self._told = self._told, {}
        return told

    def stop(self) -> None:
        self._stop = True


class _Link:
    """
    A task's connection to the board: it sends the progress, and receives the request to stop.

    One thread sends all messages, because Ray starts another task while a task's main thread
    waits.
    """

    def __init__(self, ray: Any, board: Any, number: int) -> None:
        self.is_set = False
        self._ray, self._board, self._number = ray, board, number
        self._told = 0, 0
        self._begun, self._ended = Event(), Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Link:
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def progress(self, done: int, total: int) -> None:
        self._told = done, total

    def _run(self) -> None:
        try:
            self._exchange(BEGIN_S)
        finally:
            self._begun.set()
        while not self._ended.wait(TELL_S):
            self._exchange()
        self._exchange()

    def _exchange(self, patience_s: float = PATIENCE_S) -> None:
        # Work continues if the machine of the board is lost.
        with suppress(self._ray.exceptions.RayError):
            self.is_set = self._ray.get(self._board.tell.remote(self._number, *self._told),
                                        timeout=patience_s) or self.is_set


#: Work of the last run in this process, by the name of the run.
_prepared: dict[str, Work] = {}


def _do(run: str, common: tuple[Prepare, Expected], number: int, argument: Any, board: Any
        ) -> tuple[str, Any, str]:
    import ray

    prepare, expected = common
    with _Link(ray, board, number) as link:
        if link.is_set:
            return 'stopped', None, ''
        try:
            if run not in _prepared:
                _prepared.clear()
                _prepared[run] = prepare()
            return 'done', _prepared[run](argument, link.progress, link), ''
        except StoppedError:
            return 'stopped', None, ''
        except Exception as error:
            return ('failed', *describe_job(error, expected))
