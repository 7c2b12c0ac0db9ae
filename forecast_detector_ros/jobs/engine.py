# SPDX-License-Identifier: Apache-2.0
"""Choose who does many jobs: this process, several of this machine, or Ray."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .job import Expected, Interrupt, Job, Outcome, Prepare, Tell
from .local_engine import run_here, run_in_processes
from .ray_engine import LOCAL, run_on_ray
from ..errors import InputError


@dataclass(frozen=True)
class Engine:
    """Who does the jobs."""

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

    :param engine: who does them
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
        yield from run_on_ray(prepare, jobs, engine.ray, engine.processes, engine.threads,
                              engine.gpus, expected, interrupt, tell)
