# SPDX-License-Identifier: Apache-2.0
"""Dropped images are found by the publishers' sequence numbers."""
from __future__ import annotations

from typing import Any

from forecast_detector_ros.node.drops import DropCounter
import pytest


def info(number: int | None, publisher: bytes | None = b'a') -> dict[str, Any]:
    gid = None if publisher is None else {'implementation_identifier': 'x', 'data': publisher}
    return {'publication_sequence_number': number, 'publisher_gid': gid}


def test_gap_counts_what_is_missing_and_a_late_start_does_not() -> None:
    counter = DropCounter()
    assert [counter.dropped_before(info(number)) for number in (17, 18, 21, 22)] == [0, 0, 2, 0]


def test_publishers_are_counted_apart() -> None:
    counter = DropCounter()
    sent = [(5, b'a'), (100, b'b'), (6, b'a'), (103, b'b')]
    assert [counter.dropped_before(info(*item)) for item in sent] == [0, 0, 0, 2]


def test_restarted_publisher_drops_nothing() -> None:
    counter = DropCounter()
    assert [counter.dropped_before(info(number, None)) for number in (50, 1, 2)] == [0, 0, 0]


@pytest.mark.parametrize('unknown', [
    {}, info(None), info(2**64 - 1)])
def test_middleware_without_numbers_drops_nothing(unknown: dict[str, Any]) -> None:
    counter = DropCounter()
    assert counter.dropped_before(unknown) == counter.dropped_before(unknown) == 0


def test_forgotten_publisher_starts_anew() -> None:
    counter = DropCounter()
    counter.dropped_before(info(1))
    counter.forget()
    assert counter.dropped_before(info(30)) == 0
