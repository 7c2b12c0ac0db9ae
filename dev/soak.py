# SPDX-License-Identifier: Apache-2.0
"""
Send pictures to a running detector at the rate of a camera, and judge its time and memory.

The node has its own process and ROS graph, and the QoS of a robot: it takes the newest picture and
drops others. The exit code is 0, or 1 if a picture that was not dropped has no answer, two answers
or a late one. It is also 1 after a traceback or if the memory has grown.
"""
from __future__ import annotations

import argparse
from array import array
from collections import deque
from collections.abc import Sequence
from pathlib import Path
import sys
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import cv2
from dev.fuzz_node.pictures import drawn_sequence, message_of
from dev.trials.client import (
    Client,
    NodeProcess,
    reliable,
    set_environment,
    Subject,
    TrialError,
)
from dev.trials.judgement import add_judgement, bounds_of, growth, judge, Seen, slope
from forecast_detector_ros.cli.graph import end_all
from forecast_detector_ros.node.camera import FrameSchedule
from forecast_detector_ros.recording.result_messages import read_decision
import numpy as np

NAMESPACE = '/soak'

_OWN_PUBLISHERS = ('detections', 'decision')


LENGTH = 60  #: Different pictures, which are shown forwards and backwards

_REPORT_S = 60.0  #: Seconds between two lines of progress

_DRAIN_S, _LAST = 10.0, 10  #: Seconds for the last answers, and further pictures in that time


class SteadyTrial:
    """Sends pictures at a rate, and counts answered, dropped and missing ones."""

    def __init__(self, subject: Subject, size: tuple[int, int], rate: float) -> None:
        """Show drawn pictures of `size` (height, width), `rate` a second."""
        self.subject = subject
        self.sent = 0
        self.dropped = 0  #: Pictures that the node reports as dropped
        self.latencies_ms = array('f')
        self.processor_s = 0.0  #: Processor time of the node before the first picture
        self._rate = rate
        self._reads = 0
        self._dropped_before = 0
        pictures = [cv2.resize(picture, size[::-1]) for picture in drawn_sequence(1, LENGTH)]
        self._messages = [message_of(picture, subject.transport, '') for picture in
                          [*pictures, *pictures[-2:0:-1]]]
        self._names = 0
        self._counted = False
        self._undecided: deque[str] = deque()
        subject.on_answer = self._on_answer

    @property
    def read_ratio(self) -> float:
        """Return the read ratio of the answered pictures."""
        return self._reads / max(1, len(self.latencies_ms))

    @property
    def unaccounted(self) -> int:
        """Return the number of pictures that were neither answered nor reported as dropped."""
        return self.sent - len(self.latencies_ms) - self.dropped

    def begin(self) -> None:
        """Wait until the node answers."""
        self.subject.knock(self._next)
        self.subject.client.spin_for(1.0)
        self._counted = True
        self.processor_s = self.subject.process.processor_s

    def run(self, seconds: float) -> None:
        """Send pictures for `seconds`, then wait for the last answers."""
        subject = self.subject
        begin = reported = monotonic()
        schedule = FrameSchedule(self._rate, begin)
        while monotonic() < begin + seconds:
            if monotonic() - reported > _REPORT_S:
                reported = monotonic()
                print(f'{self.sent} pictures in {reported - begin:.0f} s, memory '
                      f'{subject.process.memory() / 1e6:.1f} MB', file=sys.stderr)
            # Spin at least for a moment, so that answers are received even if a picture is late.
            subject.client.spin_for(max(1e-3, schedule.due - monotonic()))
            self._send()
            schedule.advance(monotonic())
            subject.sample()
            subject.check()
        # Dropped pictures are known only after the next answered one.
        for _ in range(_LAST):
            if subject.client.spin_until(lambda: self.unaccounted == 0, _DRAIN_S / _LAST):
                break
            self._send()
        subject.client.spin_for(1.0)  # Receives double answers.
        subject.answers.give_up()

    def _send(self) -> None:
        self._undecided.append(self.subject.expect(self._next()))
        self.sent += 1

    def _next(self) -> Any:
        message = self._messages[self._names % len(self._messages)]
        self._names += 1
        message.header.frame_id = f'{"counted" if self._counted else "early"} {self._names}'
        message.header.stamp = self.subject.client.node.get_clock().now().to_msg()
        return message

    def _on_answer(self, name: str, topic: str, message: Any) -> None:
        if topic != 'decision':
            return
        values = {item.key: item.value for item in message.status[0].values}
        dropped = int(values['dropped_frames'])
        if not name.startswith('counted'):
            self._dropped_before = dropped
            return
        told = read_decision(message)
        self.dropped = dropped - self._dropped_before
        self._reads += told['kind'] == 'read'
        self.latencies_ms.append(told['latency_ms'] or 0.0)
        # Decisions come in the order of the pictures, so skipped pictures were dropped.
        while self._undecided and (other := self._undecided.popleft()) != name:
            self.subject.answers.forgive(other)


def main(args: Sequence[str] | None = None) -> int:
    """Run the trial and print its result."""
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
              f'{sizes[-1]:.1f} at last; after the warm-up of {bounds.warm_up_s:g} s '
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
