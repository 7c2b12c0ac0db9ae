# SPDX-License-Identifier: Apache-2.0
"""Run the detector of `evaluate` over many sequences, by whatever engine the options name."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
import json
import logging
from pathlib import Path
from typing import Any

from .engine_options import add_engine, engine_of
from .progress import show_progress
from ..annotations.findings import DataError
from ..detector.detector import Detector
from ..errors import InputError
from ..evaluation.footage_runs import FootageWork
from ..evaluation.runner import FootageRun
from ..evaluation.sequences import Footage
from ..files import write_atomically
from ..jobs.engine import run_many
from ..jobs.job import Interrupt, Job

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What came of the sequences; those that failed, or were not reached, are missing."""

    places: tuple[int, ...]  #: Of those that are there, in the list of all
    runs: tuple[FootageRun, ...]
    failures: dict[str, str]  #: What is wrong, by the name of a sequence
    interrupted: bool = False


def add_many(parser: argparse.ArgumentParser) -> None:
    """Add the options that `run_sequences` reads."""
    add_engine(parser.add_argument_group('many sequences'), 'one sequence')


def run_sequences(options: argparse.Namespace, work: FootageWork, detector: Detector,
                  footage: Sequence[Footage]) -> Done:
    """
    Run the detector over all sequences.

    :param options: with those of `add_many`
    :param work: for every process
    :param detector: that of `work`, for this process; not warm yet
    :param footage: all sequences
    :raises DataError: if no sequence could be run
    :raises KeyboardInterrupt: if the first of them was interrupted, or the others twice
    """
    jobs = [Job(number, item.name, item) for number, item in enumerate(footage)]
    for job in jobs:
        _log.info('%s: %d frames', job.name, len(job.argument.frames))
    engine = engine_of(options)

    def prepare() -> Any:
        detector.warm_up()
        return work.with_detector(detector)

    runs: dict[int, FootageRun] = {}
    failures: dict[int, str] = {}
    done: dict[int, int] = {}
    total = sum(len(item.frames) for item in footage)
    with Interrupt() as interrupt, show_progress('frames') as show:
        def tell(job: Job, frames: int, _: int) -> None:
            done[job.number] = frames
            show(sum(done.values()), total)

        for outcome in run_many(engine, prepare if engine.is_here(len(jobs)) else work.prepare,
                                jobs, (InputError,), interrupt, tell):
            if outcome.error is None:
                runs[outcome.job.number] = outcome.value
            else:
                failures[outcome.job.number] = outcome.error
    if not runs and interrupt.set:
        raise KeyboardInterrupt
    if not runs:
        raise DataError(next(iter(failures.values()), 'there is no sequence'))
    places = tuple(sorted(runs))
    return Done(places, tuple(runs[place] for place in places),
                {footage[place].name: text for place, text in sorted(failures.items())},
                interrupt.set)


def keep_partial(output: Path | None, result: dict[str, Any]) -> None:
    """Write the result of the sequences that were done before an interrupt beside `output`."""
    if output is not None:
        path = output.with_name(f'{output.name}.part')
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(result, indent=1, allow_nan=False) + '\n').encode())
        _log.warning('interrupted; what was done so far is in %s', path)
