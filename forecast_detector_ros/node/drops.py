# SPDX-License-Identifier: Apache-2.0
"""Count the images that a publisher sent and nobody took."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNKNOWN = 2**64 - 1
"""What rmw reports as the sequence number when the middleware has none."""


class DropCounter:
    """
    Finds gaps in the sequence numbers of each publisher.

    The subscription keeps only the newest image. The middleware replaces images that come while
    one is processed, and does not report it: Fast DDS raises no `message_lost` for them. The
    publisher's sequence number, which comes with every message, shows these and the images lost on
    the way.
    """

    def __init__(self) -> None:
        """Know no publisher yet."""
        self._last: dict[Any, int] = {}

    def dropped_before(self, info: Mapping[str, Any]) -> int:
        """
        Return how many images were dropped between the previous one and this one.

        `info` is the MessageInfo that rclpy hands to a subscription's callback. The first image
        of a publisher has no predecessor: what was sent before the node listened is no drop. 0
        where the middleware has no sequence numbers.
        """
        number = info.get('publication_sequence_number')
        if number is None or number == _UNKNOWN:
            return 0
        # Jazzy's rclpy does not tell the publisher; there, one publisher a topic is assumed.
        publisher = info.get('publisher_gid')
        key = bytes(publisher['data']) if publisher else None
        previous = self._last.get(key)
        self._last[key] = number
        return max(0, number - previous - 1) if previous is not None else 0

    def forget(self) -> None:
        """Start anew: what is sent while nobody subscribes is no drop."""
        self._last.clear()
