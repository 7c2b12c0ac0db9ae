# SPDX-License-Identifier: Apache-2.0
"""
Confidence intervals of means over sequences, by the bootstrap.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993): chapter 13 for the percentile
interval.  All rows of a table are drawn alike, so that differences between rows are paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np

#: Number of draws; with so many, the interval hardly depends on chance.
DRAWS = 10_000
LEVEL = 0.95  #: Level of the confidence interval


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval; NaN if unknown."""

    mean: float
    low: float
    high: float


class Bootstrap:
    """
    Draws of sequences with replacement, the same for all compared values.

    :param sequences: number of sequences, at least 1
    :param draws: number of draws, at least 1
    """

    def __init__(self, sequences: int, seed: int = 0, draws: int = DRAWS) -> None:
        drawn = np.random.default_rng(seed).integers(0, sequences, (draws, sequences))
        place = drawn + np.arange(draws)[:, None] * sequences
        counts = np.bincount(place.ravel(), minlength=draws * sequences)
        self._times = counts.reshape(draws, sequences).astype(np.float64)

    def interval(self, values: Sequence[float] | np.ndarray) -> Interval:
        """
        Return the mean of some values and its interval.

        :param values: ``(S,)``, one per sequence; NaN is left out of every mean
        """
        array = np.asarray(values, np.float64)
        known = ~np.isnan(array)
        if not known.any():
            return Interval(math.nan, math.nan, math.nan)
        number = self._times @ known
        total = self._times @ np.where(known, array, 0.0)
        means = total[number > 0] / number[number > 0]
        low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        return Interval(float(array[known].mean()), float(low), float(high))

    def difference(self, values: np.ndarray, reference: np.ndarray) -> Interval:
        """Return the mean of ``values - reference``, sequence by sequence, and its interval."""
        return self.interval(np.asarray(values) - np.asarray(reference))
