# SPDX-License-Identifier: Apache-2.0
"""One node under hostile messages, and the comparison with its own clean run."""
from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from dev.fuzz_node.pictures import drawn_sequence, HostileMessages, message_of
from dev.fuzz_node.requests import HostileRequests
from dev.trials.client import Subject
from forecast_detector_ros.node.parameters import LIVE_PARAMETERS
from forecast_detector_ros.recording.result_messages import read_decision, read_detections
import numpy as np
from rcl_interfaces.msg import Parameter
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from std_srvs.srv import SetBool, Trigger

#: Sequences of valid pictures whose answers must never change, and the length of each.
SEQUENCES, LENGTH = 4, 5

BURST = 400  #: Most successive hostile messages; fewer than the depth of a queue (DEPTH)

#: Probabilities of each disturbance in an episode, and of the comparison with the clean run.
_P_PARAMETERS, _P_SERVICES, _P_LIFE_CYCLE, _P_PLAY = 0.2, 0.2, 0.01, 0.3

_PAUSE_EVERY = 10  #: Episodes from one pause to the next

#: Largest differences of two answers to the same picture, which are due to rounding.
_BOX_PX, _SCORE = 0.01, 1e-4

#: Decision, reason and classes; confidence (-1: none) and scores; boxes, (N, 4) xyxy.
Answer = tuple[tuple[str, ...], np.ndarray, np.ndarray]


class FuzzTrial:
    """Runs a node through episodes; many end with pictures whose answers are known."""

    def __init__(self, subject: Subject, seed: int) -> None:
        """Prepare a trial with random numbers from `seed`."""
        self.subject = subject
        self.counts: Counter[str] = Counter()  #: Messages sent, requests among them, by kind
        self.values = 0  #: Values of parameters that were tried
        self.walks = 0  #: Walks through the life cycle, each of some transitions
        self.accepted = 0  #: Hostile pictures that the node took for pictures
        self.found = 0  #: Detections in the clean run
        self.wrong: list[str] = []
        self._rng = Random(f'{seed} {subject.transport}')
        self._hostile = HostileMessages(subject.transport, self._rng)
        self._requests = HostileRequests(self._rng)
        self._sequences = [
            [message_of(picture, subject.transport, '', index)
             for index, picture in enumerate(drawn_sequence(number, LENGTH))]
            for number in range(SEQUENCES)]
        self._known: dict[tuple[int, int], Answer] = {}
        self._heard: dict[str, dict[str, Any]] = {}
        self._compared: dict[str, tuple[int, int]] = {}
        self._names = 0
        self._episodes = 0
        self._last = ''
        self._defaults: list[Parameter] = []
        subject.on_answer = self._on_answer

    @property
    def messages(self) -> int:
        """Return the number of messages so far."""
        return self.counts.total()

    def summary(self) -> list[str]:
        """Return lines with the numbers of messages and requests."""
        kinds = ', '.join(f'{count} {kind}' for kind, count in sorted(self.counts.items()))
        return [f'{self.subject.transport}: {self.messages} messages: {kinds}',
                f'  parameter values tried: {self.values}; life-cycle walks: {self.walks}']

    def begin(self) -> None:
        """Wait for the node, get its parameters and record its answers in a clean run."""
        self.subject.knock(self._knocking)
        names = [*LIVE_PARAMETERS, 'use_sim_time']
        values = self.subject.request(
            GetParameters, 'get_parameters', GetParameters.Request(names=names)).values
        self._defaults = [Parameter(name=name, value=value)
                          for name, value in zip(names, values, strict=True)]
        for number in range(SEQUENCES):
            self._play(number, 0.0)
        self.found = sum(len(boxes) for _, _, boxes in self._known.values())

    def burst(self) -> None:
        """Send hostile messages, and then a valid picture."""
        for _ in range(self._rng.randrange(BURST)):
            self._send_hostile(refused=False)
        self._last = self.subject.expect(self._knocking())
        self.counts['sound picture'] += 1

    def episode(self) -> None:
        """Check the node's answers after a burst and further disturbances."""
        rng = self._rng
        self.subject.wait_for(self._last)
        if rng.random() < _P_PARAMETERS:
            self._trouble_parameters()
        if rng.random() < _P_SERVICES:
            for _ in range(rng.randrange(1, 4)):
                self._ask(*self._requests.service())
        self._episodes += 1
        if self._episodes % _PAUSE_EVERY == 0:
            self._pause()
        if rng.random() < _P_LIFE_CYCLE:
            self._trouble_life_cycle()
        if rng.random() < _P_PLAY:
            self._play(rng.randrange(SEQUENCES), 0.3)

    def _send_hostile(self, refused: bool) -> None:
        made = self._hostile.refused() if refused else self._hostile.anything()
        self.subject.camera.publish(made.message)
        self.counts[made.kind] += 1

    def _mark(self) -> None:
        """Send a valid picture and wait for its answers, which come after all earlier messages."""
        self.subject.wait_for(self.subject.expect(self._knocking()))
        self.counts['sound picture'] += 1

    def _knocking(self) -> Any:
        message = self._sequences[0][0]
        message.header.frame_id = self._name()
        return message

    def _name(self) -> str:
        self._names += 1
        return f'{self.subject.transport} {self._names}'

    def _ask(self, kind: type, name: str, request: Any) -> Any:
        self.counts['request'] += 1
        return self.subject.request(kind, name, request)

    def _trouble_parameters(self) -> None:
        for _ in range(self._rng.randrange(1, 6)):
            kind, name, request = self._requests.parameters()
            self.values += len(request.parameters)
            self._ask(kind, name, request)
        self._mark()
        self._restore()

    def _restore(self) -> None:
        response = self._ask(
            SetParametersAtomically, 'set_parameters_atomically',
            SetParametersAtomically.Request(parameters=self._defaults))
        if response is not None and not response.result.successful:
            self.wrong.append(f'its own parameters are refused: {response.result.reason}')

    def _pause(self) -> None:
        """
        Let the node rest for a moment, and sample its memory.

        The memory of queues changes all the time; after a moment the queues are empty.
        """
        self._ask(SetBool, 'enable', SetBool.Request(data=False))
        for _ in range(self._rng.randrange(5)):
            self._send_hostile(refused=False)
        self.subject.sample()
        self._ask(SetBool, 'enable', SetBool.Request(data=True))
        self.subject.knock(self._knocking)

    def _trouble_life_cycle(self) -> None:
        self.walks += 1
        for _ in range(self._rng.randrange(1, 5)):
            self.subject.transition(self._requests.transition())
            self.counts['transition'] += 1
        self.subject.bring_to_active()
        self.subject.knock(self._knocking)
        self._restore()

    def _play(self, number: int, hostile: float) -> None:
        """Play a sequence from its start; a part `hostile` of the messages is hostile."""
        self._ask(Trigger, 'reset', Trigger.Request())
        last = ''
        for index, message in enumerate(self._sequences[number]):
            while self._rng.random() < hostile:
                self._send_hostile(refused=True)
            message.header.frame_id = self._name()
            self._compared[message.header.frame_id] = (number, index)
            last = self.subject.expect(message)
            self.counts['sound picture'] += 1
        self.subject.wait_for(last)

    def _on_answer(self, name: str, topic: str, message: Any) -> None:
        if not name.startswith(f'{self.subject.transport} '):
            self.accepted += topic == 'decision'
            return
        if name not in self._compared:
            return
        self._heard.setdefault(name, {})[topic] = message
        if len(self._heard[name]) < 2:
            return
        key, answer = self._compared.pop(name), answer_of(**self._heard.pop(name))
        known = self._known.setdefault(key, answer)
        if not same_answer(known, answer):
            self.wrong.append(f'picture {key[1]} of sequence {key[0]}')


def answer_of(detections: Any, decision: Any) -> Answer:
    """Return the answer of two messages about a picture."""
    told = read_decision(decision)
    confidence = -1.0 if told['confidence'] is None else told['confidence']
    boxes, labels, scores = read_detections(detections)
    return (told['kind'], told['reason'], *labels), np.array([confidence, *scores]), boxes


def same_answer(one: Answer, other: Answer) -> bool:
    """Return whether two answers are equal except for rounding."""
    return (one[0] == other[0] and np.allclose(one[1], other[1], rtol=0, atol=_SCORE)
            and np.allclose(one[2], other[2], rtol=0, atol=_BOX_PX))
