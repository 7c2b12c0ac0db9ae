# SPDX-License-Identifier: Apache-2.0
"""Judge a trial by what was seen of it: answers, memory, and what the node has printed."""
from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
import re
from statistics import median

TOPICS = ('detections', 'decision')  #: Every picture that can be used is answered once on each

_TRACEBACK = re.compile(r'^(Traceback \(most recent call last\)|  File ".*", line \d+)',
                        re.MULTILINE)

_END = 0.1  #: Part of the time, at both ends of what is compared, whose median stands for that end


@dataclass
class Answers:
    """Which pictures were answered, how often, and how long it took."""

    slowest_s: float = 0.0  #: From sending a picture to its answers
    complete: int = 0  #: Pictures with all their answers
    doubled: int = 0  #: Answers to a picture that had one on the same topic
    strange: int = 0  #: Answers to what was not expected to have one
    lost: list[str] = field(default_factory=list)
    _sent: dict[str, float] = field(default_factory=dict)
    _heard: Counter[Hashable] = field(default_factory=Counter)
    _done: dict[str, None] = field(default_factory=dict)

    def expect(self, picture: str, now: float) -> None:
        """Note that a picture was sent at `now`, seconds of the steady clock."""
        self._sent[picture] = now

    def hear(self, picture: str, topic: str, now: float) -> None:
        """Note an answer to a picture on one of `TOPICS`."""
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
            # A doubled answer comes soon; a run of days is not to fill the memory.
            if len(self._done) > 1000:
                del self._done[next(iter(self._done))]

    def waits_for(self, picture: str) -> bool:
        """Tell whether an answer to a picture is missing."""
        return picture in self._sent

    def forgive(self, picture: str) -> None:
        """Expect no answer any more: the node has not taken the picture."""
        self._sent.pop(picture, None)

    def give_up(self) -> None:
        """Count what has no answer by now as lost."""
        self.lost += self._sent
        self._sent.clear()


@dataclass(frozen=True)
class Sample:
    """Memory of a process at some time."""

    time_s: float
    size: float  #: Bytes


def growth(samples: Sequence[Sample], warm_up_s: float) -> float:
    """
    Return by which part of itself the memory has grown behind the warm-up; 0.01 is one percent.

    Compared are the medians of the first and of the last tenth of the time that is left. 0 when
    less than two samples are left.
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
    """Return by how many bytes an hour the memory grows behind the warm-up (least squares)."""
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
    """Return how many lines of a log begin a Python traceback or belong to one."""
    return len(_TRACEBACK.findall(log))


@dataclass(frozen=True)
class Seen:
    """What was seen of one node."""

    answers: Answers
    wrong: int  #: Answers that differ from those of a clean run
    silent: Sequence[str]  #: Requests that were never answered
    slowest_request_s: float
    memory: Sequence[Sample]
    log: str
    end: str = ''  #: Why the process has ended before its time; empty if it has not


@dataclass(frozen=True)
class Bounds:
    """From where on a trial has failed."""

    callback_s: float  #: Seconds from a picture or a request to its answer
    growth: float  #: Of the memory behind the warm-up; 0.01 is one percent
    warm_up_s: float


def add_judgement(parser: argparse.ArgumentParser, callback_s: float, callback: str) -> None:
    """Add the options that `bounds_of` reads, and those of the process."""
    parser.add_argument('--callback', type=float, default=callback_s, metavar='S',
                        help=f'longest time {callback} (default: %(default)s)')
    parser.add_argument('--growth', type=float, default=1.0, metavar='PERCENT',
                        help='of the memory, behind the warm-up (default: %(default)s)')
    parser.add_argument('--warm-up', type=float, default=60.0, metavar='S',
                        help='time in which the memory may grow (default: %(default)s)')
    parser.add_argument('--backend', default='auto', help='of a node (default: %(default)s)')
    parser.add_argument('--domain', type=int, metavar='N', help='ROS_DOMAIN_ID of the trial')
    parser.add_argument('--logs', action='store_true', help="print a node's log after a failure")


def bounds_of(options: argparse.Namespace) -> Bounds:
    """Return what the options say."""
    return Bounds(options.callback, options.growth / 100, options.warm_up)


def judge(seen: Seen, bounds: Bounds) -> list[str]:
    """Return what speaks against a node, a line each; nothing when it has held."""
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
        found.append(f'its memory grew by {grown:.2%} behind the warm-up, more than '
                     f'{bounds.growth:.2%}')
    return found
