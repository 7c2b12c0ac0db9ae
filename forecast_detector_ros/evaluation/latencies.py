# SPDX-License-Identifier: Apache-2.0
"""How long decisions take, from a recording, for simulations that shall be repeatable."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
import math
from pathlib import Path
import zlib

import numpy as np

from .sequences import EvaluationError
from ..detector.policy import FORECAST, READ
from ..plain_values import PlainJsonError, read_plain_json

KEY = 'latencies_ms'  #: Where a JSON file has them: by kind of decision, a list of milliseconds


def milliseconds(values: Iterable[float]) -> list[float]:
    """Give latencies the form in which files hold them, to the microsecond."""
    return [round(float(value), 3) for value in values]


@dataclass(frozen=True)
class Latencies:
    """Recorded latencies of the two kinds of decision."""

    path: Path  #: Where they are from

    #: Milliseconds, float64, sorted, by `READ` and `FORECAST`; empty where there are none.
    values: dict[str, np.ndarray]
    seed: int = 0

    def shares(self, name: str, frames: int) -> np.ndarray:
        """
        Draw where in the distribution each frame of a sequence lies, ``(frames,)`` in [0, 1).

        It depends on the seed and the sequence's name alone, so a frame is as lucky under one
        policy and frame rate as under another.
        """
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        return rng.random(frames)

    def at(self, kind: str, share: float) -> float:
        """
        Give the latency below which a share of the recorded ones lies, milliseconds.

        :raises EvaluationError: if no decision of this kind was recorded
        """
        values = self.values[kind]
        if not len(values):
            raise EvaluationError(f'{self.path}: {KEY}: has no latency of a {kind} frame, and one '
                                  'is needed; record a run whose policy makes both decisions')
        return float(values[int(share * len(values))])


def load_latencies(path: Path, seed: int = 0) -> Latencies:
    """
    Read recorded latencies.

    :param path: a JSON object with ``{"latencies_ms": {"read": [...], "forecast": [...]}}``, as
        the results of `evaluate` and `demo` have; anything else in it is passed over
    :param seed: for what is drawn from them
    :raises EvaluationError: if the file is not such a file
    """
    try:
        document = read_plain_json(path)
    except PlainJsonError as error:
        raise EvaluationError(str(error)) from None
    lists = document.get(KEY) if isinstance(document, dict) else None
    if not isinstance(lists, dict):
        raise EvaluationError(f'{path}: {KEY}: must hold an object with lists of milliseconds, '
                              f'{READ} and {FORECAST}')
    values = {}
    for kind in (READ, FORECAST):
        numbers = lists.get(kind, [])
        if not isinstance(numbers, list) or not all(
                isinstance(number, (int, float)) and not isinstance(number, bool)
                and math.isfinite(number) and number >= 0 for number in numbers):
            raise EvaluationError(f'{path}: {KEY}.{kind}: must be a list of milliseconds, from 0 '
                                  'on')
        values[kind] = np.sort(np.array(numbers, np.float64))
    return Latencies(path, values, seed)
