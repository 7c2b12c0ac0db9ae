# SPDX-License-Identifier: Apache-2.0
"""What a stream's frames have cost, and whether the next one may be read."""

from dataclasses import dataclass, replace
from math import isfinite, isnan, nan

WEIGHT = 0.2
"""Of the newest cost in the running mean: about the last ten reads count."""


@dataclass(frozen=True)
class Pace:
    """Measured costs and saved time of one stream; a value that is never changed."""

    read_ms: float = nan
    """Running mean of what a read frame costs, milliseconds; NaN before the first."""

    forecast_ms: float = nan
    """The same of a forecast frame."""

    saved_ms: float = 0.0
    """
    Time that the frames so far have left over.

    Never more than one read costs, so that a quiet time is not followed by a long row of reads;
    nor less than its negative, so that forced reads and interruptions are soon forgotten.
    """

    def affords_read(self, budget_ms: float) -> bool:
        """
        Tell whether a read keeps the mean cost of the frames within the budget.

        Parameters
        ----------
        budget_ms:
            What a frame may cost on average, milliseconds; infinite for no limit.

        """
        return isnan(self.read_ms) or self.saved_ms + budget_ms >= self.read_ms

    def after(self, read: bool, cost_ms: float, budget_ms: float) -> 'Pace':
        """
        Give the pace after a frame.

        Parameters
        ----------
        read:
            Whether the frame was read.
        cost_ms:
            What it cost, milliseconds.
        budget_ms:
            As for `affords_read`.

        """
        if read:
            pace = replace(self, read_ms=_mean(self.read_ms, cost_ms))
        else:
            pace = replace(self, forecast_ms=_mean(self.forecast_ms, cost_ms))
        if not isfinite(budget_ms):
            return replace(pace, saved_ms=0.0)
        saved = self.saved_ms + budget_ms - cost_ms
        limit = cost_ms if isnan(pace.read_ms) else pace.read_ms
        return replace(pace, saved_ms=min(max(saved, -limit), limit))


def _mean(before: float, now: float) -> float:
    return now if isnan(before) else before + WEIGHT * (now - before)
