# SPDX-License-Identifier: Apache-2.0
"""Options of `evaluate` for many sequences: processes, shares, parts that are merged later."""
from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import logging
from pathlib import Path
from typing import Any

from .options import add_jobs, checked
from ..annotations.errors import DataError
from ..detector.detector import Detector
from ..evaluation.footage_runs import FootageWork, merge_parts, save_part
from ..evaluation.many import (
    Interrupt,
    Job,
    ManyError,
    parse_share,
    run_many,
    Share,
    share_of_environment,
)
from ..evaluation.runner import FootageRun
from ..evaluation.sequences import EvaluationError, Footage

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What came of the sequences; those that failed, or belong to another share, are missing."""

    places: tuple[int, ...]
    """Of those that are there, in the list of all."""
    runs: tuple[FootageRun, ...]
    failures: dict[str, str]
    """What is wrong, by the name of a sequence."""
    machine: dict[str, Any]
    """What they were run with; of several parts, the first."""


def add_many(parser: argparse.ArgumentParser) -> None:
    """Add the options that `run_sequences` reads."""
    many = parser.add_argument_group('many sequences')
    add_jobs(many, 'one sequence')
    many.add_argument('--shard', type=checked(parse_share), metavar='I/N',
                      help='only every N-th sequence, from the I-th on; default: what RANK and '
                      'WORLD_SIZE of torchrun say, or all')
    many.add_argument('--part', type=Path, metavar='FILE',
                      help='keep what came out, to be merged later (.npz; a shard adds -I-of-N)')
    many.add_argument('--merge', type=Path, nargs='+', metavar='FILE',
                      help='take what came out from these parts, instead of running the detector')


def share_of(options: argparse.Namespace) -> Share:
    """
    Return the share of this process.

    Raises EvaluationError where other options make no sense with it.
    """
    try:
        share = options.shard or share_of_environment()
    except ManyError as error:
        raise EvaluationError(str(error)) from None
    if options.merge and (options.part or options.shard):
        raise EvaluationError('--merge excludes --part and --shard')
    if options.merge:
        return Share()
    if share.count > 1:
        if not options.part:
            raise EvaluationError(f'shard {share} needs --part FILE, to be merged later')
        for key in ('output', 'run', 'report', 'streaming', 'static', 'horizons'):
            if getattr(options, key, None):
                raise EvaluationError(f'--{key} goes with the whole footage; shard {share} is a '
                                      'part of it')
    return share


def run_sequences(options: argparse.Namespace, share: Share, work: FootageWork,
                  detector: Detector, footage: Sequence[Footage], head: Mapping[str, Any],
                  machine: dict[str, Any]) -> Done:
    """
    Run the detector over the sequences of a share, or take their parts.

    Parameters
    ----------
    options:
        With those of `add_many`.
    share:
        Of this process.
    work:
        For every process.
    detector:
        That of `work`, for this process; not warm yet.
    footage:
        All sequences.
    head:
        What parts must have in common.
    machine:
        What this process works with, as plain values.

    Raises
    ------
    DataError
        If no sequence is left.
    EvaluationError
        If the parts do not fit.

    """
    head = {**head, 'names': [item.name for item in footage]}
    runs: dict[int, FootageRun] = {}
    failures: dict[int, str] = {}
    if options.merge:
        try:
            runs, failures, machine = merge_parts(options.merge, head)
        except ManyError as error:
            raise EvaluationError(str(error)) from None
    else:
        jobs = [Job(number, item.name, item) for number, item in share.of(footage)]
        for job in jobs:
            _log.info('%s: %d frames', job.name, len(job.argument.frames))

        def prepare() -> Any:
            detector.warm_up()
            return work.with_detector(detector)

        several = options.jobs > 1 and len(jobs) > 1
        # The flag is never set: Ctrl-C ends the evaluation, and its processes with it.
        for outcome in run_many(work.prepare if several else prepare, jobs, options.jobs,
                                (DataError,), Interrupt(), lambda job, done, total: None):
            if outcome.error is None:
                runs[outcome.job.number] = outcome.value
            else:
                failures[outcome.job.number] = outcome.error
        if options.part:
            path = options.part.with_suffix('.npz')
            if share.count > 1:
                path = path.with_name(f'{path.stem}-{share.index + 1}-of-{share.count}.npz')
            save_part(path, head, runs, failures, machine)
            _log.info('kept: %s', path)
    if not runs:
        raise DataError(next(iter(failures.values()), 'no sequence is in this share'))
    places = tuple(sorted(runs))
    return Done(places, tuple(runs[place] for place in places),
                {footage[place].name: text for place, text in sorted(failures.items())}, machine)
