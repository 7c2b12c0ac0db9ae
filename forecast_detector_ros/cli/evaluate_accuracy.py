# SPDX-License-Identifier: Apache-2.0
"""Measure a checkpoint on annotated video: recall, average precision, read ratio, latency."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .evaluation import Evaluation, evaluation_parser, first_input, prepare, run
from .many_footage import add_many, keep_partial, run_sequences
from .results import machine
from ..evaluation.accuracy import check_protocols
from ..evaluation.accuracy import KEYS as PROTOCOLS
from ..evaluation.evaluation_record import record_evaluation
from ..evaluation.footage_runs import FootageWork
from ..evaluation.identities import check_tracks, identities_as_text, summarise_identities
from ..evaluation.motion import motion_of
from ..evaluation.sequences import EvaluationError
from ..evaluation.summary import as_text, summarise_runs
from ..jobs.locations import location, name_of
from ..metrics.libraries import import_trackeval as tracking_library
from ..report.html_report import load_for_report, write_report
from ..report.run_record import save_run

VERB = 'evaluate accuracy'


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; its exit code is 1 if something was left out, the rest being evaluated."""
    return run(VERB, make_parser().parse_args(args), _measure)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = evaluation_parser(VERB, __doc__)
    parser.add_argument('--run', type=location, metavar='FILE',
                        help='write every frame of the run as JSON, for report')
    parser.add_argument('--report', type=location, metavar='FILE',
                        help='with --run: also write the report as HTML')
    accuracy = parser.add_argument_group('figures')
    accuracy.add_argument('--protocol', choices=PROTOCOLS, nargs='+', default=['plain'],
                          metavar='P', help='of plain (AP50), devkit (ImageNet VID) and coco '
                          '(default plain)')
    accuracy.add_argument('--motion-iou', metavar='auto|FILE',
                          help="split by motion: by track_ids, or ImageNet VID's .mat file")
    accuracy.add_argument('--motion-videos', type=Path, metavar='FILE',
                          help='videos of the .mat file (default: the list beside it)')
    accuracy.add_argument('--identities', action='store_true',
                          help='also identity switches, MOTA, IDF1, HOTA; needs track_ids')
    add_many(parser)
    return parser


def _measure(options: argparse.Namespace) -> tuple[Evaluation, dict[str, Any], str]:
    for key, other in (('motion_videos', 'motion_iou'), ('report', 'run')):
        if getattr(options, key) and not getattr(options, other):
            raise EvaluationError(f'--{key.replace("_", "-")} goes with '
                                  f'--{other.replace("_", "-")} only')
    check_protocols(options.protocol)
    # A record of the run wants the pictures here.
    evaluation = prepare(options, lazily=not options.run)
    if options.identities:
        tracking_library()
        check_tracks(evaluation.footage)
    footage = evaluation.thin(options.stride)
    motion = (motion_of(footage, options.motion_iou, options.motion_videos)
              if options.motion_iou else None)
    detector, settings = evaluation.detector, evaluation.settings
    collect = all(item.labelled is not None for item in footage)
    work = FootageWork(evaluation.path, detector.device, options.precision, options.threads,
                       detector.backend, settings, collect)
    done = run_sequences(options, work, detector, footage)
    evaluation.failures.update(done.failures)
    footage, runs = [footage[place] for place in done.places], done.runs
    result = {**evaluation.about, **summarise_runs(
        footage, runs, detector.labels, options.protocol,
        None if motion is None else [motion[place] for place in done.places])}
    if options.motion_iou:
        result['annotations'] = {**result['annotations'], 'motion_iou': options.motion_iou}
    if done.interrupted:
        keep_partial(options.output, result)
        raise KeyboardInterrupt
    text = as_text(result)
    if options.identities:
        result['identities'] = summarise_identities(footage, runs)
        text += '\n\n' + identities_as_text(result['identities'])
    if options.run:
        save_run(options.run, record_evaluation(
            f'{name_of(first_input(options))}: {settings.policy}', footage, runs,
            detector.card, settings,
            {'sequences': len(footage), 'frames': result['frames'], **result['annotations']},
            {**machine(), **result['machine']}))
        if options.report:
            write_report(options.report, [load_for_report(options.run)])
    return evaluation, result, text
