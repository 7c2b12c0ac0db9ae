# SPDX-License-Identifier: Apache-2.0
"""The common part of the four evaluations: options, data and results."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
import logging
from typing import Any

from .inputs import add_videos, load_videos, named_videos
from .options import add_detector, given_settings, Group, outputs_at, positive
from .results import machine, versions
from .shell import DONE, FAILURE, print_result, run_verb, say, verb_parser
from ..detector.checkpoint import Checkpoint, default_checkpoint, read_checkpoint
from ..detector.detector import Detector
from ..detector.settings import DetectorSettings
from ..evaluation.accuracy import KEYS as PROTOCOLS
from ..evaluation.sequences import thin, Video, whole_sequences
from ..files import write_json
from ..jobs.locations import kept, Location, location

_log = logging.getLogger(__name__)


@dataclass
class Evaluation:
    """A detector and the sequences that it is measured on."""

    path: Location  #: Of the checkpoint
    checkpoint: Checkpoint  #: What was read there
    detector: Detector
    settings: DetectorSettings
    videos: list[Video]
    about: dict[str, Any]  #: How every result begins
    #: What is wrong with inputs and sequences that are left out, by their names.
    failures: dict[str, str] = field(default_factory=dict)

    def drop_broken(self) -> None:
        """Leave out sequences with a picture that cannot be read; raises DataError if all have."""
        self.videos, broken = whole_sequences(self.videos)
        self.failures.update(broken)

    def thin(self, stride: int) -> list[Video]:
        """Return every `stride`-th frame of the sequences, from each of as many starts."""
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


def run(verb: str, options: argparse.Namespace,
        measure: Callable[[argparse.Namespace], tuple[Evaluation, dict[str, Any], str]]) -> int:
    """
    Measure, write and print what came out; give the verb's exit code.

    :param verb, options: as for `run_verb`
    :param measure: gives what was evaluated, the result as plain values, and as text; no text:
        there is nothing to tell
    """
    def work(options: argparse.Namespace) -> int:
        evaluation, result, text = measure(options)
        if text:
            settings = evaluation.settings
            if options.output:
                options.output.parent.mkdir(parents=True, exist_ok=True)
                write_json(options.output, result)
            print_result(options, result, f'{evaluation.path}: {settings.policy}, '
                         f'score_threshold {settings.score_threshold:g}\n\n{text}')
        for name, problem in evaluation.failures.items():
            say(verb, f'left out: {name}: {problem}')
        return FAILURE if evaluation.failures else DONE

    def put_results(options: argparse.Namespace) -> int:
        with outputs_at(options, *(key for key in ('output', 'run', 'report') if key in options)):
            return work(options)

    return run_verb(verb, options, put_results)


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
