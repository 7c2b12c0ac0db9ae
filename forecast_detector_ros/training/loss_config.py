# SPDX-License-Identifier: Apache-2.0
"""Weights and rules of the losses, and what a step gives."""

from dataclasses import dataclass, field

from torch import Tensor

from .losses import BOX_LOSSES, GIOU, RELIABLE_IOU
from ..model.config import ConfigError, EXPECTED, NetworkConfig

TRUTH, READ_FRAME = 'truth', 'read'  #: What y_t is measured against
#: How anchors are matched with boxes, and what they are trained on.
SSD, QUALITY = DETECTION_LOSSES = ('ssd', 'quality')
PLAIN, PERSISTENCE = 'none', 'persistence'
SCALES = (PLAIN, PERSISTENCE)  #: What the error of the forecast is divided by


# Far above any useful value: what is larger is a slip of the pen, infinite or NaN.
_LARGEST_WEIGHT = 1e4

# The least and the largest value of each number of LossConfig.
_LIMITS = {'alpha': (0.0, _LARGEST_WEIGHT), 'beta': (0.0, _LARGEST_WEIGHT),
           'gamma': (0.0, _LARGEST_WEIGHT), 'lambda_': (0.0, _LARGEST_WEIGHT),
           'min_negatives': (0, 1_000_000), 'combination': (0.0, 1.0),
           # Weights of zero could leave nothing to divide L_dec by.
           'decision_weights': (1e-6, _LARGEST_WEIGHT), 'reliable_iou': (0.0, 1.0),
           'reliable_score': (0.0, 1.0), 'reliable_margin': (0.0, 1.0), 'rollout': (0.0, 1.0)}


@dataclass(frozen=True)
class LossConfig:
    """
    Weights and rules of the losses; the defaults are the paper's.

    :raises ConfigError: if a value is out of its range
    """

    alpha: float = 1.0  #: Weight of L_loc (section 3.3)
    beta: float = 1.0  #: Weight of L_cls (section 3.3)
    #: Weight of L_for (section 3.3); the variant `without_forecast` takes 0 in any case.
    gamma: float = 1.0
    #: `none`, as in the paper; or `persistence`: each level's error is divided by that of the last
    #: map reused over the same batch. So 1 is as good as the last map.
    forecast_scale: str = PLAIN
    lambda_: float = 0.7  #: Weight of L_dec (section 3.3)
    #: `ssd`: anchors are matched by overlap, with smooth L1 and hard negatives (section 3.3);
    #: `quality`: by score and overlap, and each learns how good its box is (`assignment`).
    detection: str = SSD
    box: str = GIOU  #: `quality`: the loss of boxes, `giou` or `ciou`
    min_negatives: int = 0  #: Negatives that every image contributes at least; SSD has none
    #: Probabilities that the head sees `feature`, `temporal` or their mean; the paper names the
    #: three and no probabilities.
    combination: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    detach_target: bool = True  #: Let no gradient of L_for into the extractor
    #: What y_t compares detections on the forecast with: the `truth` of the next frame (section
    #: 3.4), or what the detector would say if the frame were `read`. With `truth` a frame on which
    #: reading would fail as well counts against the forecast.
    reliable_against: str = TRUTH
    reliable_iou: float = RELIABLE_IOU  #: IoU for y_t
    reliable_score: float = 0.3  #: Score from which on a detection counts for y_t
    #: Against `read`: boxes of `reliable_score` and this much more must be found on both.
    reliable_margin: float = 0.1
    decision_weights: tuple[float, float] = (1.0, 1.0)  #: Class weights of L_dec, *read* first
    #: Probability that a frame after the first takes the forecast in place of its image, as
    #: inference does; 0 in the paper.
    rollout: float = 0.0
    score_weighted: bool = True  #: Weight boxes with their scores (soft labels)

    def __post_init__(self) -> None:
        """Check the range of every number, and the names."""
        for key, (low, high) in _LIMITS.items():
            value = getattr(self, key)
            for number in value if isinstance(value, tuple) else (value,):
                # Written so that NaN fails too.
                if not low <= number <= high:
                    raise ConfigError(f'{key} is {value}, must be in [{low:g}, {high:g}]')
        for key, allowed in (('reliable_against', (TRUTH, READ_FRAME)),
                             ('forecast_scale', SCALES), ('box', BOX_LOSSES),
                             ('detection', DETECTION_LOSSES)):
            if getattr(self, key) not in allowed:
                raise ConfigError(f'{key} is {getattr(self, key)!r}, must be one of {allowed}')
        if abs(sum(self.combination) - 1.0) > 1e-6:
            raise ConfigError(f'combination is {self.combination}, must add up to 1')
        if self.reliable_score + self.reliable_margin > 1.0:
            raise ConfigError(f'reliable_score and reliable_margin are {self.reliable_score} and '
                              f'{self.reliable_margin}, must add up to at most 1')


@dataclass
class StepLosses:
    """The losses of one step, and what the log wants to know."""

    total: Tensor
    parts: dict[str, float] = field(default_factory=dict)
    reliable: Tensor | None = None  #: y_t of all clips and steps, flat bool
    decisions: int = 0  #: How many decisions there were
    ones: int = 0  #: In how many of them y_t was one
    reads: int = 0  #: In how many of them the scheduler would have read


def first_decision(config: NetworkConfig) -> int:
    """
    Give the first frame of a clip that the scheduler is trained on.

    Of a stream's first frame nothing was expected: the second one is read in any case, here as in
    inference.  In training such frames would also widen the scale on which BN puts the
    correlations of all others.
    """
    return int(config.scheduler_reference == EXPECTED)
