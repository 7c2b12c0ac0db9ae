# SPDX-License-Identifier: Apache-2.0
"""Which images of a bag the detector gets: all, or those it would have had time for."""
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
    """Latencies that cannot be used; one line."""


@dataclass(frozen=True)
class GivenLatency:
    """Milliseconds that a frame is taken to need, instead of a measurement."""

    read: float
    forecast: float

    def at(self, kind: str, quantile: float) -> float:
        """Return the milliseconds of a `READ` or `FORECAST`; `quantile` of 0 to 1 is no matter."""
        return self.read if kind == READ else self.forecast


def parse_latency(text: str) -> GivenLatency:
    """Read ``read=20,forecast=4`` (milliseconds); raises LatencyError."""
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
    """An image of a bag with its place in its topic."""

    image: BagImage
    number: int  #: Of the image among those of its topic, from 0 on


def play(arrivals: Iterable[Arrival], mode: str, step: Callable[[Arrival, int], float],
         drop: Callable[[Arrival], None]) -> None:
    """
    Hand images to the detector as the live node would take them.

    In the mode `EVERY_FRAME` each image is processed. In `REAL_TIME` images arrive when they were
    recorded; while one is processed, the newest of every camera waits and replaces an older one,
    which is dropped. When several cameras wait, the one that has waited longest comes first.

    :param arrivals: in the order of recording
    :param mode: one of `MODES`
    :param step: processes an image, beginning at a time of the bag in nanoseconds; returns how
        long that takes, in milliseconds
    :param drop: takes an image that is never processed, before the one that replaced it is
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
