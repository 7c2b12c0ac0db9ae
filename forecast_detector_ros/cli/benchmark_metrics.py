# SPDX-License-Identifier: Apache-2.0
"""Measure the time of the metrics on random boxes, by default as many as in ImageNet VID."""

import argparse
from collections.abc import Sequence

from .options import add_seed, positive
from .shell import print_result, run_verb, verb_parser
from ..benchmark.synthetic_tables import measure_metrics, Workload

VERB = 'benchmark-metrics'


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; give its exit code."""
    return run_verb(VERB, make_parser().parse_args(args), _measure)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    default = Workload()
    parser = verb_parser(VERB, '', __doc__)
    parser.add_argument('--frames', type=positive, default=default.frames, metavar='N',
                        help='of video (default %(default)s)')
    parser.add_argument('--boxes', type=positive, default=default.boxes, metavar='N',
                        help='annotated boxes in all frames (default %(default)s)')
    parser.add_argument('--detections-per-frame', type=positive, metavar='N',
                        default=default.detections_per_frame,
                        help='of the detector (default %(default)s)')
    add_seed(parser, 'the boxes')
    return parser


def _measure(options: argparse.Namespace) -> None:
    workload = Workload(frames=options.frames, boxes=options.boxes, seed=options.seed,
                        detections_per_frame=options.detections_per_frame)
    figures = measure_metrics(workload)
    print_result(
        options, {'frames': options.frames, 'boxes': options.boxes,
                  'detections_per_frame': options.detections_per_frame, 'figures': figures},
        '\n'.join([f'{options.frames} frames, {options.boxes} boxes, '
                   f'{options.frames * options.detections_per_frame} detections',
                   *(f'{name:24s} {value:8.2f}' for name, value in figures.items())]))
