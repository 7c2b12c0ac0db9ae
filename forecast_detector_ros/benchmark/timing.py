# SPDX-License-Identifier: Apache-2.0
"""Time contenders in turns, so that disturbances of the machine affect all of them equally."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from ..errors import InputError

BLOCKS = 5  #: Parts of a run whose medians give its noise
#: A contender that takes longer skips rounds, so that it does not take most of the run's time.
LONG_MS = 100.0
WARM_UP = 3  #: Calls of every contender before the first round


@dataclass(frozen=True)
class Contender:
    """Something that can be timed."""

    name: str  #: Unique in a run
    run: Callable[[], object]

    #: `step`, `part`, `peer`, `batch`, `frame` or `probe`: the table that it belongs to.
    group: str = 'step'
    backend: str = ''
    precision: str = ''
    threads: int = 1
    batch: int = 1
    macs: int | None = None  #: Multiply-accumulates of one run; None if unknown
    before: Callable[[], object] | None = None  #: Called before each run, not timed


@dataclass(frozen=True)
class Timing:
    """The times of one contender."""

    name: str
    group: str
    backend: str
    precision: str
    threads: int
    batch: int
    macs: int | None
    runs: int
    median_ms: float
    p95_ms: float
    #: Noise of the run, see `noise_of`.
    noise: float


def noise_of(times: Sequence[float]) -> float:
    """
    Return the noise of a run as a fraction.

    The run is divided into `BLOCKS` successive parts. The result is the range of their medians
    over the median of all, so it also shows a machine that slows down during the run. It is 1 if
    there are too few values.
    """
    if len(times) < 2 * BLOCKS:
        return 1.0
    medians = [float(np.median(part)) for part in np.array_split(np.asarray(times), BLOCKS)]
    return (max(medians) - min(medians)) / float(np.median(times))


def time_in_turns(contenders: Sequence[Contender], rounds: int, seed: int = 0,
                  progress: Callable[[int], object] | None = None,
                  clock: Callable[[], float] = perf_counter) -> list[Timing]:
    """
    Time all contenders in turns.

    :param rounds: in each round every contender runs once, in a new random order, so that none
        always follows the same other one. Those above `LONG_MS` run only in every n-th round.
    :param seed: seed of the orders
    :param progress: called with the number of finished rounds
    :returns: in the order of `contenders`
    :raises InputError: if two contenders have the same name
    """
    names = [contender.name for contender in contenders]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f'two contenders have the same name, {twice}; leave one of them out')
    pause = [_pause(contender, clock) for contender in contenders]
    times: list[list[float]] = [[] for _ in contenders]
    rng = np.random.default_rng(seed)
    for number in range(rounds):
        for index in rng.permutation(len(contenders)):
            if number % pause[index] == 0:
                times[index].append(_time(contenders[index], clock))
        if progress is not None:
            progress(number + 1)
    return [_timing(contender, values) for contender, values in zip(contenders, times)]


def _pause(contender: Contender, clock: Callable[[], float]) -> int:
    """Warm a contender up; return n, so that it runs in every n-th round."""
    for _ in range(WARM_UP):
        last = _time(contender, clock)
    return min(10, 1 + int(last / LONG_MS))


def _time(contender: Contender, clock: Callable[[], float]) -> float:
    if contender.before is not None:
        contender.before()
    start = clock()
    contender.run()
    return (clock() - start) * 1e3


def _timing(contender: Contender, values: list[float]) -> Timing:
    median, p95 = np.percentile(values, (50, 95)).tolist()
    return Timing(contender.name, contender.group, contender.backend, contender.precision,
                  contender.threads, contender.batch, contender.macs, len(values), median, p95,
                  noise_of(values))
