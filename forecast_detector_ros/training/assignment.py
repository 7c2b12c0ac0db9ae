# SPDX-License-Identifier: Apache-2.0
"""
Match anchors and boxes by the predictions of the network (Feng et al., ICCV 2021: TOOD).

A box takes the anchors that predict both its class and its corners well, and each anchor learns
how well: https://arxiv.org/abs/2108.07755, section 3.2. All images of a batch are matched
together.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..clips.dataset import ClipBatch
from ..model.ssdlite import box_coder, HeadOutput

ALPHA, BETA = 1.0, 6.0  #: Exponents of score and IoU in the alignment (TOOD, section 4.1)
TOP = 13  #: Anchors that a box takes (TOOD, section 4.1)
#: A box is extended to at least this many strides from its centre, so that a small one has an
#: anchor.
NEAR = 0.75
#: A region that is not judged hides boxes inside it that have at least a fourth of its area.
SAME_SIZE = 4.0
CHUNK = 64  #: Images matched at a time: bounds the memory of all pairs of boxes and anchors


class PaddedBoxes(NamedTuple):
    """Boxes of N images, filled up to the largest number K."""

    boxes: Tensor  #: ``(N, K, 4)`` float32, xyxy; zero where there is none
    labels: Tensor  #: ``(N, K)`` int64; -1 where there is none
    scores: Tensor  #: ``(N, K)`` float32, 0 to 1
    ignore: Tensor  #: ``(N, R, 4)`` float32, xyxy; zero where there is none


class QualityTargets(NamedTuple):
    """The target of every anchor of N images."""

    #: ``(N, A)`` int64: 0 background, 1 + class for positives, -1 for anchors that are ignored.
    classes: Tensor
    boxes: Tensor  #: ``(N, A, 4)`` float32, xyxy; meaningful for positives
    #: ``(N, A)`` float32, 0 to 1: the target score of a positive; 0 elsewhere.
    quality: Tensor
    weights: Tensor  #: ``(N, A)`` float32: the score of the matched box for positives, 1 elsewhere
    owner: Tensor  #: ``(N, A)`` int64: index of the image's box that a positive is matched with


def pad(packed: Tensor, counts: Tensor, fill: float = 0.0) -> Tensor:
    """
    Distribute ``(sum(counts), ...)`` rows over N images: ``(N, max(counts), ...)``.

    :param packed: rows of all images, one image after another
    :param counts: ``(N,)`` int64 on the CPU: rows of each image
    :param fill: value of the missing rows
    """
    most = int(counts.max()) if len(counts) else 0
    result = packed.new_full((len(counts), most, *packed.shape[1:]), fill)
    image = torch.repeat_interleave(torch.arange(len(counts)), counts)
    place = torch.arange(len(image)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    result[image.to(packed.device), place.to(packed.device)] = packed
    return result


def padded_boxes(batch: ClipBatch) -> PaddedBoxes:
    """Return the boxes of all B * T frames of a batch of clips, one clip after another."""
    counts = batch.counts.flatten()
    return PaddedBoxes(pad(batch.all_boxes, counts), pad(batch.all_labels, counts, -1),
                       pad(batch.all_scores, counts),
                       pad(batch.all_ignore, batch.ignore_counts.flatten()))


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of ``(N, K, 4)`` and ``(N or 1, A, 4)`` boxes, xyxy: ``(N, K, A)``."""
    inner = _intersection(a, b)
    union = _area(a)[:, :, None] + _area(b)[:, None, :] - inner
    return inner / union.clamp(min=1e-6)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    # One side at a time: a broadcast of pairs of corners would take twice the memory.
    width = (torch.minimum(a[:, :, None, 2], b[:, None, :, 2])
             - torch.maximum(a[:, :, None, 0], b[:, None, :, 0])).clamp_(min=0)
    height = (torch.minimum(a[:, :, None, 3], b[:, None, :, 3])
              - torch.maximum(a[:, :, None, 1], b[:, None, :, 1])).clamp_(min=0)
    return width.mul_(height)


def decode_boxes(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Turn ``(N, A, 4)`` offsets into boxes, xyxy in pixels of the network's input."""
    flat = box_coder().decode_single(offsets.reshape(-1, 4),
                                     anchors.expand(len(offsets), -1, -1).reshape(-1, 4))
    return flat.view_as(offsets)


@torch.no_grad()
def assign_aligned(head: HeadOutput, anchors: Tensor, strides: Tensor, wanted: PaddedBoxes,
                   top: int = TOP) -> QualityTargets:
    """
    Match anchors with boxes by score and IoU.

    :param head: output for N images
    :param anchors: ``(A, 4)`` float32, xyxy
    :param strides: ``(A,)`` float32: pixels between neighbouring cells of the anchor's map
    :param top: anchors that a box takes at most
    """
    parts = [_assign(logits, offsets, anchors, strides, PaddedBoxes(*boxes), top)
             for logits, offsets, *boxes in zip(
                 head.logits.detach().split(CHUNK), head.offsets.detach().split(CHUNK),
                 *(field.split(CHUNK) for field in wanted))]
    return QualityTargets(*(torch.cat(field) for field in zip(*parts)))


def _assign(logits: Tensor, offsets: Tensor, anchors: Tensor, strides: Tensor,
            wanted: PaddedBoxes, top: int) -> QualityTargets:
    count, total = logits.shape[:2]
    found = decode_boxes(offsets.float(), anchors)
    classes = torch.zeros((count, total), dtype=torch.int64, device=logits.device)
    boxes, quality, weights = torch.zeros_like(found), found.new_zeros((count, total)), \
        found.new_ones((count, total))
    owner = torch.zeros_like(classes)
    if wanted.boxes.shape[1]:
        valid = wanted.labels >= 0
        scores = logits.float().softmax(2)
        overlap = pairwise_iou(wanted.boxes, found)
        column = (wanted.labels.clamp(min=0) + 1)[:, :, None].expand(-1, -1, total)
        aligned = scores.transpose(1, 2).gather(1, column).pow_(ALPHA) * overlap.pow(BETA)
        # The small term ranks anchors by their own IoU while no prediction overlaps the box.
        aligned += 1e-9 * pairwise_iou(wanted.boxes, anchors[None])
        aligned *= _near(wanted.boxes, anchors, strides) & valid[:, :, None]
        best, index = aligned.topk(min(top, total), dim=2)
        chosen = torch.zeros_like(aligned, dtype=torch.bool).scatter_(2, index, best > 0)
        # An anchor that several boxes want goes to the one that it overlaps most.
        preference = torch.where(chosen, overlap + 1e-6, 0.0)
        value, owner = preference.max(1)
        positive = value > 0
        chosen &= owner[:, None, :] == torch.arange(chosen.shape[1], device=chosen.device
                                                    )[None, :, None]
        aligned *= chosen
        # Normalised so that the target of a box's best anchor is the box's best IoU (section 3.2).
        scale = torch.where(chosen, overlap, 0.0).amax(2) / aligned.amax(2).clamp(min=1e-12)
        quality = (aligned * scale[:, :, None]).amax(1)
        pick = owner[:, :, None].expand(-1, -1, 4)
        boxes = wanted.boxes.gather(1, pick)
        classes = torch.where(positive, wanted.labels.gather(1, owner) + 1, 0)
        weights = torch.where(positive, wanted.scores.gather(1, owner), 1.0)
    if wanted.ignore.shape[1]:
        classes = torch.where((classes == 0) & _hidden(found, wanted.ignore), -1, classes)
    return QualityTargets(classes, boxes, quality, weights, owner)


def _near(boxes: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
    """Return whether an anchor's centre is in or near a box: bool ``(N, K, A)``."""
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = (boxes[..., 2:] - boxes[..., :2]) / 2
    place = (anchors[:, :2] + anchors[:, 2:]) / 2
    least = NEAR * strides
    return (((centre[..., 0, None] - place[:, 0]).abs()
             <= torch.maximum(half[..., 0, None], least))
            & ((centre[..., 1, None] - place[:, 1]).abs()
               <= torch.maximum(half[..., 1, None], least)))


def _hidden(found: Tensor, regions: Tensor) -> Tensor:
    """Return whether a box lies in an ignore region of similar size: bool ``(N, A)``."""
    inner = _intersection(regions, found)
    area = _area(found)[:, None, :]
    return ((inner > 0.5 * area) & (_area(regions)[:, :, None] <= SAME_SIZE * area)).any(1)
