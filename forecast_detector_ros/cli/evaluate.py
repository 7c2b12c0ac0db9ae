# SPDX-License-Identifier: Apache-2.0
"""Measure a checkpoint on annotated video: recall, AP50, read ratio, latency, forecasts."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
import json
import logging
from pathlib import Path
import sys
from typing import Any

import torch

from .footage_options import add_footage, load_footage, named_footage
from .horizon_options import add_horizons, forecasts_by_horizon, HORIZON_OPTIONS, load_beside
from .many_footage import add_many, run_sequences, share_of
from .options import (
    add_backend,
    add_checkpoint,
    add_device,
    add_settings,
    frame_rate,
    given_settings,
    policy,
    positive,
)
from .provenance import machine
from .shell import DONE, FAILURE, run_verb, say, verb_parser
from ..detector.checkpoint import Card, default_checkpoint
from ..detector.detector import Detector
from ..detector.settings import DetectorSettings
from ..evaluation.accuracy import check_protocols
from ..evaluation.accuracy import KEYS as PROTOCOLS
from ..evaluation.evaluation_record import record_evaluation
from ..evaluation.footage_runs import FootageWork
from ..evaluation.identities import check_tracks, identities_as_text, summarise_identities
from ..evaluation.latencies import load_latencies
from ..evaluation.motion import motion_of
from ..evaluation.sequences import EvaluationError, thin
from ..evaluation.static_scene import static_as_text, summarise_static
from ..evaluation.streaming import OUTPUTS, PRESENT, streaming_as_text, sweep
from ..evaluation.summary import as_text, summarise
from ..files import write_atomically
from ..metrics.tracking import library as tracking_library
from ..report.html_report import load_for_report, write_report
from ..report.run_record import save_run

VERB = 'evaluate'

_log = logging.getLogger(__name__)


def main(args: Sequence[str] | None = None) -> int:
    """
    Run the verb; give its exit code.

    It is 1 after a line on stderr for each input or sequence that cannot be used, the others being
    evaluated.
    """
    return run_verb(VERB, make_parser().parse_args(args), _run)


def _run(options: argparse.Namespace) -> int:
    failures = _evaluate(options)
    for name, problem in failures.items():
        say(VERB, f'left out: {name}: {problem}')
    return FAILURE if failures else DONE


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = verb_parser(VERB, __doc__)
    add_footage(parser)
    detector = parser.add_argument_group('detector (default: what the card recommends)')
    add_checkpoint(detector)
    add_settings(detector)
    add_device(detector)
    add_backend(detector)
    accuracy = parser.add_argument_group('average precision')
    accuracy.add_argument('--protocol', choices=PROTOCOLS, nargs='+', default=['plain'],
                          help="plain: AP50; devkit: ImageNet VID's AP50, with lower thresholds "
                          'for small boxes; coco: AP over thresholds (default plain)')
    accuracy.add_argument('--motion-iou', metavar='auto|FILE',
                          help='split plain and devkit by motion: from track_ids, or from the '
                          '.mat file that was published for ImageNet VID')
    accuracy.add_argument('--motion-videos', type=Path, metavar='FILE',
                          help='list of the videos that the .mat file follows (default: '
                          'VID_val_videos.txt or its .gz beside it)')
    streaming = parser.add_argument_group('streaming accuracy')
    streaming.add_argument('--streaming', type=frame_rate, nargs='+', metavar='HZ',
                           help='frame rates at which the footage shall pass')
    streaming.add_argument('--streaming-policies', type=policy, nargs='+', metavar='P',
                           help='policies to compare (default: that of --policy)')
    streaming.add_argument('--streaming-outputs', choices=tuple(OUTPUTS), nargs='+',
                           metavar='OUTPUT', help='what the detector makes known: '
                           + '; '.join(f'{name}: {text}' for name, text in OUTPUTS.items())
                           + f' (default {PRESENT})')
    streaming.add_argument('--latencies', type=Path, metavar='FILE',
                           help='draw latencies from those in the result of an earlier run '
                           '(default: what each step takes now)')
    streaming.add_argument('--seed', type=int, default=0, metavar='N',
                           help='for drawing latencies, and sequences (default 0)')
    add_horizons(parser)
    parser.add_argument('--stride', type=positive, nargs='+', default=[1], metavar='N',
                        help='every N-th frame of each sequence, from each of N starts (default '
                        '1); of several, the first for all but --horizons')
    parser.add_argument('--identities', action='store_true',
                        help='also measure how well numbers stay with their objects: identity '
                        'switches, MOTA, IDF1, HOTA; annotations need track_ids')
    parser.add_argument('--static', type=positive, nargs='?', const=60, metavar='N',
                        help='also show the first picture of every sequence N times (default '
                        '60), with fresh noise each time, and compare how often it is read')
    parser.add_argument('--output', type=Path, metavar='FILE', help='write the figures as JSON')
    parser.add_argument('--run', type=Path, metavar='FILE',
                        help='write every frame of the run as JSON, for the command report')
    parser.add_argument('--report', type=Path, metavar='FILE',
                        help='with --run: also write the report as HTML')
    add_many(parser)
    return parser


def _evaluate(options: argparse.Namespace) -> dict[str, str]:
    """Evaluate; return what is wrong with inputs and sequences that were left out."""
    share = share_of(options)
    path = options.checkpoint or default_checkpoint()
    detector = Detector.load(path, options.device, options.precision, options.threads,
                             backend=options.backend)
    _log.info('back-end %s, %s', detector.backend, detector.precision)
    settings = _settings(options, detector.card)
    failures: dict[str, str] = {}
    footage = load_footage(options, detector.labels, failures)
    for key, other in (('latencies', 'streaming'), ('streaming_policies', 'streaming'),
                       ('streaming_outputs', 'streaming'),
                       ('motion_videos', 'motion_iou'), ('report', 'run'),
                       *((key, 'horizons') for key in HORIZON_OPTIONS)):
        if getattr(options, key) and not getattr(options, other):
            raise EvaluationError(f'--{key.replace("_", "-")} goes with '
                                  f'--{other.replace("_", "-")} only')
    check_protocols(options.protocol)
    if options.identities:
        tracking_library()
        check_tracks(footage)
    beside = load_beside(options)
    whole = [(item, thin(item, options.stride[0])) for item in footage]
    footage = [part for _, parts in whole for part in parts]
    motion = (motion_of(footage, options.motion_iou, options.motion_videos)
              if options.motion_iou else None)
    latencies = load_latencies(options.latencies, options.seed) if options.latencies else None
    collect = all(item.labelled is not None for item in footage)
    work = FootageWork(path, detector.device, options.precision, options.threads,
                       detector.backend, settings, collect)
    done = run_sequences(options, share, work, detector, footage, {
        'checkpoint': detector.card.weights_sha256 or detector.card.name,
        'settings': repr(settings), 'collect': collect}, {
        'device': detector.device, 'precision': options.precision, 'backend': detector.backend,
        'threads': options.threads, 'processor': machine()['processor'],
        'torch': torch.__version__})
    failures.update(done.failures)
    footage, runs = [footage[place] for place in done.places], done.runs
    motion = None if motion is None else [motion[place] for place in done.places]
    result = {'checkpoint': str(path), 'name': detector.card.name,
              'weights_sha256': detector.card.weights_sha256,
              'settings': {'policy': str(settings.policy),
                           'score_threshold': settings.score_threshold,
                           'nms_threshold': settings.nms_threshold,
                           'max_consecutive_forecasts': settings.max_consecutive_forecasts},
              'stride': options.stride[0],
              'annotations': {**named_footage(options), **(
                  {'motion_iou': options.motion_iou} if options.motion_iou else {})},
              'machine': done.machine,
              **summarise(footage, runs, detector.labels, options.protocol, motion)}
    print(f'{path}: {settings.policy}, score_threshold {settings.score_threshold:g}\n')
    print(as_text(result), flush=True)
    # The second part takes long: what is known is kept if it does not come to its end.
    _write(options.output, result)
    if options.run:
        title = (options.davis or options.annotations or options.mot)[0].resolve()
        save_run(options.run, record_evaluation(
            f'{title.name}: {settings.policy}', footage, runs, detector.card, settings,
            {'sequences': len(footage), 'frames': result['frames'], **result['annotations']},
            {**machine(), **result['machine']}))
        if options.report:
            write_report(options.report, [load_for_report(options.run)])
    if options.identities:
        result['identities'] = summarise_identities(footage, runs)
        print('\n' + identities_as_text(result['identities']), flush=True)
        _write(options.output, result)
    if options.merge or options.jobs > 1:
        detector.warm_up()
    if options.streaming:
        policies = options.streaming_policies or [settings.policy]
        result['streaming'] = sweep(detector, footage, settings, policies, options.streaming,
                                    latencies, options.protocol,
                                    options.streaming_outputs or [PRESENT], options.seed)
        print('\n' + streaming_as_text(result['streaming']), flush=True)
        _write(options.output, result)
    if options.static:
        result['static'] = summarise_static(detector, footage, settings, options.static)
        print('\n' + static_as_text(result['static'], result['sequences']), flush=True)
        _write(options.output, result)
    if options.horizons:
        unbroken = [item for item, parts in whole
                    if not any(part.name in failures for part in parts)]
        result['forecasts'], text = forecasts_by_horizon(options, path, beside, unbroken,
                                                         settings)
        print('\n' + text)
        _write(options.output, result)
    return failures


def _write(path: Path | None, result: dict[str, Any]) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(result, indent=1, allow_nan=False) + '\n').encode())


def _settings(options: argparse.Namespace, card: Card) -> DetectorSettings:
    return replace(card.settings(), **given_settings(options))


if __name__ == '__main__':
    sys.exit(main())
