# SPDX-License-Identifier: Apache-2.0
"""
The common part of the four evaluations, and two of them: streaming and static.

`evaluate accuracy` and `evaluate horizons` have their own files because they need further
libraries.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
import logging
from typing import Any

from .inputs import add_videos, load_videos, named_videos
from .options import (
    add_detector,
    add_latencies,
    add_policies,
    add_seed,
    frame_rate,
    given_settings,
    Group,
    outputs_at,
    positive,
)
from .results import machine, versions
from .shell import Command, DONE, FAILURE, print_result, run_verb, say, tell_written, verb_parser
from ..detector.checkpoint import Checkpoint, default_checkpoint, read_checkpoint
from ..detector.detector import Detector
from ..detector.settings import DetectorSettings
from ..evaluation.accuracy import check_protocols, KEYS as PROTOCOLS
from ..evaluation.runs import load_latencies, run_video, static_as_text, summarise_static
from ..evaluation.sequences import thin, Video, whole_sequences
from ..evaluation.streaming import OUTPUTS, PRESENT, RATES, streaming_as_text, sweep
from ..files import write_json
from ..jobs.locations import kept, Location, location

_log = logging.getLogger(__name__)

#: Options that name files to write; an evaluation has some of them.
OUTPUT_FILES = ('output', 'run', 'report', 'markdown')


@dataclass
class Evaluation:
    """A detector and the sequences that it is measured on."""

    path: Location  #: Path of the checkpoint
    checkpoint: Checkpoint
    detector: Detector
    settings: DetectorSettings
    videos: list[Video]
    about: dict[str, Any]  #: First entries of every result
    #: Errors of the inputs and sequences that are left out, by their names.
    failures: dict[str, str] = field(default_factory=dict)

    def drop_broken(self) -> None:
        """Remove sequences with an unreadable picture; raises DataError if none remains."""
        self.videos, broken = whole_sequences(self.videos)
        self.failures.update(broken)

    def thin(self, stride: int) -> list[Video]:
        """Return every `stride`-th frame of the sequences, once for each of `stride` starts."""
        return [part for item in self.videos for part in thin(item, stride)]


def evaluation_parser(verb: str, description: str | None, one_stride: bool = True
                      ) -> argparse.ArgumentParser:
    """Make the parser of an evaluation, with the options that `prepare` and `run` read."""
    parser = verb_parser(verb, 'VIDEO', description)
    add_videos(parser)
    add_detector(parser, location)
    parser.add_argument('--output', type=location, metavar='FILE', help='write the result as JSON')
    if one_stride:
        parser.add_argument('--stride', type=positive, default=1, metavar='N',
                            help='every N-th frame, from N starts (default 1)')
    return parser


def add_protocols(group: Group) -> None:
    """Add `--protocol`."""
    group.add_argument('--protocol', choices=PROTOCOLS, nargs='+', default=['plain'], metavar='P',
                       help='plain (default), devkit or coco')


#: Returns the evaluation, the result as plain values, and the result as text. If the text is
#: empty, nothing is printed.
Measure = Callable[[argparse.Namespace], tuple[Evaluation, dict[str, Any], str]]


def run(verb: str, options: argparse.Namespace, measure: Measure) -> int:
    """
    Measure, write and print the result; return the verb's exit code.

    :param verb, options: as for `run_verb`
    """
    def work(options: argparse.Namespace) -> int:
        with outputs_at(options, *(key for key in OUTPUT_FILES if key in options)):
            evaluation, result, text = measure(options)
            if text:
                settings = evaluation.settings
                if options.output:
                    options.output.parent.mkdir(parents=True, exist_ok=True)
                    write_json(options.output, result)
                print_result(options, result, tell_written(
                    f'{evaluation.path}: {settings.policy}, score_threshold '
                    f'{settings.score_threshold:g}\n\n{text}', *_written(options)))
            for name, problem in evaluation.failures.items():
                say(verb, f'left out: {name}: {problem}')
            return FAILURE if evaluation.failures else DONE

    return run_verb(verb, options, work, files=OUTPUT_FILES)


def _written(options: argparse.Namespace) -> list[Location]:
    """Return the output files, each as the user named it."""
    return [getattr(options, f'{key}_url', path) for key in OUTPUT_FILES
            if (path := getattr(options, key, None)) is not None]


def prepare(options: argparse.Namespace, lazily: bool = False) -> Evaluation:
    """Load the detector and the sequences, `lazily` as `load_videos` does; raises InputError."""
    path = options.checkpoint or default_checkpoint()
    checkpoint = read_checkpoint(kept(path))
    detector = Detector.load(checkpoint, options.device, options.precision, options.threads,
                             backend=options.backend)
    _log.info('back-end %s, %s', detector.backend, detector.precision)
    settings = replace(detector.card.settings(), **given_settings(options))
    failures: dict[str, str] = {}
    videos = load_videos(options, detector.labels, failures, lazily)
    about = {
        'checkpoint': str(path), 'name': detector.card.name,
        'weights_sha256': detector.card.weights_sha256,
        'settings': {key: getattr(settings, key) for key in (
            'score_threshold', 'nms_threshold', 'vote_threshold', 'score_memory',
            'max_consecutive_forecasts')}
        | {'policy': str(settings.policy)},
        'stride': options.stride, 'annotations': named_videos(options),
        'machine': {'device': detector.device, 'precision': detector.precision,
                    'backend': detector.backend, 'threads': options.threads,
                    'processor': machine()['processor'], 'torch': versions()['torch']}}
    return Evaluation(path, checkpoint, detector, settings, videos, about, failures)


def first_input(options: argparse.Namespace) -> Location:
    """Return the first of the inputs that the options name."""
    inputs: Sequence[Location] = options.davis or options.annotations or options.mot
    return inputs[0]


def _command(verb: str, make_parser: Callable[[], argparse.ArgumentParser], measure: Measure
             ) -> Command:
    """Make a verb; its exit code is 1 if some inputs or sequences were left out."""
    def main(args: Sequence[str] | None) -> int:
        return run(verb, make_parser().parse_args(args), measure)

    return Command(main, make_parser)


STREAMING = 'evaluate streaming'


def _streaming_parser() -> argparse.ArgumentParser:
    parser = evaluation_parser(
        STREAMING, 'Measure accuracy at each instant while video plays at a frame rate.')
    group = parser.add_argument_group('streaming')
    group.add_argument('--rates', type=frame_rate, nargs='+', default=RATES, metavar='HZ',
                       help=f'frame rates (default {" ".join(map(str, RATES))})')
    add_policies(group, 'that of --policy')
    group.add_argument('--outputs', choices=tuple(OUTPUTS), nargs='+', metavar='OUTPUT',
                       default=[PRESENT],
                       help=f'some of {", ".join(OUTPUTS)} (default {PRESENT})')
    add_latencies(group)
    add_seed(group, 'latencies and intervals')
    add_protocols(group)
    return parser


def _measure_streaming(options: argparse.Namespace) -> tuple[Evaluation, dict[str, Any], str]:
    check_protocols(options.protocol)
    latencies = load_latencies(options.latencies, options.seed) if options.latencies else None
    evaluation = prepare(options)
    evaluation.drop_broken()
    evaluation.detector.warm_up()
    result = {**evaluation.about, 'streaming': sweep(
        evaluation.detector, evaluation.thin(options.stride), evaluation.settings,
        options.policies or [evaluation.settings.policy], options.rates, latencies,
        options.protocol, options.outputs, options.seed)}
    return evaluation, result, streaming_as_text(result['streaming'])


streaming = _command(STREAMING, _streaming_parser, _measure_streaming)

STATIC = 'evaluate static'


def _static_parser() -> argparse.ArgumentParser:
    parser = evaluation_parser(
        STATIC, 'Measure how often a detector reads a still scene, compared with the video.')
    parser.add_argument('--frames', type=positive, default=60, metavar='N',
                        help='noisy copies of each first frame (default 60)')
    return parser


def _measure_static(options: argparse.Namespace) -> tuple[Evaluation, dict[str, Any], str]:
    evaluation = prepare(options)
    evaluation.drop_broken()
    detector, settings = evaluation.detector, evaluation.settings
    videos = evaluation.thin(options.stride)
    moving = {item.name: float(run_video(detector, item, settings, collect=False).read.mean())
              for item in videos}
    static = summarise_static(detector, videos, settings, options.frames)
    return (evaluation, {**evaluation.about, 'static': {**static, 'moving': moving}},
            static_as_text(static, moving))


static = _command(STATIC, _static_parser, _measure_static)
