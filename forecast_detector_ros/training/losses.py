# SPDX-License-Identifier: Apache-2.0
"""
Losses of the paper's equations 1 to 3, losses for anchors that learn their box's quality, and y_t.

`quality_loss` is varifocal loss (Zhang et al., CVPR 2021: https://arxiv.org/abs/2008.13367,
equation 2) for a softmax with background. It trains the score of a positive towards its quality,
and gives easy negatives less weight. Boxes are trained on their overlap.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_area, box_iou, complete_box_iou_loss, generalized_box_iou_loss

from .assignment import decode_boxes, QualityTargets
from ..model.config import ConfigError, EXPECTED, NetworkConfig
from ..model.ssdlite import box_coder, Boxes, HeadOutput

#: Anchors overlapping a box by at least this are positive (Liu et al., ECCV 2016, 2.2).
MATCH_IOU = 0.5
#: Adds a scalar tensor up over all processes that share a batch.
Total = Callable[[Tensor], Tensor]
#: Least divisor of the forecast's error, because persistence has no error on stills without
#: motion. Features are from 0 to 6.
SMALLEST_SCALE = 1e-3
#: Negatives per positive (Liu et al., ECCV 2016, section 2.2, hard negative mining).
NEGATIVE_RATIO = 3.0


@dataclass(frozen=True)
class AnchorTargets:
    """The target of every anchor of a batch of N images."""

    #: ``(N, A)`` int64: 0 background, 1 + class for positives, -1 for anchors that are ignored.
    classes: Tensor
    boxes: Tensor  #: ``(N, A, 4)`` float32, xyxy; meaningful for positives
    weights: Tensor  #: ``(N, A)`` float32: the score of the matched box for positives, 1 elsewhere


def assign(anchors: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor],
           scores: Sequence[Tensor] | None = None, ignore: Sequence[Tensor] | None = None
           ) -> AnchorTargets:
    """
    Match anchors with boxes if IoU >= 0.5; each box also takes its best anchor.

    :param anchors: ``(A, 4)`` float32, xyxy
    :param boxes, labels, scores, ignore: one tensor per image: ``(K, 4)`` float32 xyxy, ``(K,)``
        int64 class, ``(K,)`` float32 weight in [0, 1], ``(R, 4)`` float32 regions. Negative
        anchors of which more than half lies in a region are ignored.
    """
    matcher = SSDMatcher(MATCH_IOU)
    count, total, device = len(boxes), anchors.shape[0], anchors.device
    classes = torch.zeros((count, total), dtype=torch.int64, device=device)
    matched = torch.zeros((count, total, 4), device=device)
    weights = torch.ones((count, total), device=device)
    for n in range(count):
        if len(boxes[n]):
            match = matcher(box_iou(boxes[n], anchors))
            positive = match >= 0
            index = match[positive]
            classes[n, positive] = labels[n][index] + 1
            matched[n, positive] = boxes[n][index]
            if scores is not None:
                weights[n, positive] = scores[n][index]
        if ignore is not None and len(ignore[n]):
            inner = inner_fractions(anchors, ignore[n]).amax(1)
            classes[n, (inner > 0.5) & (classes[n] == 0)] = -1
    return AnchorTargets(classes, matched, weights)


def inner_fractions(boxes: Tensor, regions: Tensor) -> Tensor:
    """
    Return the part of each box that lies in each region.

    :param boxes, regions: ``(K, 4)`` and ``(R, 4)`` float32, xyxy
    :returns: ``(K, R)`` in [0, 1], as a fraction of the box's area
    """
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    return (high - low).clamp(min=0).prod(2) / box_area(boxes).clamp(min=1e-6)[:, None]


def detection_loss(head: HeadOutput, targets: AnchorTargets, anchors: Tensor,
                   negative_ratio: float = NEGATIVE_RATIO, min_negatives: int = 0,
                   total: Total = Tensor.detach) -> tuple[Tensor, Tensor]:
    """
    Return L_loc / M and L_cls / M of equation 1, as Liu et al. (ECCV 2016) define them.

    :param head: output for N images
    :param targets: result of `assign` for them
    :param anchors: ``(A, 4)`` float32, xyxy
    :param negative_ratio: hard negatives per positive, image by image
    :param min_negatives: fewest negatives of an image; with 0, as in SSD, an image without boxes
        does not contribute
    :param total: adds M up over processes that share a batch; the losses are this one's part
    :returns: smooth-L1 of the positives' offsets and softmax cross entropy of positives and hard
        negatives. Both are sums weighted with the boxes' scores, over M, the number of positives
        in the whole batch (at least 1)
    """
    positive = targets.classes > 0
    matches = total(positive.sum()).clamp(min=1)
    weights = targets.weights[positive]
    coder = box_coder()
    wanted = coder.encode_single(targets.boxes[positive],
                                 anchors.expand(len(positive), -1, -1)[positive])
    offsets = head.offsets.float()[positive]
    l_loc = (functional.smooth_l1_loss(offsets, wanted, reduction='none').sum(1)
             * weights).sum() / matches

    logits = head.logits.float()
    entropy = functional.cross_entropy(
        logits.flatten(0, 1), targets.classes.clamp(min=0).flatten(), reduction='none'
    ).view_as(targets.weights)
    # Rank the negatives of every image by their loss; positives and ignored ones stand last.
    candidates = entropy.detach().masked_fill(targets.classes != 0, -1.0)
    rank = candidates.argsort(1, descending=True).argsort(1)
    quota = (negative_ratio * positive.sum(1)).clamp(min=min_negatives)
    negative = (rank < quota[:, None]) & (targets.classes == 0)
    l_cls = ((entropy[positive] * weights).sum() + entropy[negative].sum()) / matches
    return l_loc, l_cls


def level_errors(found: Sequence[Tensor], target: Sequence[Tensor], detach: bool = True
                 ) -> Tensor:
    """
    Return the mean squared error of each level, ``(levels,)`` float32.

    :param found, target: one map per level, of equal shapes
    :param detach: stop the gradient of the target
    """
    return torch.stack([
        functional.mse_loss(f.float(), (t.detach() if detach else t).float())
        for f, t in zip(found, target)])


def forecast_loss(forecast: Sequence[Tensor], target: Sequence[Tensor], detach: bool = True,
                  scale: Tensor | None = None) -> Tensor:
    """
    Return L_for of equation 2: the mean squared error of `forecast` to the next `feature`.

    The equation prints F_t as the target, but the text above it and section 3.1 say F_{t+1}, which
    is used here. The result is the mean over levels.

    :param forecast, target: one ``(..., C, h, w)`` map per level: `forecast` at t and the
        extractor's map at t + 1
    :param detach: let no gradient into the target
    :param scale: ``(levels,)``: each level's error is divided by its entry, or by `SMALLEST_SCALE`
        if that is larger; None divides by nothing, as in the paper
    """
    return scale_errors(level_errors(forecast, target, detach), scale).mean()


def scale_errors(errors: Tensor, scale: Tensor | None) -> Tensor:
    """Divide the errors of the levels as `forecast_loss` says."""
    return errors if scale is None else errors / scale.detach().clamp(min=SMALLEST_SCALE)


def decision_loss(logits: Tensor, reliable: Tensor,
                  class_weights: tuple[float, float] = (1., 1.), total: Total = Tensor.detach
                  ) -> Tensor:
    """
    Return L_dec of equation 3: the cross entropy of the scheduler, mean over the batch.

    :param logits: ``(B, 2)``, *read* first
    :param reliable: y_t, ``(B,)`` bool or 0/1: whether the forecast may replace a read of the next
        frame
    :param class_weights: weights of the two classes, *read* first
    :param total: adds the weights up over processes that share a batch; the loss is this one's
        part
    """
    weight = torch.tensor(class_weights, dtype=torch.float32, device=logits.device)
    wanted = reliable.long()
    entropy = functional.cross_entropy(logits.float(), wanted, weight=weight, reduction='sum')
    return entropy / total(weight[wanted].sum())


FOCUS = 2.0  #: Exponent of the negatives' weight (Zhang et al., section 4.1)
NEGATIVE_WEIGHT = 0.75  #: Weight of all negatives (Zhang et al., section 4.1)
GIOU, CIOU = BOX_LOSSES = ('giou', 'ciou')

_OVERLAP: dict[str, Callable[..., Tensor]] = {
    GIOU: generalized_box_iou_loss, CIOU: complete_box_iou_loss}


def quality_loss(head: HeadOutput, targets: QualityTargets, anchors: Tensor, box: str = GIOU,
                 total: Total = Tensor.detach) -> tuple[Tensor, Tensor]:
    """
    Return L_loc and L_cls, each divided by the sum of all positives' quality.

    :param head: output for N images
    :param targets: result of `assign_aligned` for it
    :param anchors: ``(A, 4)`` float32, xyxy
    :param box: ``giou`` or ``ciou``
    :param total: adds a scalar up over processes that share a batch
    """
    positive = targets.classes > 0
    weight = targets.weights * targets.quality
    norm = total(weight.sum()).clamp(min=1.0)

    found = decode_boxes(head.offsets.float(), anchors)[positive]
    l_loc = (_OVERLAP[box](found, targets.boxes[positive]) * weight[positive]).sum() / norm

    log_scores = functional.log_softmax(head.logits.float(), 2)
    background = log_scores[..., 0]
    easy = (-background.detach().expm1()).clamp(min=0).pow(FOCUS)
    negative = targets.classes == 0
    l_negative = (-background * easy)[negative].sum() * NEGATIVE_WEIGHT
    quality, rows = targets.quality[positive], log_scores[positive]
    own = rows.gather(1, targets.classes[positive][:, None])[:, 0]
    entropy = -(quality * own + (1.0 - quality) * rows[:, 0])
    l_positive = (entropy * targets.weights[positive]).sum()
    return l_loc, (l_positive + l_negative) / norm


RELIABLE_IOU = 0.7  #: "IOU over 0.7, for example" (section 3.4)


def is_reliable(detections: Boxes, boxes: Tensor, labels: Tensor, iou: float = RELIABLE_IOU,
                ignore: Tensor | None = None) -> bool:
    """
    Return whether the detections on a forecast find every box of the next frame.

    :param detections: detections on the forecast whose scores count as confident
    :param boxes, labels: ground truth of the next frame: ``(K, 4)`` xyxy, ``(K,)``
    :param iou: smallest overlap that matches
    :param ignore: ``(R, 4)`` xyxy, ignore regions; None for none
    :returns: True if every box is matched one-to-one by a detection of its class. If there is no
        box, True if more than half of each detection lies in a region.
    """
    if not len(boxes):
        if ignore is None or not len(ignore) or not len(detections.boxes):
            return not len(detections.boxes)
        return bool((inner_fractions(detections.boxes, ignore).amax(1) > 0.5).all())
    if len(detections.boxes) < len(boxes):
        return False
    overlap = box_iou(boxes, detections.boxes)
    overlap = overlap.masked_fill(labels[:, None] != detections.labels[None, :], 0.0)
    return _perfect_matching(overlap >= iou)


def is_consistent(forecast: Boxes, read: Boxes, confident: float, iou: float = RELIABLE_IOU
                  ) -> bool:
    """
    Return whether detections on a forecast agree with those on the read frame.

    :param forecast, read: detections on the forecast of a frame and on the frame's own features.
        They include scores below `confident`, so that a score just above it can match one just
        below it.
    :param confident: smallest score of a box that the other side must find
    :param iou: smallest overlap that matches
    :returns: True if every confident box of either side is matched one-to-one, in its class, by a
        box of the other
    """
    return _found(read, forecast, confident, iou) and _found(forecast, read, confident, iou)


def _found(wanted: Boxes, among: Boxes, confident: float, iou: float) -> bool:
    picked = wanted.scores >= confident
    boxes = wanted.boxes[picked]
    return not len(boxes) or is_reliable(among, boxes, wanted.labels[picked], iou)


def _perfect_matching(allowed: Tensor) -> bool:
    """Return whether every row can get its own column (augmenting paths)."""
    owner = [-1] * allowed.shape[1]
    columns = [row.nonzero().flatten().tolist() for row in allowed]

    def place(row: int, seen: set[int]) -> bool:
        for column in columns[row]:
            if column in seen:
                continue
            seen.add(column)
            if owner[column] < 0 or place(owner[column], seen):
                owner[column] = row
                return True
        return False

    return all(place(row, set()) for row in range(len(columns)))


TRUTH, READ_FRAME = 'truth', 'read'  #: What y_t is measured against
#: Rules by which anchors are matched with boxes, and the losses that go with them.
SSD, QUALITY = DETECTION_LOSSES = ('ssd', 'quality')
PLAIN, PERSISTENCE = 'none', 'persistence'
SCALES = (PLAIN, PERSISTENCE)  #: What the error of the forecast is divided by


# Far above any useful value: a larger one is a typing error or infinite.
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
    #: Weight of L_for (section 3.3); for the variant `without_forecast` it is always 0.
    gamma: float = 1.0
    #: `none`, as in the paper; or `persistence`: each level's error is divided by that of
    #: persistence on the same batch, so that 1 is as good as persistence.
    forecast_scale: str = PLAIN
    lambda_: float = 0.7  #: Weight of L_dec (section 3.3)
    #: `ssd`: anchors are matched by overlap, with smooth L1 and hard negatives (section 3.3);
    #: `quality`: by score and overlap, and each learns its box's quality (`assignment`).
    detection: str = SSD
    box: str = GIOU  #: `quality`: the loss of boxes, `giou` or `ciou`
    min_negatives: int = 0  #: Fewest negatives of each image; 0 in SSD
    #: Probabilities that the head sees `feature`, `temporal` or their mean; the paper names the
    #: three and no probabilities.
    combination: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    detach_target: bool = True  #: Stop the gradient of L_for into the extractor
    #: Reference of y_t for the detections on the forecast: the `truth` of the next frame (section
    #: 3.4), or the detections if the frame were `read`. With `truth`, a frame on which reading
    #: fails too counts against the forecast.
    reliable_against: str = TRUTH
    reliable_iou: float = RELIABLE_IOU  #: IoU for y_t
    reliable_score: float = 0.3  #: Smallest score of a detection that counts for y_t
    #: Against `read`: boxes with a score of `reliable_score` plus this must be found on both.
    reliable_margin: float = 0.1
    decision_weights: tuple[float, float] = (1.0, 1.0)  #: Class weights of L_dec, *read* first
    #: Probability that a frame after the first uses the forecast in place of its image, as in
    #: inference; 0 in the paper.
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
    """The losses of one step, and counts for the log."""

    total: Tensor
    parts: dict[str, float] = field(default_factory=dict)
    reliable: Tensor | None = None  #: y_t of all clips and steps, flat bool
    decisions: int = 0  #: Number of decisions
    ones: int = 0  #: Number of them in which y_t was one
    reads: int = 0  #: Number of them in which the scheduler would have read


def first_decision(config: NetworkConfig) -> int:
    """
    Return the index of the first frame of a clip that the scheduler is trained on.

    A stream's first frame has no forecast to compare with, so the second frame is always read,
    here as in inference. Such frames would also distort BatchNorm's statistics of correlations.
    """
    return int(config.scheduler_reference == EXPECTED)
