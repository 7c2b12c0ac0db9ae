# SPDX-License-Identifier: Apache-2.0
"""Judge a trial by the node's answers, memory and log."""
from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
import re
from statistics import median

TOPICS = ('detections', 'decision')  #: Every valid picture has one answer on each

_TRACEBACK = re.compile(r'^(Traceback \(most recent call last\)|  File ".*", line \d+)',
                        re.MULTILINE)

_END = 0.1  #: Part of the time at the start and at the end whose medians are compared


@dataclass
class Answers:
    """The answers to pictures: their number and time."""

    slowest_s: float = 0.0  #: Longest time from sending a picture to its answers
    complete: int = 0  #: Pictures with all their answers
    doubled: int = 0  #: Answers to a picture that had one on the same topic
    strange: int = 0  #: Answers to pictures that were not expected to have one
    lost: list[str] = field(default_factory=list)
    _sent: dict[str, float] = field(default_factory=dict)
    _heard: Counter[Hashable] = field(default_factory=Counter)
    _done: dict[str, None] = field(default_factory=dict)

    def expect(self, picture: str, now: float) -> None:
        """Record that a picture was sent at `now`, seconds of the steady clock."""
        self._sent[picture] = now

    def hear(self, picture: str, topic: str, now: float) -> None:
        """Record an answer to a picture on one of `TOPICS`."""
        if picture in self._done:
            self.doubled += 1
            return
        if picture not in self._sent:
            self.strange += 1
            return
        self._heard[picture, topic] += 1
        self.doubled += self._heard[picture, topic] > 1
        if all(self._heard[picture, each] for each in TOPICS):
            self.slowest_s = max(self.slowest_s, now - self._sent.pop(picture))
            self.complete += 1
            for each in TOPICS:
                del self._heard[picture, each]
            self._done[picture] = None
            # A double answer comes soon; old entries are deleted to limit the memory.
            if len(self._done) > 1000:
                del self._done[next(iter(self._done))]

    def waits_for(self, picture: str) -> bool:
        """Return whether an answer to a picture is missing."""
        return picture in self._sent

    def forgive(self, picture: str) -> None:
        """Expect no answer: the node has not accepted the picture."""
        self._sent.pop(picture, None)

    def give_up(self) -> None:
        """Count pictures without an answer as lost."""
        self.lost += self._sent
        self._sent.clear()


@dataclass(frozen=True)
class Sample:
    """Memory of a process at some time."""

    time_s: float
    size: float  #: Bytes


def growth(samples: Sequence[Sample], warm_up_s: float) -> float:
    """
    Return the growth of the memory after the warm-up as a fraction.

    It compares the medians of the first and of the last tenth of the remaining time. It is 0 if
    there are fewer than two samples.
    """
    begin = samples[0].time_s + warm_up_s if samples else 0.0
    kept = [sample for sample in samples if sample.time_s >= begin]
    if len(kept) < 2:
        return 0.0
    edge = _END * (kept[-1].time_s - kept[0].time_s)
    first = median(item.size for item in kept if item.time_s <= kept[0].time_s + edge)
    last = median(item.size for item in kept if item.time_s >= kept[-1].time_s - edge)
    return last / first - 1.0


def slope(samples: Sequence[Sample], warm_up_s: float) -> float:
    """Return the memory's growth after the warm-up in bytes per hour (least squares)."""
    begin = samples[0].time_s + warm_up_s if samples else 0.0
    kept = [sample for sample in samples if sample.time_s >= begin]
    if len(kept) < 2:
        return 0.0
    mean_time = sum(item.time_s for item in kept) / len(kept)
    mean_size = sum(item.size for item in kept) / len(kept)
    spread = sum((item.time_s - mean_time) ** 2 for item in kept)
    return 3600.0 * sum((item.time_s - mean_time) * (item.size - mean_size)
                        for item in kept) / spread


def tracebacks(log: str) -> int:
    """Return the number of lines of Python tracebacks in a log."""
    return len(_TRACEBACK.findall(log))


@dataclass(frozen=True)
class Seen:
    """The observations of one node."""

    answers: Answers
    wrong: int  #: Answers that differ from those of a clean run
    silent: Sequence[str]  #: Requests that were never answered
    slowest_request_s: float
    memory: Sequence[Sample]
    log: str
    end: str = ''  #: Reason of an early end of the process; empty if there was none


@dataclass(frozen=True)
class Bounds:
    """The limits of a trial."""

    callback_s: float  #: Seconds from a picture or a request to its answer
    growth: float  #: Growth of the memory after the warm-up, as a fraction
    warm_up_s: float


def add_judgement(parser: argparse.ArgumentParser, callback_s: float, callback: str) -> None:
    """Add the options that `bounds_of` reads, and those of the process."""
    parser.add_argument('--callback', type=float, default=callback_s, metavar='S',
                        help=f'longest time {callback} (default: %(default)s)')
    parser.add_argument('--growth', type=float, default=1.0, metavar='PERCENT',
                        help='largest growth of the memory after the warm-up '
                        '(default: %(default)s)')
    parser.add_argument('--warm-up', type=float, default=60.0, metavar='S',
                        help='seconds in which the memory may grow (default: %(default)s)')
    parser.add_argument('--backend', default='auto', help='of a node (default: %(default)s)')
    parser.add_argument('--domain', type=int, metavar='N', help='ROS_DOMAIN_ID of the trial')
    parser.add_argument('--logs', action='store_true', help="print a node's log after a failure")


def bounds_of(options: argparse.Namespace) -> Bounds:
    """Return the limits of the options."""
    return Bounds(options.callback, options.growth / 100, options.warm_up)


def judge(seen: Seen, bounds: Bounds) -> list[str]:
    """Return one line for each failure of a node; none if it has passed."""
    answers, found = seen.answers, []
    if seen.end:
        found.append(seen.end)
    if answers.lost:
        found.append(f'{len(answers.lost)} answers lost, the first of {answers.lost[0]}')
    if answers.doubled:
        found.append(f'{answers.doubled} answers came twice')
    if seen.wrong:
        found.append(f'{seen.wrong} answers differ from those of a clean run')
    if seen.silent:
        found.append(f'{len(seen.silent)} requests without answer, the first: {seen.silent[0]}')
    slowest = max(answers.slowest_s, seen.slowest_request_s)
    if slowest > bounds.callback_s:
        found.append(f'an answer took {slowest:.2f} s, more than {bounds.callback_s:g} s')
    lines = tracebacks(seen.log)
    if lines:
        found.append(f'{lines} lines of tracebacks in its log')
    grown = growth(seen.memory, bounds.warm_up_s)
    if grown > bounds.growth:
        found.append(f'its memory grew by {grown:.2%} after the warm-up, more than '
                     f'{bounds.growth:.2%}')
    return found
