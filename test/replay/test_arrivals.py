# SPDX-License-Identifier: Apache-2.0
"""Compare the images that a busy detector gets with a simulation by ticks."""

from types import SimpleNamespace

from forecast_detector_ros.replay.arrivals import (
    Arrival,
    EVERY_FRAME,
    GivenLatency,
    LatencyError,
    parse_latency,
    play,
    REAL_TIME,
)
from hypothesis import given
from hypothesis import strategies as st
import pytest

MS = 10**6


def arrivals(*images):
    """Make arrivals from pairs of (topic, milliseconds)."""
    counts = {}
    made = []
    for topic, time in images:
        counts[topic] = counts.get(topic, -1) + 1
        made.append(Arrival(SimpleNamespace(topic=topic, stamp_ns=time * MS), counts[topic]))
    return made


def replay(images, latencies, mode=REAL_TIME):
    """Return the events: (topic, number, begin in ms), or (topic, number, None) for a drop."""
    events, left = [], list(latencies)

    def step(arrival, start_ns):
        events.append((arrival.image.topic, arrival.number, start_ns / MS))
        return left.pop(0) if len(left) > 1 else left[0]

    play(arrivals(*images), mode, step,
         lambda arrival: events.append((arrival.image.topic, arrival.number, None)))
    return events


def test_fast_detector_gets_everything():
    assert replay([('a', t) for t in (0, 10, 20)], [10]) == [
        ('a', 0, 0), ('a', 1, 10), ('a', 2, 20)]


def test_newest_image_replaces_the_waiting_one():
    # The detector is busy from 0 to 35, so only the last of 10, 20 and 30 is kept.
    assert replay([('a', t) for t in (0, 10, 20, 30, 40)], [35, 5]) == [
        ('a', 0, 0), ('a', 1, None), ('a', 2, None), ('a', 3, 35), ('a', 4, 40)]


def test_each_camera_keeps_its_newest_image_and_the_longest_wait_is_first():
    assert replay([('a', 0), ('b', 1), ('a', 2), ('b', 3), ('a', 4)], [10, 10, 1]) == [
        ('a', 0, 0), ('b', 0, None), ('a', 1, None), ('b', 1, 10), ('a', 2, 20)]


def test_mode_every_frame_drops_nothing():
    images = [('a', 0), ('a', 1), ('b', 1), ('a', 2)]
    assert replay(images, [1000], EVERY_FRAME) == [
        ('a', 0, 0), ('a', 1, 1), ('b', 0, 1), ('a', 2, 2)]


@given(st.lists(st.tuples(st.sampled_from('ab'), st.integers(0, 60)), max_size=25),
       st.integers(1, 30))
def test_events_match_a_simulation_by_ticks(images, latency):
    images = sorted(images, key=lambda item: item[1])
    waiting, events, free = {}, [], 0
    queue = arrivals(*images)
    for tick in range(61 + 31 * 26):
        while True:
            ready = bool(waiting) and free <= tick
            # If the detector is free, an image that waits is taken before a new one arrives.
            if not ready and queue and queue[0].image.stamp_ns <= tick * MS:
                arrival = queue.pop(0)
                old = waiting.pop(arrival.image.topic, None)
                if old:
                    events.append((old.image.topic, old.number, None))
                waiting[arrival.image.topic] = arrival
                continue
            if not ready:
                break
            first = min(waiting.values(), key=lambda item: item.image.stamp_ns)
            del waiting[first.image.topic]
            events.append((first.image.topic, first.number, tick))
            free = tick + latency
    assert replay(images, [latency]) == events


def test_given_latencies():
    assert parse_latency('read=20, forecast=4.5') == GivenLatency(20, 4.5)
    given = GivenLatency(20, 4)
    assert (given.at('read', 0.9), given.at('forecast', 0.1)) == (20, 4)
    for text in ('', 'read=20', 'read=20,forecast=x', 'read=20,forecast=-1', 'read=nan,forecast=1',
                 'read=1,forecast=2,other=3'):
        with pytest.raises(LatencyError, match='must be read=MS,forecast=MS'):
            parse_latency(text)
