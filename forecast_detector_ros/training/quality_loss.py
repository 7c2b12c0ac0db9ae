# SPDX-License-Identifier: Apache-2.0
"""
Losses for anchors that learn how good their box is.

The score of a positive is trained towards its quality and negatives are weighted down by how easy
they are, as in varifocal loss (Zhang et al., CVPR 2021: https://arxiv.org/abs/2008.13367, equation
2), here for a softmax with background. Boxes are trained on their overlap.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from .assignment import decode, QualityTargets
from ..model.ssdlite import HeadOutput

FOCUS = 2.0  #: Exponent of the negatives' weight (Zhang et al., section 4.1)
NEGATIVE_WEIGHT = 0.75  #: Weight of all negatives (Zhang et al., section 4.1)
GIOU, CIOU = BOX_LOSSES = ('giou', 'ciou')

_OVERLAP: dict[str, Callable[..., Tensor]] = {
    GIOU: generalized_box_iou_loss, CIOU: complete_box_iou_loss}


def quality_loss(head: HeadOutput, targets: QualityTargets, anchors: Tensor, box: str = GIOU,
                 total: Callable[[Tensor], Tensor] = Tensor.detach) -> tuple[Tensor, Tensor]:
    """
    Give L_loc and L_cls, each divided by the sum of all positives' quality.

    :param head: output for N images
    :param targets: what `assign_aligned` gave for it
    :param anchors: ``(A, 4)`` float32, xyxy
    :param box: ``giou`` or ``ciou``
    :param total: adds a scalar up over processes that share a batch
    """
    positive = targets.classes > 0
    weight = targets.weights * targets.quality
    norm = total(weight.sum()).clamp(min=1.0)

    found = decode(head.offsets.float(), anchors)[positive]
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
