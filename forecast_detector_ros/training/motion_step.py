# SPDX-License-Identifier: Apache-2.0
"""
One training step of a forecast of motion: boxes of a read, moved, against the boxes to come.

A clip is a row of frames that are read and one more. From the second read on, the boxes that the
head finds are moved to every later frame of the clip, and compared with where the same objects are
there. Reads and frames to come lie as far apart as the stage's `gaps` and `horizons` say.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from .assignment import assign_aligned, decode, pad, PaddedBoxes, pairwise_iou
from .loss_config import LossConfig, StepLosses
from ..clips.dataset import ClipBatch
from ..model.motion import LONGEST, MotionState
from ..model.network import ForecastDetector
from ..model.ssdlite import box_coder, HeadOutput

LEAST_QUALITY = 0.1
"""Anchors that see their object worse than this are not trained on."""

LOSS_THAT_COUNTS = 3.0
"""A forecast of motion that loses a third of what a read finds is not reliable at all."""

SCORED_IOUS = (0.5, 0.6, 0.7)
"""IoUs at which a forecast is compared with a read, to train the scheduler."""


class Read(NamedTuple):
    """A frame that was read, of all clips."""

    frame: int
    head: HeadOutput
    state: MotionState
    """After the read, without a summary."""

    deep: Tensor
    scores: Tensor
    """What the scheduler's summary is made from."""


class ClipBoxes(NamedTuple):
    """The boxes of all frames of a batch, padded."""

    boxes: Tensor
    """``(B, T, K, 4)``."""

    labels: Tensor
    """``(B, T, K)``; -1 where there is none."""

    scores: Tensor
    """``(B, T, K)``."""

    tracks: Tensor
    """``(B, T, K)``; -1 where the object is not followed."""

    ignore: Tensor
    """``(B, T, R, 4)``."""


def clip_boxes(batch: ClipBatch) -> ClipBoxes:
    """
    Pad a batch's boxes.

    Raises
    ------
    ValueError
        If the batch knows neither tracks nor times.

    """
    if batch.all_tracks is None or batch.times is None:
        raise ValueError('a forecast of motion is trained on clips with tracks: set cache: device')

    def rows(packed: Tensor, counts: Tensor, fill: float) -> Tensor:
        return pad(packed, counts.flatten(), fill).unflatten(0, counts.shape)
    return ClipBoxes(rows(batch.all_boxes, batch.counts, 0.0),
                     rows(batch.all_labels, batch.counts, -1),
                     rows(batch.all_scores, batch.counts, 0.0),
                     rows(batch.all_tracks, batch.counts, -1),
                     rows(batch.all_ignore, batch.ignore_counts, 0.0))


def read_clip(network: ForecastDetector, features: tuple[Tensor, ...], times: Tensor, reads: int
              ) -> list[Read]:
    """
    Read the first frames of every clip, one after another.

    Parameters
    ----------
    network:
        Whose motion is trained; its head runs without gradient.
    features:
        ``(B, T, C, h, w)`` per level.
    times:
        ``(B, T)``: when each frame was taken.
    reads:
        How many frames are read.

    """
    assert network.motion is not None
    state = network.initial_state(len(times)).motion
    assert state is not None
    result = []
    for frame in range(reads):
        feature = tuple(level[:, frame] for level in features)
        with torch.no_grad():
            head = network.head(feature)
            head = HeadOutput(head.logits.float(), head.offsets.float())
        elapsed = times[:, frame] - times[:, frame - 1] if frame else torch.ones_like(times[:, 0])
        view = network.motion.compare(feature, head.logits, head.offsets, state, elapsed[:, None])
        state = view.state
        result.append(Read(frame, head, state, view.deep, view.scores))
    return result


def time_ahead(times: Tensor, read: int, frame: int) -> Tensor:
    """Give how far ahead of a read a frame lies, in times between the last two reads: (B, 1)."""
    gap = (times[:, read] - times[:, read - 1]).clamp(min=1e-6)
    return ((times[:, frame] - times[:, read]) / gap).clamp(0.0, LONGEST)[:, None]


def motion_loss(network: ForecastDetector, reads: list[Read], clips: ClipBoxes, times: Tensor
                ) -> tuple[Tensor, Tensor]:
    """
    Give the loss of moved boxes, and that of boxes that stay where they were.

    Both are 1 - GIoU, weighted with the anchors' quality and the objects' scores, mean over all
    anchors and later frames. What is moved is the true box of the frame that was read: the
    detection's own error is nothing that motion could mend.
    """
    motion = network.motion
    assert motion is not None
    total, still, weight_sum = (clips.boxes.new_zeros(()) for _ in range(3))
    frames = clips.boxes.shape[1]
    for read in reads[1:]:
        # A batch in which nothing is followed has a gradient, too: of zero.
        total = total + 0.0 * read.state.motion.sum()
        here = PaddedBoxes(clips.boxes[:, read.frame], clips.labels[:, read.frame],
                           clips.scores[:, read.frame], clips.ignore[:, read.frame])
        targets = assign_aligned(read.head, network.anchors, network.anchor_strides, here)
        clip, anchor = ((targets.classes > 0) & (targets.quality > LEAST_QUALITY)).nonzero(
            as_tuple=True)
        if not len(clip):
            continue
        now = targets.boxes[clip, anchor]
        owner = targets.owner[clip, anchor]
        track = clips.tracks[clip, read.frame, owner]
        weight = (targets.quality * targets.weights)[clip, anchor]
        encoded = box_coder().encode_single(now, network.anchors[anchor])
        for frame in range(read.frame + 1, frames):
            same = (clips.tracks[clip, frame] == track[:, None]) & (track >= 0)[:, None]
            there = same.any(1)
            later = clips.boxes[clip, frame, same.to(torch.uint8).argmax(1)]
            ahead = time_ahead(times, read.frame, frame)
            shift = motion.moved(torch.zeros_like(read.head.offsets), read.state.motion.float(),
                                 ahead)
            moved = box_coder().decode_single(encoded + shift[clip, anchor],
                                              network.anchors[anchor])
            counted = weight * there
            total = total + (generalized_box_iou_loss(moved, later) * counted).sum()
            still = still + (generalized_box_iou_loss(now, later) * counted).sum()
            weight_sum = weight_sum + counted.sum()
    return total / weight_sum.clamp(min=1.0), still / weight_sum.clamp(min=1.0)


class Found(NamedTuple):
    """What the head makes of each true box of a frame."""

    anchor: Tensor
    """``(B, K)`` int64: the anchor that says its class the loudest and overlaps it."""

    overlap: Tensor
    """``(B, K)``: that anchor's IoU with the box; 0 where its score does not count."""


@torch.no_grad()
def find_boxes(network: ForecastDetector, head: HeadOutput, clips: ClipBoxes, frame: int,
               score: float) -> Found:
    """
    Find every true box of a frame among the head's boxes, as detections would, without NMS.

    Parameters
    ----------
    network:
        Whose anchors these are.
    head:
        Output for the frame, of all clips.
    clips:
        The boxes.
    frame:
        Which frame.
    score:
        From which a detection counts.

    """
    labels = clips.labels[:, frame]
    overlap = pairwise_iou(clips.boxes[:, frame], decode(head.offsets, network.anchors))
    column = (labels.clamp(min=0) + 1)[:, :, None].expand(-1, -1, overlap.shape[2])
    said = head.logits.softmax(2).transpose(1, 2).gather(1, column)
    best, anchor = (said * (overlap >= SCORED_IOUS[0])).max(2)
    reached = overlap.gather(2, anchor[:, :, None])[:, :, 0]
    return Found(anchor, reached * ((best >= score) & (labels >= 0)))


@torch.no_grad()
def kept_recall(network: ForecastDetector, read: Read, before: Found, fresh: Found,
                clips: ClipBoxes, times: Tensor, frame: int) -> Tensor:
    """
    Give how much of what a read of `frame` finds its forecast finds, ``(B,)`` in [0, 1].

    Means over objects and `SCORED_IOUS`; 1 where reading finds nothing that the forecast does not
    find. Objects that are not followed do not count.

    Parameters
    ----------
    network:
        Whose forecast is judged.
    read:
        The last frame that was read.
    before, fresh:
        What is found in that frame, and in `frame` if it is read.
    clips, times:
        What there is to find, and when.
    frame:
        The frame that is judged.

    """
    assert network.motion is not None
    offsets = network.motion.moved(read.head.offsets, read.state.motion.float(),
                                   time_ahead(times, read.frame, frame))
    tracks, old = clips.tracks[:, frame], clips.tracks[:, read.frame]
    followed = tracks >= 0
    same = (tracks[:, :, None] == old[:, None, :]) & followed[:, :, None]
    place = same.to(torch.uint8).argmax(2)
    anchor = before.anchor.gather(1, place)
    moved = box_coder().decode_single(
        offsets.gather(1, anchor[:, :, None].expand(-1, -1, 4)).reshape(-1, 4),
        network.anchors[anchor.flatten()]).view_as(clips.boxes[:, frame])
    found = same.any(2) & (before.overlap.gather(1, place) > 0)
    overlap = _own_iou(moved, clips.boxes[:, frame]) * found
    levels = overlap.new_tensor(SCORED_IOUS)
    lost = ((fresh.overlap[:, :, None] >= levels).float()
            - (overlap[:, :, None] >= levels).float()).clamp(min=0).mean(2)
    weight = clips.scores[:, frame] * followed
    return 1.0 - (lost * weight).sum(1) / weight.sum(1).clamp(min=1e-6)


def _own_iou(a: Tensor, b: Tensor) -> Tensor:
    """Give the IoU of boxes one by one: ``(B, K, 4)`` twice to ``(B, K)``."""
    return pairwise_iou(a.reshape(-1, 1, 4), b.reshape(-1, 1, 4)).view(a.shape[:2])


def motion_losses(network: ForecastDetector, batch: ClipBatch, features: tuple[Tensor, ...],
                  config: LossConfig, with_scheduler: bool, frozen_detection: bool) -> StepLosses:
    """
    Add up the losses of a batch of clips: of motion, of its scheduler, or of both.

    Parameters
    ----------
    network:
        With a forecast of motion.
    batch:
        Clips with tracks and times; all frames but the last are read.
    features:
        ``(B, T, C, h, w)`` per level.
    config:
        Weights and rules.
    with_scheduler:
        Whether L_dec is part of the loss.
    frozen_detection:
        Only L_dec is wanted.

    """
    assert network.motion is not None and batch.times is not None
    device, times = batch.all_boxes.device, batch.times
    features = tuple(level.detach() for level in features)
    clips = clip_boxes(batch)
    last = times.shape[1] - 1
    # Displacements of a fraction of a cell have digits that bf16 does not have.
    with torch.autocast(device.type, enabled=False), \
            torch.set_grad_enabled(not frozen_detection):
        reads = read_clip(network, tuple(level.float() for level in features), times, last)
        result = StepLosses(total=torch.zeros((), device=device))
        moved, still = motion_loss(network, reads, clips, times)
    if not frozen_detection:
        result.total = result.total + config.gamma * moved
    result.parts |= {'for': float(moved.detach()), 'persistence': float(still)}
    if with_scheduler:
        with torch.autocast(device.type, enabled=False):
            _add_motion_decision(result, network, features, reads, clips, times, config)
    return result


def _add_motion_decision(result: StepLosses, network: ForecastDetector,
                         features: tuple[Tensor, ...], reads: list[Read], clips: ClipBoxes,
                         times: Tensor, config: LossConfig) -> None:
    motion = network.motion
    assert motion is not None
    last = times.shape[1] - 1
    with torch.no_grad():
        final = network.head(tuple(level[:, last].float() for level in features))
        final = HeadOutput(final.logits.float(), final.offsets.float())
    heads = [read.head for read in reads] + [final]
    found = [find_boxes(network, head, clips, frame, config.reliable_score)
             for frame, head in enumerate(heads)]
    wanted, logits = [], []
    for read in reads[1:]:
        summary = motion.scheduler.summarise(
            read.deep.detach(), read.scores.detach(), read.state.motion.detach())
        for frame in range(read.frame + 1, last + 1):
            kept = kept_recall(network, read, found[read.frame], found[frame], clips, times,
                               frame)
            wanted.append((1.0 - (1.0 - kept) * LOSS_THAT_COUNTS).clamp(min=0))
            logits.append(motion.scheduler(summary, time_ahead(times, read.frame, frame)))
    y, scores = torch.cat(wanted), torch.cat(logits)
    l_dec = functional.cross_entropy(scores, torch.stack((1.0 - y, y), 1),
                                     weight=scores.new_tensor(config.decision_weights))
    result.total = result.total + config.lambda_ * l_dec
    result.parts['dec'] = float(l_dec.detach())
    result.reliable = y > 0.5
    result.decisions, result.ones = y.numel(), int(result.reliable.sum())
    result.reads = int((scores[:, 1] <= scores[:, 0]).sum())
