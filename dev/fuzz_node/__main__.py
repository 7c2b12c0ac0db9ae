# SPDX-License-Identifier: Apache-2.0
"""
Send hostile messages to two detectors, one with raw and one with compressed images; judge both.

Each node has its own process; both are on a separate ROS graph. The exit code is 0, or 1 if an
answer is lost, double, late or different from a clean run. It is also 1 after a traceback or if
the memory has grown.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys
from tempfile import TemporaryDirectory
from time import monotonic, process_time

from dev.fuzz_node.pictures import MOST_PIXELS
from dev.fuzz_node.trial import FuzzTrial
from dev.trials.client import (
    Client,
    NodeProcess,
    reliable,
    set_environment,
    Subject,
    TrialError,
)
from dev.trials.judgement import add_judgement, bounds_of, growth, judge, Seen
from forecast_detector_ros.cli.graph import end_all

TRANSPORTS = ('raw', 'compressed')

_REPORT_S = 60.0  #: Seconds between two lines of progress


def main(args: Sequence[str] | None = None) -> int:
    """Run the trial and print its result."""
    options = make_parser().parse_args(args)
    with TemporaryDirectory(prefix='fuzz_node-') as folder:
        domain = set_environment(options.domain, Path(folder))
        return run(options, Path(folder), domain)


def run(options: argparse.Namespace, folder: Path, domain: int) -> int:
    """Start nodes and client, run the trials, and judge them."""
    parameters = {
        'max_image_pixels': MOST_PIXELS, 'diagnostics_period': 0.5, 'score_threshold': 0.2,
        'backend': options.backend}
    processes: list[NodeProcess] = []
    client = None
    try:
        for transport in TRANSPORTS:
            processes.append(NodeProcess(f'/{transport}', folder, {
                **parameters, 'image_transport': transport,
                **reliable(transport, f'/{transport}')}))
        client = Client()
        trials = [FuzzTrial(Subject(client, process, f'/{transport}', transport), options.seed)
                  for process, transport in zip(processes, TRANSPORTS)]
        begin = monotonic()
        ends = ['' for _ in trials]
        try:
            _drive(trials, options, begin)
        except TrialError as error:
            ends = [str(error) if process.exit_code is not None else '' for process in processes]
            if not any(ends):
                ends = [str(error)] * len(ends)
        took = monotonic() - begin
        print('processor time, s: ' + ', '.join(
            f'{transport} {process.processor_s:.0f}'
            for transport, process in zip(TRANSPORTS, processes))
            + f', client {process_time():.0f}')
        client.spin_for(1.0)  # Receives double answers.
    finally:
        if client is not None:
            client.close()
        end_all(processes, 60.0)
    failed = _report(trials, ends, options, took, domain)
    if failed and options.logs:
        for process in processes:
            print(f'--- {process.log.name}\n{process.text()}', file=sys.stderr)
    return 1 if failed else 0


def _drive(trials: Sequence[FuzzTrial], options: argparse.Namespace, begin: float) -> None:
    for trial in trials:
        trial.begin()
    started = reported = monotonic()
    while sum(trial.messages for trial in trials) < options.messages and (
            monotonic() - started < options.seconds):
        # Trials take turns, so that one node works while messages for the other are made.
        for trial in trials:
            trial.burst()
        for trial in trials:
            trial.episode()
        if monotonic() - reported > _REPORT_S:
            reported = monotonic()
            sizes = ', '.join(f'{trial.subject.process.memory() / 1e6:.1f}' for trial in trials)
            print(f'{sum(trial.messages for trial in trials)} messages in '
                  f'{reported - begin:.0f} s, memory {sizes} MB', file=sys.stderr)
    for trial in trials:
        trial.subject.answers.give_up()


def _report(trials: Sequence[FuzzTrial], ends: Sequence[str], options: argparse.Namespace,
            took: float, domain: int) -> bool:
    """Print the summary; return whether a node has failed."""
    bounds = bounds_of(options)
    total = sum(trial.messages for trial in trials)
    print(f'seed {options.seed}, domain {domain}: {total} messages in {took:.0f} s')
    failed = False
    for trial, end in zip(trials, ends):
        subject = trial.subject
        answers = subject.answers
        print('\n'.join(trial.summary()))
        print(f'  answered once: {answers.complete}; clean run: {trial.found} detections; '
              f'hostile pictures taken: {trial.accepted}; '
              f'slowest answer {answers.slowest_s:.2f} s, request '
              f'{subject.slowest_request_s:.2f} s, transition '
              f'{subject.slowest_transition_s:.2f} s')
        if subject.memory:
            sizes = [sample.size / 1e6 for sample in subject.memory]
            print(f'  memory {sizes[0]:.1f} MB at first, {max(sizes):.1f} at most, '
                  f'{sizes[-1]:.1f} at last; after the warm-up '
                  f'{growth(subject.memory, bounds.warm_up_s):+.2%}')
        for reason in judge(Seen(
                answers, len(trial.wrong), subject.silent, subject.slowest_request_s,
                subject.memory, subject.process.text(), end), bounds):
            failed = True
            print(f'  FAILED: {reason}')
        for place in trial.wrong[:3]:
            print(f'    {place}')
        if not trial.found:
            failed = True
            print('  FAILED: nothing was detected in the clean run, so nothing is compared')
    print('failed' if failed else 'held')
    return failed


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = argparse.ArgumentParser(
        prog='python -m dev.fuzz_node', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seed', type=int, default=1, metavar='N', help='default: %(default)s')
    parser.add_argument('--messages', type=int, default=10**9, metavar='N',
                        help='end after this number')
    parser.add_argument('--seconds', type=float, default=10**9, metavar='S',
                        help='end after this time')
    add_judgement(parser, 5.0, 'to an answer')
    return parser


if __name__ == '__main__':
    sys.exit(main())
