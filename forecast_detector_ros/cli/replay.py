# SPDX-License-Identifier: Apache-2.0
"""Detect objects in the images of bags and videos, without ROS and reproducibly."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
import shutil
import sys
import time
from typing import Any

from . import shell
from .options import (
    add_detector,
    add_engine,
    add_latencies,
    add_min_score,
    add_seed,
    asked_output,
    checked,
    engine_of,
    given_settings,
    limit,
    number_in,
    outputs_at,
)
from .report import add_report
from .results import figure_lines, machine, ResultFolder, versions
from .shell import (
    command_line,
    FAILURE,
    print_result,
    run_verb,
    say,
    show_many,
    show_progress,
    verb_parser,
)
from ..detector.detector import Detector
from ..detector.settings import DetectorSettings
from ..detector.stream import MAX_GAP_S
from ..errors import InputError
from ..evaluation.evaluation_record import model_values
from ..evaluation.runs import Latencies, load_latencies
from ..images.image_messages import MAX_IMAGE_PIXELS
from ..jobs.engine import Engine, Interrupt, Job, run_many
from ..jobs.locations import kept, location, unpack
from ..recording.output_files import BagError, MISSING, VideoError
from ..replay.arrivals import EVERY_FRAME, GivenLatency, MODES, parse_latency
from ..replay.bag_replay import BagJob, prepare_replay, ReplayOptions
from ..replay.collect import (
    BAGS_FOLDER,
    BagState,
    DONE,
    FAILED,
    find_bags,
    INTERRUPTED,
    write_result,
)
from ..replay.truth import MATCHES, ORDER

VERB = 'replay'

_EXPECTED = (InputError, BagError, VideoError)


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; its exit code is 1 if a bag failed; the other bags are replayed."""
    given = list(sys.argv[1:] if args is None else args)
    options = make_parser().parse_args(given)

    def work(chosen: argparse.Namespace) -> int:
        with outputs_at(chosen, 'output'):
            return _replay(chosen, given)

    return run_verb(VERB, options, work, _EXPECTED,
                    interrupted='interrupted twice; unfinished results are lost')


def _replay(options: argparse.Namespace, given: Sequence[str]) -> int:
    if MISSING:
        raise BagError(MISSING)
    bags = find_bags(options.bags)
    replay = _replay_options(options)
    # Load here first, so that an error of the checkpoint is reported before the work.
    detector = replay.load()
    # Machines of a cluster may differ, so `auto` could mean different precisions.
    replay = replace(replay, precision=detector.precision)
    card = detector.card
    settings = replay.settings(card)
    result = ResultFolder(options.output)
    origin = {'started': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
              'command': command_line(VERB, given), 'machine': machine(), 'versions': versions()}
    engine = engine_of(options)
    jobs = [Job(number, name, BagJob(path, name, result.partial / BAGS_FOLDER / name,
                                     engine.ray is not None))
            for number, (name, path) in enumerate(bags)]
    states = [BagState(name, str(path)) for name, path in bags]
    with Interrupt() as interrupt:
        try:
            _run(replay, detector if engine.is_here(len(jobs)) else None, jobs, engine, interrupt,
                 states)
        except InputError:
            if not (result.partial / BAGS_FOLDER).exists():
                result.discard()
            raise
        head = {
            'checkpoint': card.weights_sha256 or card.name, 'labels': list(card.classes),
            'model': model_values(card),
            'options': {
                'policy': str(settings.policy), 'score_threshold': settings.score_threshold,
                'nms_threshold': settings.nms_threshold,
                'vote_threshold': settings.vote_threshold,
                'score_memory': settings.score_memory, 'classes': list(settings.classes),
                'max_detections': settings.max_detections,
                'max_consecutive_forecasts': settings.max_consecutive_forecasts,
                'mode': options.mode, 'latency': _latency_values(replay.latency),
                'max_gap_s': options.max_gap, 'max_image_pixels': options.max_image_pixels,
                'publish_ahead': options.publish_ahead,
                'topics': options.topic, 'match': options.match,
                'annotations': options.annotations and options.annotations.name,
                'truth_topic': options.truth_topic, 'min_score': options.min_score},
            'device': detector.device, 'precision': detector.precision,
            'backend': detector.backend,
            'threads': options.threads, **origin}
        summary = write_result(result.partial, head, states)
        if summary['results']:
            add_report(VERB, result.partial)
    _say_losses(summary)
    if not summary['results']:
        _say_failures(summary)
        result.discard()
        stays = f'; {result.path} stays as it is' if result.path.exists() else ''
        say(VERB, f'{"interrupted; " * interrupt.is_set}no result was written{stays}')
        return shell.INTERRUPTED if interrupt.is_set else FAILURE
    if interrupt.is_set:
        url = asked_output(options)
        place = f'{url}.part' if url else result.partial
        say(VERB, f'interrupted; the finished part is complete and is in {place}')
        return shell.INTERRUPTED
    result.accept()
    _tell(options, summary, result.path)
    return FAILURE if any(state.state == FAILED for state in states) else 0


def _run(replay: ReplayOptions, detector: Detector | None, jobs: Sequence[Job], engine: Engine,
         interrupt: Interrupt, states: list[BagState]) -> None:
    """Replay all bags; `detector` is used for the jobs of this process."""
    with show_progress('images') as show:
        for outcome in run_many(engine, partial(prepare_replay, replay, detector), jobs,
                                (*_EXPECTED, OSError), interrupt, show_many(show, len(jobs))):
            job, bag = outcome.job, outcome.value
            state = FAILED if outcome.error else (
                INTERRUPTED if bag.summary['interrupted'] else DONE)
            if bag is not None and bag.files is not None:
                unpack(bag.files, job.argument.folder)
            states[job.number] = BagState(job.name, str(job.argument.path), state, outcome.error)
    for job, result in zip(jobs, states):
        # A killed process leaves an incomplete folder.
        if result.state not in (DONE, INTERRUPTED):
            shutil.rmtree(job.argument.folder, ignore_errors=True)


def _say_losses(summary: dict[str, Any]) -> None:
    for item in summary['results'].values():
        for loss in item['losses']:
            say(VERB, f'lost: {loss}')
        for camera in item['cameras'].values():
            if camera.get('annotations_doubt'):
                say(VERB, f'annotations: {camera["annotations_doubt"]}')


def _say_failures(summary: dict[str, Any]) -> None:
    for state in summary['bags']:
        if state['state'] == FAILED:
            say(VERB, f'{state["name"]} failed: {state["error"]}')


def _tell(options: argparse.Namespace, summary: dict[str, Any], folder: Path) -> None:
    _say_failures(summary)
    lines = [f'bags: {len(summary["results"])}; images: {summary["images"]}, of which '
             f'{summary["read"]} read, {summary["forecast"]} forecast, {summary["dropped"]} '
             f'dropped, {summary["refused"]} refused', *figure_lines(summary)]
    accuracy = summary['accuracy']
    if accuracy is not None:
        ap50, recall = (_number(accuracy[key]) for key in ('ap50', 'mean_recall'))
        lines.append(f'against {accuracy["boxes"]} annotated boxes in {accuracy["frames"]} '
                     f'images: AP50 {ap50}, mean recall {recall}')
    place = asked_output(options) or folder
    print_result(options, {**summary, 'output': str(place)},
                 '\n'.join([*lines, f'written: {place}']))


def _latency_values(latency: GivenLatency | Latencies | None) -> dict[str, Any] | None:
    if isinstance(latency, Latencies):
        return {'file': latency.path.name, 'seed': latency.seed,
                **{kind: len(values) for kind, values in latency.values.items()}}
    return None if latency is None else dict(vars(latency))


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'


def _replay_options(options: argparse.Namespace) -> ReplayOptions:
    changes = given_settings(options)
    if options.classes:
        changes['classes'] = tuple(options.classes)
    if options.annotations and options.truth_topic:
        raise InputError('--annotations and --truth-topic exclude each other')
    if options.latency and options.latencies:
        raise InputError('--latency and --latencies exclude each other')
    if isinstance(options.annotations, Path) and not options.annotations.is_file():
        raise InputError(f'{options.annotations}: no such file')
    latency = (load_latencies(kept(options.latencies), options.seed) if options.latencies
               else options.latency)
    return ReplayOptions(
        options.checkpoint, options.device, options.precision, options.threads,
        options.backend, changes, tuple(options.topic), options.mode, latency, options.max_gap,
        options.publish_ahead, options.video, options.annotations, options.match,
        options.min_score, options.truth_topic, options.max_image_pixels)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = verb_parser(VERB, 'BAG...', __doc__)
    parser.add_argument('bags', nargs='+', type=location, metavar='BAG',
                        help='bag (MCAP, sqlite3, ROS 1), video file, or folder of bags')
    parser.add_argument('--output', type=location, default=Path('replay_output'),
                        metavar='FOLDER',
                        help='folder of the results; it is replaced (default %(default)s)')
    parser.add_argument('--topic', nargs='+', default=[], metavar='T',
                        help='topics of images (default: all)')
    parser.add_argument('--mode', choices=MODES, default=EVERY_FRAME, metavar='MODE',
                        help='every-frame (default) or real-time')
    parser.add_argument('--latency', type=checked(parse_latency), metavar='read=MS,forecast=MS',
                        help='latencies in place of measured ones')
    add_latencies(parser, location)
    add_seed(parser, 'the drawn latencies')
    parser.add_argument('--publish-ahead', action='store_true',
                        help='also write /detections_ahead')
    parser.add_argument('--video', action='store_true', help='also write an annotated video')
    detector = add_detector(parser, location)
    detector.add_argument('--max-detections', type=limit, metavar='N',
                          help='most boxes of a frame '
                          f'(default {DetectorSettings().max_detections})')
    detector.add_argument('--classes', nargs='+', metavar='NAME', help='show only these classes')
    detector.add_argument('--max-gap', type=number_in(float, 0, 3600), default=MAX_GAP_S,
                          metavar='S', help='longest gap of stamps, seconds (default %(default)g)')
    detector.add_argument('--max-image-pixels', type=number_in(int, 1, 2**30),
                          default=MAX_IMAGE_PIXELS, metavar='N',
                          help='larger images are refused (default %(default)s)')
    truth = parser.add_argument_group('annotations')
    truth.add_argument('--annotations', type=location, metavar='FILE', help='COCO-video JSON')
    truth.add_argument('--match', choices=MATCHES, default=ORDER,
                       help='by frame_index (default) or by stamp_ns')
    add_min_score(truth, 0.4)
    truth.add_argument('--truth-topic', metavar='T',
                       help='topic of true boxes, a Detection2DArray')
    add_engine(parser.add_argument_group('many bags'))
    return parser
