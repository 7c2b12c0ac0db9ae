# SPDX-License-Identifier: Apache-2.0
"""The losses of the paper's equations 1 to 3."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_area, box_iou

from ..model.ssdlite import box_coder, HeadOutput

#: Anchors overlapping a box by at least this are positive (Liu et al., ECCV 2016, 2.2).
MATCH_IOU = 0.5
#: Adds a scalar tensor up over all processes that share a batch.
Total = Callable[[Tensor], Tensor]
#: Least divisor of the forecast's error: on stills without motion persistence has no error at all;
#: features reach from 0 to 6.
SMALLEST_SCALE = 1e-3
#: Negatives per positive (Liu et al., ECCV 2016, section 2.2, hard negative mining).
NEGATIVE_RATIO = 3.0


@dataclass(frozen=True)
class AnchorTargets:
    """What every anchor of a batch of N images should say."""

    #: ``(N, A)`` int64: 0 background, 1 + class for positives, -1 for anchors that are ignored.
    classes: Tensor
    boxes: Tensor  #: ``(N, A, 4)`` float32, xyxy; meaningful for positives
    weights: Tensor  #: ``(N, A)`` float32: the score of the matched box for positives, 1 elsewhere


def assign(anchors: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor],
           scores: Sequence[Tensor] | None = None, ignore: Sequence[Tensor] | None = None
           ) -> AnchorTargets:
    """
    Match anchors with boxes: IoU >= 0.5, and for every box the best anchor in any case.

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
    Give how much of each box lies in each region.

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
    Give L_loc / M and L_cls / M of equation 1, as Liu et al. (ECCV 2016) define them.

    :param head: output for N images
    :param targets: what `assign` gave for them
    :param anchors: ``(A, 4)``
    :param negative_ratio: hard negatives per positive, image by image
    :param min_negatives: at least so many negatives in every image; with 0, as in SSD, an image
        without boxes teaches nothing
    :param total: adds M up over processes that share a batch; the losses are then this one's part
    :returns: smooth-L1 of the positives' offsets and softmax cross entropy of positives and hard
        negatives, each summed, weighted with the boxes' scores and divided by M, the number of
        positives in the whole batch (at least 1)
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
    Give the mean squared error of each level, ``(levels,)`` float32.

    :param found, target: one map per level, of equal shapes
    :param detach: let no gradient into the target
    """
    return torch.stack([
        functional.mse_loss(f.float(), (t.detach() if detach else t).float())
        for f, t in zip(found, target)])


def forecast_loss(forecast: Sequence[Tensor], target: Sequence[Tensor], detach: bool = True,
                  scale: Tensor | None = None) -> Tensor:
    """
    Give L_for of equation 2: the mean squared error of `forecast` against the next `feature`.

    The equation prints F_t as the target; the text above it and section 3.1 say F_{t+1}, and so
    it is here.  The mean over levels is taken.

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
    Give L_dec of equation 3: the cross entropy of the scheduler, mean over the batch.

    :param logits: ``(B, 2)``, *read* first
    :param reliable: y_t, ``(B,)`` bool or 0/1: whether the forecast may stand in for the next
        frame
    :param class_weights: weights of the two classes, *read* first
    :param total: adds the weights up over processes that share a batch; the loss is then this
        one's part
    """
    weight = torch.tensor(class_weights, dtype=torch.float32, device=logits.device)
    wanted = reliable.long()
    entropy = functional.cross_entropy(logits.float(), wanted, weight=weight, reduction='sum')
    return entropy / total(weight[wanted].sum())
