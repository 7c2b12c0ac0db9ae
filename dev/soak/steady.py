# SPDX-License-Identifier: Apache-2.0
"""A camera of steady rate, and an account of what became of each of its pictures."""
from __future__ import annotations

from array import array
from collections import deque
import sys
from time import monotonic
from typing import Any

import cv2
from dev.fuzz_node.pictures import drawn_sequence, message_of
from dev.trials.client import Subject
from forecast_detector_ros.node.camera import FrameSchedule
from forecast_detector_ros.recording.result_messages import read_decision

LENGTH = 60  #: Pictures that differ; they are shown forwards and backwards

_REPORT_S = 60.0  #: Between two lines about how far it is

_DRAIN_S, _LAST = 10.0, 10  #: For the last answers; further pictures in that time


class SteadyTrial:
    """Sends pictures at a rate and counts what is answered, dropped, or neither."""

    def __init__(self, subject: Subject, size: tuple[int, int], rate: float) -> None:
        """Show drawn pictures of `size` (height, width), `rate` a second."""
        self.subject = subject
        self.sent = 0
        self.dropped = 0  #: What the node says to have dropped
        self.latencies_ms = array('f')
        self.processor_s = 0.0  #: What the process had used when the first picture was sent
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
        """Return which part of the answered pictures was read."""
        return self._reads / max(1, len(self.latencies_ms))

    @property
    def unaccounted(self) -> int:
        """Return how many pictures were neither answered nor dropped by the node's count."""
        return self.sent - len(self.latencies_ms) - self.dropped

    def begin(self) -> None:
        """Wait until the node answers."""
        self.subject.knock(self._next)
        self.subject.client.spin_for(1.0)
        self._counted = True
        self.processor_s = self.subject.process.processor_s

    def run(self, seconds: float) -> None:
        """Send pictures for so long, then wait for the last answers."""
        subject = self.subject
        begin = reported = monotonic()
        schedule = FrameSchedule(self._rate, begin)
        while monotonic() < begin + seconds:
            if monotonic() - reported > _REPORT_S:
                reported = monotonic()
                print(f'{self.sent} pictures in {reported - begin:.0f} s, memory '
                      f'{subject.process.memory() / 1e6:.1f} MB', file=sys.stderr)
            # Answers are heard even when the next picture is late.
            subject.client.spin_for(max(1e-3, schedule.due - monotonic()))
            self._send()
            schedule.advance(monotonic())
            subject.sample()
            subject.check()
        # What was dropped shows at the next picture that was not.
        for _ in range(_LAST):
            if subject.client.spin_until(lambda: self.unaccounted == 0, _DRAIN_S / _LAST):
                break
            self._send()
        subject.client.spin_for(1.0)  # Answers that come twice.
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
        # Decisions come in the order of the pictures: what is passed over was dropped.
        while self._undecided and (other := self._undecided.popleft()) != name:
            self.subject.answers.forgive(other)
