# SPDX-License-Identifier: Apache-2.0
"""Policies, which decide whether the next frame is read or forecast."""

from dataclasses import dataclass
from math import isfinite, nan
from typing import Protocol

from ..errors import cut, InputError

READ = 'read'  #: The image is loaded and the whole network runs on it

FORECAST = 'forecast'  #: The image is not loaded, and the forecast is used

#: Reasons of a decision. `scheduler`: confidence against threshold; `policy`: a fixed rule;
#: `budget`: the time that a frame may cost. All others force a read.
REASONS = ('first_frame', 'second_frame', 'scheduler', 'policy', 'max_consecutive', 'reset',
           'size_changed', 'gap', 'budget')


class PolicyError(InputError):
    """A policy cannot be parsed, or its parameter is out of range; one line."""


@dataclass(frozen=True)
class Decision:
    """The decision for a frame, and its reason."""

    kind: str  #: ``read`` or ``forecast``
    reason: str  #: One of `REASONS`; the ROS 2 reference explains them

    #: The scheduler's score for *forecast*, in [0, 1]; NaN on the first frame, and on the second
    #: frame if the scheduler compares read frames.
    confidence: float
    threshold: float  #: Threshold of the confidence, in [0, 1]; NaN for policies without one

    #: Forecasts in a row, up to and including this frame; 0 on a read frame.
    consecutive_forecasts: int


class Policy(Protocol):
    """
    A rule that decides frame by frame.

    `threshold` is the threshold of the confidence, NaN if there is none. `reason` is one of
    `REASONS`. `rate` is the required number of frames per second, 0 for no limit.
    """

    @property
    def threshold(self) -> float: ...  # noqa: D102

    @property
    def reason(self) -> str: ...  # noqa: D102

    @property
    def rate(self) -> float: ...  # noqa: D102

    def forecast(self, confidence: float, consecutive_forecasts: int) -> bool:
        """
        Return whether the next frame is forecast.

        :param confidence: the scheduler's score for *forecast*, in [0, 1]; NaN if there is none
        :param consecutive_forecasts: forecasts since the last read
        """
        ...


@dataclass(frozen=True)
class ThresholdPolicy:
    """
    Forecast if the scheduler's confidence is above p (paper, section 3.2).

    With p = 1 all frames are read (section 4.3).

    :raises PolicyError: if p is not in [0, 1]
    """

    p: float = 0.5  #: Threshold in [0, 1]; the paper has 0.5 in Fig. 4 and 6
    reason = 'scheduler'
    rate = 0.0

    def __post_init__(self) -> None:
        if not (isfinite(self.p) and 0.0 <= self.p <= 1.0):
            raise PolicyError(f'threshold is {self.p}, must be in [0, 1]')

    @property
    def threshold(self) -> float:
        """Return p."""
        return self.p

    def forecast(self, confidence: float, consecutive_forecasts: int) -> bool:
        """Compare the confidence with p."""
        return confidence > self.p

    def __str__(self) -> str:
        return f'threshold({float(self.p)!r})'


@dataclass(frozen=True)
class AlternatePolicy:
    """
    Forecast k frames after every read, without the scheduler.

    k = 1 is "alternates" in the paper: odd frames are read, even frames are forecast.

    :raises PolicyError: if k is not at least 1
    """

    k: int = 1

    reason = 'policy'
    threshold = nan
    rate = 0.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise PolicyError(f'alternate({self.k}): must be at least 1')

    def forecast(self, confidence: float, consecutive_forecasts: int) -> bool:
        """Forecast until k forecasts have passed since the last read."""
        return consecutive_forecasts < self.k

    def __str__(self) -> str:
        return f'alternate({self.k})'


@dataclass(frozen=True)
class AlwaysReadPolicy:
    """Read every frame."""

    reason = 'policy'
    threshold = nan
    rate = 0.0

    def forecast(self, confidence: float, consecutive_forecasts: int) -> bool:
        """Never forecast."""
        return False

    def __str__(self) -> str:
        return 'always_read'


@dataclass(frozen=True)
class BudgetPolicy:
    """
    Read a frame if the time allows it at `rate` frames per second.

    The stream's `Pace` measures the cost of a read and decides whether the time allows it.

    :raises PolicyError: if the rate is not above 0, or not finite
    """

    rate: float  #: Frames per second
    reason = 'budget'
    threshold = nan

    def __post_init__(self) -> None:
        if not (isfinite(self.rate) and self.rate > 0.0):
            raise PolicyError(f'budget({self.rate}): must be above 0 frames per second')

    def forecast(self, confidence: float, consecutive_forecasts: int) -> bool:
        """Return False: only the budget makes a forecast."""
        return False

    def __str__(self) -> str:
        return f'budget({float(self.rate)!r})'


MOST_CHARACTERS = 100  #: Longest text of a policy; useful numbers have at most some 30 characters


def parse_policy(text: str) -> Policy:
    """
    Parse a policy.

    ``threshold(0.5)``, ``alternate(1)``, ``always_read`` or ``budget(15)``.

    :raises PolicyError: if the text is none of these, longer than MOST_CHARACTERS, or the number
        out of range
    """
    name, value = _call(text) if len(text) <= MOST_CHARACTERS else ('', '')
    try:
        if name == 'threshold' and value:
            return ThresholdPolicy(float(value))
        if name == 'alternate' and value:
            return AlternatePolicy(int(value))
        if name == 'budget' and value:
            return BudgetPolicy(float(value))
        if name == 'always_read' and not value:
            return AlwaysReadPolicy()
    except PolicyError:
        raise
    except ValueError:
        pass
    raise PolicyError(f'policy is {cut(text)!r}, must be threshold(p) with p in [0, 1], '
                      'alternate(k) with k >= 1, budget(fps) with fps > 0, or always_read')


def _call(text: str) -> tuple[str, str]:
    """Return name and argument of ``name(argument)``; '' for no argument."""
    name, bracket, rest = text.partition('(')
    value, _, behind = rest.partition(')')
    if bracket and (not rest.rstrip().endswith(')') or behind.strip()):
        return '', ''
    return name.strip(), value.strip()
