# SPDX-License-Identifier: Apache-2.0
"""Hold a benchmark against an earlier one."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

TOLERANCE = 0.05
"""Slower by less than this is never called a regression."""

SIGMAS = 2.0
"""How often the noise of both runs together a difference must be."""


@dataclass(frozen=True)
class Change:
    """One contender in two runs."""

    name: str
    before_ms: float
    now_ms: float
    allowed: float
    """Growth that is put down to noise, as a fraction."""

    @property
    def growth(self) -> float:
        """Give how much slower it is now, as a fraction; negative: faster."""
        return self.now_ms / self.before_ms - 1.0

    @property
    def regressed(self) -> bool:
        """Tell whether it is slower beyond noise."""
        return self.growth > self.allowed


def compare(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
            ) -> list[Change]:
    """
    Compare the timings that two runs have in common, by name.

    Parameters
    ----------
    before, now:
        Timings as `Timing.to_dict` gives them.

    Returns
    -------
    list
        In the order of `now`. The noise of a run is what it showed within itself; what is
        allowed is at least `TOLERANCE`.

    """
    old = {row['name']: row for row in before}
    return [Change(row['name'], old[row['name']]['median_ms'], row['median_ms'],
                   max(TOLERANCE, SIGMAS * hypot(row['noise'], old[row['name']]['noise'])))
            for row in now if row['name'] in old]
