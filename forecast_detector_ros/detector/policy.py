# SPDX-License-Identifier: Apache-2.0
"""Scheduling policies: read the next image, or take the forecast."""

from dataclasses import dataclass
from math import isfinite, nan
from typing import Protocol

from ..errors import cut, InputError

READ = 'read'  #: The image is loaded and the backbone runs on it

FORECAST = 'forecast'  #: The image is skipped and the forecast takes the place of its features

#: Why a decision came out as it did. `scheduler`: its confidence against the threshold; `policy`:
#: a fixed rule; `budget`: the time that a frame may cost; the others force a read.
REASONS = ('first_frame', 'second_frame', 'scheduler', 'policy', 'max_consecutive', 'reset',
           'size_changed', 'gap', 'budget')


class PolicyError(InputError):
    """A policy that cannot be parsed or has a parameter out of range; one line."""


@dataclass(frozen=True)
class Decision:
    """The decision for a frame, and its reason."""

    kind: str  #: ``read`` or ``forecast``
    reason: str  #: One of `REASONS`; the ROS 2 reference explains them

    #: The scheduler's score for *forecast*, in [0, 1]. NaN if it had none, as on the first frame
    #: and, if it compares frames that were read, on the second.
    confidence: float
    threshold: float  #: What it was compared with, in [0, 1]; NaN for policies without a threshold

    #: Forecasts in a row, up to and including this frame; 0 on a read frame.
    consecutive_forecasts: int


class Policy(Protocol):
    """
    A rule that decides frame by frame.

    `threshold` is that of the confidence, NaN if there is none. `reason` is one of `REASONS`.
    `rate` is the number of frames per second to reach, 0 for any.
    """

    @property
    def threshold(self) -> float: ...  # noqa: D102

    @property
    def reason(self) -> str: ...  # noqa: D102

    @property
    def rate(self) -> float: ...  # noqa: D102

    def forecast(self, confidence: float, consecutive_forecasts: int) -> bool:
        """
        Tell whether the next frame is forecast.

        :param confidence: the scheduler's score for *forecast*, in [0, 1]; NaN where it has none
        :param consecutive_forecasts: forecasts since the last read
        """
        ...


@dataclass(frozen=True)
class ThresholdPolicy:
    """
    Forecast if and only if the scheduler's confidence exceeds p (paper, section 3.2).

    The comparison is strict, so p = 1 always reads (section 4.3 uses it so).

    :raises PolicyError: if p is not in [0, 1]
    """

    p: float = 0.5  #: Threshold in [0, 1]; 0.5 is the paper's in Fig. 4 and 6
    reason = 'scheduler'
    rate = 0.0

    def __post_init__(self) -> None:
        """Check the range."""
        if not (isfinite(self.p) and 0.0 <= self.p <= 1.0):
            raise PolicyError(f'threshold is {self.p}, must be in [0, 1]')

    @property
    def threshold(self) -> float:
        """Give p."""
        return self.p

    def forecast(self, confidence: float, consecutive_forecasts: int) -> bool:
        """Compare the confidence with p."""
        return confidence > self.p

    def __str__(self) -> str:
        """Write as `parse_policy` reads it."""
        return f'threshold({float(self.p)!r})'


@dataclass(frozen=True)
class AlternatePolicy:
    """
    Forecast k frames after every read, whatever the scheduler says.

    k = 1 is the paper's "alternates": read every odd frame, forecast every even one.

    :raises PolicyError: if k is not at least 1
    """

    k: int = 1

    reason = 'policy'
    threshold = nan
    rate = 0.0

    def __post_init__(self) -> None:
        """Check the range."""
        if self.k < 1:
            raise PolicyError(f'alternate({self.k}): must be at least 1')

    def forecast(self, confidence: float, consecutive_forecasts: int) -> bool:
        """Forecast until k forecasts have passed since the last read."""
        return consecutive_forecasts < self.k

    def __str__(self) -> str:
        """Write as `parse_policy` reads it."""
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
        """Write as `parse_policy` reads it."""
        return 'always_read'


@dataclass(frozen=True)
class BudgetPolicy:
    """
    Read whenever the time allows it, so that so many frames per second are possible.

    What a read costs, and whether it is affordable, is told by the stream's `Pace`.

    :raises PolicyError: if the rate is not above 0, or not finite
    """

    rate: float  #: Frames per second
    reason = 'budget'
    threshold = nan

    def __post_init__(self) -> None:
        """Check the range."""
        if not (isfinite(self.rate) and self.rate > 0.0):
            raise PolicyError(f'budget({self.rate}): must be above 0 frames per second')

    def forecast(self, confidence: float, consecutive_forecasts: int) -> bool:
        """Never forecast by choice."""
        return False

    def __str__(self) -> str:
        """Write as `parse_policy` reads it."""
        return f'budget({float(self.rate)!r})'


MOST_CHARACTERS = 100  #: Of a policy's text; the longest number that means anything has some 30


def parse_policy(text: str) -> Policy:
    """
    Read a policy from text.

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
    """Return name and argument of ``name(argument)``, the argument empty without brackets."""
    name, bracket, rest = text.partition('(')
    value, _, behind = rest.partition(')')
    if bracket and (not rest.rstrip().endswith(')') or behind.strip()):
        return '', ''
    return name.strip(), value.strip()
