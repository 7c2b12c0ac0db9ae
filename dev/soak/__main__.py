# SPDX-License-Identifier: Apache-2.0
"""
Send a running detector pictures at the rate of a camera, and judge it by time and memory.

The node has its own process and ROS graph, and the QoS of a robot: it takes the newest picture and
drops others. The exit code is 0, or 1 if a picture that was not dropped has no answer, two answers
or a late one. It is also 1 after a traceback or if the memory has grown.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys
from tempfile import TemporaryDirectory
from time import monotonic

from dev.soak.steady import SteadyTrial
from dev.trials.client import Client, reliable, Subject, TrialError
from dev.trials.judgement import add_judgement, bounds_of, growth, judge, Seen, slope
from dev.trials.node_process import NodeProcess, set_environment
from forecast_detector_ros.cli.graph import end_all
import numpy as np

NAMESPACE = '/soak'

_OWN_PUBLISHERS = ('detections', 'decision')


def main(args: Sequence[str] | None = None) -> int:
    """Run the trial and print what came of it."""
    options = make_parser().parse_args(args)
    with TemporaryDirectory(prefix='soak-') as folder:
        domain = set_environment(options.domain, Path(folder))
        return run(options, Path(folder), domain)


def run(options: argparse.Namespace, folder: Path, domain: int) -> int:
    """Start node and client, send pictures, judge."""
    overrides = {name: value for name, value in reliable(options.transport, NAMESPACE).items()
                 if any(f'/{topic}.' in name for topic in _OWN_PUBLISHERS)}
    process = NodeProcess(NAMESPACE, folder, {
        'image_transport': options.transport, 'backend': options.backend, **overrides})
    client, end, begin = None, '', monotonic()
    try:
        client = Client()
        trial = SteadyTrial(Subject(client, process, NAMESPACE, options.transport, depth=1),
                            (options.height, options.width), options.rate)
        try:
            trial.begin()
            begin = monotonic()
            trial.run(options.seconds)
        except TrialError as error:
            end = str(error)
        took = monotonic() - begin
        used = process.processor_s - trial.processor_s
    finally:
        if client is not None:
            client.close()
        end_all([process], 60.0)
    bounds = bounds_of(options)
    subject = trial.subject
    print(f'domain {domain}: {trial.sent} pictures of {options.width}x{options.height}, '
          f'{options.transport}, in {took:.0f} s ({trial.sent / took:.1f} Hz, '
          f'{options.rate:g} wanted)')
    print(f'answered once: {len(trial.latencies_ms)}; dropped: {trial.dropped} '
          f'({trial.dropped / max(1, trial.sent):.2%}); read: {trial.read_ratio:.1%}')
    if trial.latencies_ms:
        p50, p95, p99, most = np.percentile(trial.latencies_ms, (50, 95, 99, 100))
        print(f'latency: p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, max {most:.1f} ms')
    print(f'processor: {used:.0f} s, {used / took:.1%} of one core')
    if subject.memory:
        sizes = [sample.size / 1e6 for sample in subject.memory]
        print(f'memory: {sizes[0]:.1f} MB at first, {max(sizes):.1f} at most, '
              f'{sizes[-1]:.1f} at last; behind the warm-up of {bounds.warm_up_s:g} s '
              f'{growth(subject.memory, bounds.warm_up_s):+.2%}, '
              f'{slope(subject.memory, bounds.warm_up_s) / 1e6:+.2f} MB an hour')
    found = judge(Seen(subject.answers, 0, subject.silent, max(
        trial.latencies_ms, default=0.0) / 1e3, subject.memory, process.text(), end), bounds)
    if trial.unaccounted:
        found.append(f'{trial.unaccounted} pictures were neither dropped nor answered')
    for reason in found:
        print(f'FAILED: {reason}')
    print('failed' if found else 'held')
    if found and options.logs:
        print(process.text(), file=sys.stderr)
    return 1 if found else 0


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = argparse.ArgumentParser(
        prog='python -m dev.soak', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=3600.0, metavar='S',
                        help='default: %(default)s')
    parser.add_argument('--rate', type=float, default=30.0, metavar='HZ',
                        help='default: %(default)s')
    parser.add_argument('--width', type=int, default=640, metavar='PX')
    parser.add_argument('--height', type=int, default=480, metavar='PX')
    parser.add_argument('--transport', choices=('raw', 'compressed'), default='raw')
    add_judgement(parser, 2.0, 'from taking a picture to its detections')
    return parser


if __name__ == '__main__':
    sys.exit(main())
