# SPDX-License-Identifier: Apache-2.0
"""The counts of the trials, and the waiting of their client; `make trials` runs the trials."""
import argparse
from collections import Counter
import re
from types import SimpleNamespace
from typing import Any

from dev.fuzz_node.__main__ import _report
from dev.fuzz_node.trial import FuzzTrial
from dev.trials.client import Client
from dev.trials.judgement import Answers
import pytest


class Node:
    """A fake node under trial that counts messages and requests and never answers."""

    transport = 'raw'
    slowest_request_s = slowest_transition_s = 0.0

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.requests: list[Any] = []
        self.answers = Answers()
        self.silent: list[str] = []
        self.memory: list[Any] = []
        self.camera = SimpleNamespace(publish=lambda _: self.seen.update(['message']))
        self.process = SimpleNamespace(text=str)

    def expect(self, message: Any) -> str:
        self.camera.publish(message)
        return str(message.header.frame_id)

    def wait_for(self, _: str) -> None:
        pass

    def request(self, _: type, name: str, request: Any) -> None:
        self.seen['request'] += 1
        self.requests.append(request)

    def transition(self, _: Any) -> None:
        self.seen['transition'] += 1

    def bring_to_active(self) -> None:
        self.seen['walk'] += 1

    def knock(self, _: Any) -> None:
        pass


def test_summary_counts_kinds_values_and_walks(capsys: pytest.CaptureFixture[str]) -> None:
    node = Node()
    trial = FuzzTrial(node, seed=1)
    for _ in range(3):
        trial.burst()
        trial._trouble_parameters()
    for _ in range(2):
        trial._trouble_life_cycle()
    options = argparse.Namespace(seed=1, callback=5.0, growth=1.0, warm_up=60.0)
    _report([trial], [''], options, 2.0, 7)
    _, kinds, others, *_ = capsys.readouterr().out.splitlines()

    total, counted = re.fullmatch(r'raw: (\d+) messages: (.+)', kinds).groups()
    by_kind = {kind: int(count) for count, kind in
               (part.split(' ', 1) for part in counted.split(', '))}
    assert int(total) == sum(by_kind.values())
    assert by_kind.pop('request') == node.seen['request'] > 0
    assert by_kind.pop('transition') == node.seen['transition'] > 1
    assert sum(by_kind.values()) == node.seen['message']
    assert {'sound picture', 'garbage', 'wrong step'} <= set(by_kind)
    # Requests that restore defaults do not count. This node reports no defaults, so none follow.
    values = sum(len(request.parameters) for request in node.requests)
    assert others == f'  parameter values tried: {values}; life-cycle walks: 2'
    assert values > 3


def test_client_waits_no_longer_than_asked() -> None:
    waits: list[float] = []
    client = Client.__new__(Client)
    client._executor = SimpleNamespace(spin_once=lambda timeout_sec: waits.append(timeout_sec))
    client.spin_for(0.01)
    # A longer wait would make the camera of a trial slower than its rate.
    assert waits and max(waits) <= 0.01
