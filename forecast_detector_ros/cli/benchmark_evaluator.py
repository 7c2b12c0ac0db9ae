# SPDX-License-Identifier: Apache-2.0
"""Measure what the metrics cost on made-up boxes, as many as ImageNet VID's validation has."""

import argparse
from collections.abc import Sequence
import sys

from ..benchmark.synthetic_tables import measure, Workload


def main(args: Sequence[str] | None = None) -> int:
    """Run the program; always 0."""
    default = Workload()
    parser = argparse.ArgumentParser(prog='benchmark_evaluator', description=__doc__)
    parser.add_argument('--frames', type=at_least_one, default=default.frames, metavar='N',
                        help='default %(default)s')
    parser.add_argument('--boxes', type=at_least_one, default=default.boxes, metavar='N',
                        help='annotated boxes in all frames (default %(default)s)')
    parser.add_argument('--detections-per-frame', type=at_least_one, metavar='N',
                        default=default.detections_per_frame, help='default %(default)s')
    parser.add_argument('--seed', type=int, default=default.seed, metavar='N',
                        help='default %(default)s')
    options = parser.parse_args(args)
    print(f'{options.frames} frames, {options.boxes} boxes, '
          f'{options.frames * options.detections_per_frame} detections', flush=True)
    for name, value in measure(Workload(**vars(options))).items():
        print(f'{name:24s} {value:8.2f}')
    return 0


def at_least_one(text: str) -> int:
    """Read a number of things for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'is {text}, must be at least 1')
    return value


if __name__ == '__main__':
    sys.exit(main())
