# SPDX-License-Identifier: Apache-2.0
"""Measure recall, average precision, read ratio and latency on annotated video."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
import logging
from pathlib import Path
from typing import Any

from .evaluate import add_protocols, Evaluation, evaluation_parser, first_input, prepare, run
from .options import add_engine, asked_output, engine_of
from .results import machine
from .shell import say, show_progress
from ..annotations.findings import DataError
from ..detector.detector import Detector
from ..errors import InputError
from ..evaluation.accuracy import (
    as_text,
    check_protocols,
    every_object,
    identities_as_text,
    summarise_identities,
    summarise_runs,
)
from ..evaluation.evaluation_record import record_evaluation
from ..evaluation.motion import motion_of
from ..evaluation.runs import VideoRun, VideoWork
from ..evaluation.sequences import EvaluationError, Video
from ..files import write_json
from ..jobs.engine import Interrupt, Job, run_many
from ..jobs.locations import location, name_of
from ..metrics.libraries import import_trackeval as tracking_library
from ..report.run_record import RunRecordError, save_run

VERB = 'evaluate accuracy'


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; its exit code is 1 if some inputs or sequences were left out."""
    return run(VERB, make_parser().parse_args(args), _measure)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = evaluation_parser(VERB, __doc__)
    parser.add_argument('--run', type=location, metavar='FILE',
                        help='write every frame as JSON, for report')
    parser.add_argument('--report', type=location, metavar='FILE',
                        help='with --run: also write the report as HTML')
    accuracy = parser.add_argument_group('figures')
    add_protocols(accuracy)
    accuracy.add_argument('--motion-iou', metavar='auto|FILE',
                          help="split by motion; FILE: ImageNet VID's .mat")
    accuracy.add_argument('--motion-videos', type=Path, metavar='FILE',
                          help='list of its videos (default: in its folder)')
    accuracy.add_argument('--identities', action='store_true',
                          help='also MOTA, IDF1 and HOTA, by track_ids')
    add_engine(parser.add_argument_group('many sequences'))
    return parser


def _measure(options: argparse.Namespace) -> tuple[Evaluation, dict[str, Any], str]:
    for key, other in (('motion_videos', 'motion_iou'), ('report', 'run')):
        if getattr(options, key) and not getattr(options, other):
            raise EvaluationError(f'--{key.replace("_", "-")} goes with '
                                  f'--{other.replace("_", "-")} only')
    if options.report:
        # Report a missing jinja2 before the work, not after it.
        import_module('jinja2')
        from ..report.html_report import load_for_report, write_report
    check_protocols(options.protocol)
    if options.motion_iou and options.protocol == ['coco']:
        raise EvaluationError('--motion-iou divides plain or devkit; name one with --protocol')
    # A record of the run contains the pictures, so they must be on this machine.
    evaluation = prepare(options, lazily=not options.run)
    if options.identities:
        tracking_library()
        every_object(evaluation.videos)
    videos = evaluation.thin(options.stride)
    motion = (motion_of(videos, options.motion_iou, options.motion_videos)
              if options.motion_iou else None)
    detector, settings = evaluation.detector, evaluation.settings
    collect = all(item.labelled is not None for item in videos)
    work = VideoWork(evaluation.path, detector.device, detector.precision, options.threads,
                     detector.backend, settings, collect)
    done = run_sequences(options, work, detector, videos)
    evaluation.failures.update(done.failures)
    videos, runs = [videos[place] for place in done.places], done.runs
    result = {**evaluation.about, **summarise_runs(
        videos, runs, detector.labels, options.protocol,
        None if motion is None else [motion[place] for place in done.places],
        settings.score_threshold)}
    if options.motion_iou:
        result['annotations'] = {**result['annotations'], 'motion_iou': options.motion_iou}
    if done.interrupted:
        keep_partial(options, result)
        raise KeyboardInterrupt
    text = as_text(result)
    if options.identities:
        result['identities'] = summarise_identities(videos, runs)
        text += '\n\n' + identities_as_text(result['identities'])
    if options.run:
        save_run(options.run, record_evaluation(
            f'{name_of(first_input(options))}: {settings.policy}', videos, runs,
            detector.card, settings,
            {'sequences': len(videos), 'frames': result['frames'], **result['annotations']},
            {**machine(), **result['machine']}))
        if options.report:
            try:
                write_report(options.report, [load_for_report(options.run)])
            except RunRecordError as error:
                say(VERB, f'no report: {error}')
                options.report = None
    return evaluation, result, text


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """The results of the sequences that were completed."""

    places: tuple[int, ...]  #: Their indices in the list of all sequences
    runs: tuple[VideoRun, ...]
    failures: dict[str, str]  #: Errors by the name of the sequence
    interrupted: bool = False


def run_sequences(options: argparse.Namespace, work: VideoWork, detector: Detector,
                  videos: Sequence[Video]) -> Done:
    """
    Run the detector over all sequences.

    :param options: contain those of `add_engine`
    :param work: the work of every process
    :param detector: the detector of `work` for this process, not warmed up
    :raises DataError: if no sequence could be run
    :raises KeyboardInterrupt: if the run was interrupted before the first sequence was done, or
        twice
    """
    jobs = [Job(number, item.name, item) for number, item in enumerate(videos)]
    for job in jobs:
        _log.info('%s: %d frames', job.name, len(job.argument.frames))
    engine = engine_of(options)

    def prepare() -> Any:
        detector.warm_up()
        return work.with_detector(detector)

    runs: dict[int, VideoRun] = {}
    failures: dict[int, str] = {}
    done: dict[int, int] = {}
    total = sum(len(item.frames) for item in videos)
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
    if not runs and interrupt.is_set:
        raise KeyboardInterrupt
    if not runs:
        raise DataError(next(iter(failures.values()), 'there is no sequence'))
    places = tuple(sorted(runs))
    return Done(places, tuple(runs[place] for place in places),
                {videos[place].name: text for place, text in sorted(failures.items())},
                interrupt.is_set)


def keep_partial(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Write the result of the sequences done before an interrupt to `--output` with .part."""
    if options.output is not None:
        path = options.output.with_name(f'{options.output.name}.part')
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)
        url = asked_output(options)
        _log.warning('interrupted; the results so far are in %s', f'{url}.part' if url else path)
