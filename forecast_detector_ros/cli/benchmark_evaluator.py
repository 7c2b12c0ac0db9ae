# SPDX-License-Identifier: Apache-2.0
"""Measure what the metrics cost on made-up boxes, as many as ImageNet VID's validation has."""

import argparse
from collections.abc import Sequence
import sys

from .options import positive
from .shell import run_verb, verb_parser
from ..benchmark.synthetic_tables import measure, Workload

VERB = 'benchmark-metrics'


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; give its exit code."""
    return run_verb(VERB, make_parser().parse_args(args), _measure)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    default = Workload()
    parser = verb_parser(VERB, __doc__)
    parser.add_argument('--frames', type=positive, default=default.frames, metavar='N',
                        help='default %(default)s')
    parser.add_argument('--boxes', type=positive, default=default.boxes, metavar='N',
                        help='annotated boxes in all frames (default %(default)s)')
    parser.add_argument('--detections-per-frame', type=positive, metavar='N',
                        default=default.detections_per_frame, help='default %(default)s')
    parser.add_argument('--seed', type=int, default=default.seed, metavar='N',
                        help='default %(default)s')
    return parser


def _measure(options: argparse.Namespace) -> None:
    workload = Workload(frames=options.frames, boxes=options.boxes, seed=options.seed,
                        detections_per_frame=options.detections_per_frame)
    print(f'{options.frames} frames, {options.boxes} boxes, '
          f'{options.frames * options.detections_per_frame} detections', flush=True)
    for name, value in measure(workload).items():
        print(f'{name:24s} {value:8.2f}')


if __name__ == '__main__':
    sys.exit(main())
