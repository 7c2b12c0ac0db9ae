# SPDX-License-Identifier: Apache-2.0
"""Choose the images of a bag that are processed: all, or those that fit in real time."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..detector.policy import READ
from ..errors import InputError
from ..images.bag_images import BagImage

EVERY_FRAME = 'every-frame'
REAL_TIME = 'real-time'
MODES = (EVERY_FRAME, REAL_TIME)


class LatencyError(InputError):
    """Given latencies are invalid; the message is one line."""


@dataclass(frozen=True)
class GivenLatency:
    """Assumed processing times of a read and of a forecast, milliseconds."""

    read: float
    forecast: float

    def at(self, kind: str, quantile: float) -> float:
        """Return the milliseconds of a `READ` or `FORECAST`; `quantile`, 0 to 1, is not used."""
        return self.read if kind == READ else self.forecast


def parse_latency(text: str) -> GivenLatency:
    """Parse ``read=20,forecast=4`` (milliseconds, at least 0); raises LatencyError."""
    try:
        pairs = [part.partition('=') for part in text.split(',')]
        values = {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        values = {}
    if (set(values) != {'read', 'forecast'}
            or not all(0 <= value < 1e6 for value in values.values())):
        raise LatencyError(f'latency is {text!r}, must be read=MS,forecast=MS with milliseconds '
                           'from 0 on')
    return GivenLatency(values['read'], values['forecast'])


@dataclass(frozen=True)
class Arrival:
    """An image of a bag with its number in its topic."""

    image: BagImage
    number: int  #: Number of the image in its topic, from 0 on


def play(arrivals: Iterable[Arrival], mode: str, step: Callable[[Arrival, int], float],
         drop: Callable[[Arrival], None]) -> None:
    """
    Pass images to the detector in the order of the node.

    In the mode `EVERY_FRAME` each image is processed. In `REAL_TIME` images arrive at their time
    of recording. While one is processed, the newest image of each camera waits; an older one is
    dropped. Of several waiting cameras, the one that has waited longest comes first.

    :param arrivals: in the order of recording
    :param mode: one of `MODES`
    :param step: processes an image from a time of the bag on (nanoseconds), and returns the
        duration in milliseconds
    :param drop: called with each dropped image before the image that replaced it is processed
    """
    if mode == EVERY_FRAME:
        for arrival in arrivals:
            step(arrival, arrival.image.stamp_ns)
        return
    waiting: dict[str, Arrival] = {}
    free_ns = 0

    def work_until(now_ns: int | None) -> None:
        nonlocal free_ns
        while waiting:
            oldest = min(waiting.values(), key=lambda arrival: arrival.image.stamp_ns)
            start_ns = max(free_ns, oldest.image.stamp_ns)
            if now_ns is not None and start_ns > now_ns:
                return
            del waiting[oldest.image.topic]
            free_ns = start_ns + round(step(oldest, start_ns) * 1e6)

    for arrival in arrivals:
        work_until(arrival.image.stamp_ns)
        replaced = waiting.pop(arrival.image.topic, None)
        if replaced is not None:
            drop(replaced)
        waiting[arrival.image.topic] = arrival
    work_until(None)
