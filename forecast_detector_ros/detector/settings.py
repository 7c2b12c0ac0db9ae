# SPDX-License-Identifier: Apache-2.0
"""Settings that may change while a detector runs."""

from dataclasses import dataclass, field
from math import inf, isfinite

from .policy import AlternatePolicy, Policy, ThresholdPolicy
from .processing import NO_VOTES
from ..errors import InputError


class SettingsError(InputError):
    """A setting is out of range; the message names the key and the valid values."""


@dataclass(frozen=True)
class DetectorSettings:
    """
    Thresholds and limits, passed to every step.

    :raises SettingsError: if a value is out of range, or a fixed policy forecasts more frames in a
        row than the limit allows
    """

    #: What decides; the default reads if the confidence is at most 0.5.
    policy: Policy = field(default_factory=ThresholdPolicy)
    score_threshold: float = 0.3  #: Only boxes with a higher score are detections, in [0, 1]

    #: IoU at or above which the weaker of two boxes of a class is dropped; (0, 1]; SSD has 0.45.
    nms_threshold: float = 0.45

    #: IoU at or above which weaker boxes of a class shift a kept box; (0, 1]; 1 for never.
    vote_threshold: float = NO_VOTES

    #: Weight of an object's score in the previous frame, in [0, 1); 0 for none.
    score_memory: float = 0.0
    max_detections: int = 100  #: Per frame, 1 to 1000
    classes: tuple[str, ...] = ()  #: Names of the wanted classes; empty for all
    max_consecutive_forecasts: int = 3  #: Most forecasts in a row, 1 to 1000

    #: Frames per second that must be possible for each stream, 0 to 1000; 0: no limit.
    target_rate: float = 0.0

    #: Number of streams that share the processor and its time, at least 1.
    streams: int = 1

    def __post_init__(self) -> None:
        checks = (
            ('score_threshold', isfinite(self.score_threshold)
             and 0.0 <= self.score_threshold <= 1.0, 'in [0, 1]'),
            ('nms_threshold', isfinite(self.nms_threshold) and 0.0 < self.nms_threshold <= 1.0,
             'in (0, 1]'),
            ('vote_threshold', isfinite(self.vote_threshold) and 0.0 < self.vote_threshold <= 1.0,
             'in (0, 1]'),
            ('score_memory', isfinite(self.score_memory) and 0.0 <= self.score_memory < 1.0,
             'in [0, 1)'),
            ('max_detections', 1 <= self.max_detections <= 1000, 'from 1 to 1000'),
            ('target_rate', isfinite(self.target_rate) and 0.0 <= self.target_rate <= 1000.0,
             'from 0 to 1000 frames per second'),
            ('streams', self.streams >= 1, 'at least 1'),
            ('max_consecutive_forecasts', 1 <= self.max_consecutive_forecasts <= 1000,
             'from 1 to 1000'))
        for key, fine, wanted in checks:
            if not fine:
                raise SettingsError(f'{key} is {getattr(self, key)}, must be {wanted}')
        if isinstance(self.policy, AlternatePolicy) \
                and self.policy.k > self.max_consecutive_forecasts:
            raise SettingsError(f'policy is {self.policy}, but max_consecutive_forecasts is '
                                f'{self.max_consecutive_forecasts}, must be at least '
                                f'{self.policy.k} for it')

    @property
    def budget_ms(self) -> float:
        """Mean time that a frame of a stream may cost, milliseconds; infinite without a limit."""
        rate = max(self.target_rate, self.policy.rate)
        return 1e3 / (rate * self.streams) if rate > 0.0 else inf
