# SPDX-License-Identifier: Apache-2.0
"""
One training step of a forecast of motion: boxes of a read, moved, against the boxes to come.

A clip is a row of frames that are read and one more. From the second read on, the boxes that the
head finds are moved to every later frame of the clip, and compared with where the same objects are
there. Reads and frames to come lie as far apart as the stage's `gaps` and `horizons` say.
"""

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from .assignment import pairwise_iou
from .losses import LossConfig, StepLosses
from .motion_frames import MotionBatch, SCORED_IOUS
from ..model.extractor import kept_statistics
from ..model.motion_forecast import Comparison, LONGEST, MotionState
from ..model.network import ForecastDetector
from ..model.ssdlite import box_coder

#: A forecast of motion that loses a third of what a read finds is not reliable at all.
LOSS_THAT_COUNTS = 3.0


def time_ahead(times: Tensor, read: int, frame: int) -> Tensor:
    """
    Give how far ahead of a read a frame lies, ``(B, 1)``, in times between the last two reads.

    :param times: ``(B, T)``: when each frame was taken
    :param read, frame: indices of the read, at least 1, and of the later frame
    """
    gap = (times[:, read] - times[:, read - 1]).clamp(min=1e-6)
    return ((times[:, frame] - times[:, read]) / gap).clamp(0.0, LONGEST)[:, None]


def read_clip(network: ForecastDetector, batch: MotionBatch) -> list[Comparison]:
    """Read all frames of the clips but the last, one after another; give what each brings."""
    motion, frames = network.motion, batch.frames
    assert motion is not None
    state = network.initial_state(len(batch.times)).motion
    assert isinstance(state, MotionState)
    result = []
    for t in range(batch.times.shape[1] - 1):
        elapsed = batch.times[:, t] - batch.times[:, t - 1] if t else torch.ones_like(
            batch.times[:, 0])
        # The first read has nothing to compare with; its zeros are not what the others see.
        with nullcontext() if t else kept_statistics(motion):
            view = motion.compare_reads(tuple(level[:, t].float() for level in frames.features),
                                        frames.views[:, t], state, elapsed[:, None])
        state = view.state
        result.append(view)
    return result


def motion_loss(network: ForecastDetector, reads: list[Comparison], batch: MotionBatch
                ) -> tuple[Tensor, Tensor]:
    """
    Give the loss of moved boxes, and that of boxes that stay where they were.

    Both are 1 - GIoU, weighted with the anchors' quality and the objects' scores, mean over all
    anchors and later frames. What is moved is the true box of the frame that was read: the
    detection's own error is nothing that motion could mend.
    """
    motion, frames = network.motion, batch.frames
    assert motion is not None
    total, still, weight_sum = (batch.times.new_zeros(()) for _ in range(3))
    for t, read in enumerate(reads):
        # A batch in which nothing is followed has a gradient, too: of zero.
        total = total + 0.0 * read.state.motion.sum()
        clip, place = (frames.weight[:, t] > 0).nonzero(as_tuple=True)
        if not t or not len(clip):
            continue
        anchor = frames.anchor[clip, t, place]
        owner = frames.owner[clip, t, place]
        weight = frames.weight[clip, t, place]
        now = frames.boxes[clip, t, owner]
        track = frames.tracks[clip, t, owner]
        encoded = box_coder().encode_single(now, network.anchors[anchor])
        cell = read.state.motion[clip, anchor // motion.per_cell]
        for later in range(t + 1, batch.times.shape[1]):
            same = (frames.tracks[clip, later] == track[:, None]) & (track >= 0)[:, None]
            goal = frames.boxes[clip, later, same.to(torch.uint8).argmax(1)]
            ahead = time_ahead(batch.times, t, later)[clip]
            shift = motion.shift(cell[:, None], ahead)[:, 0] * motion.units[anchor]
            moved = box_coder().decode_single(encoded + shift, network.anchors[anchor])
            counted = weight * same.any(1)
            total = total + (generalized_box_iou_loss(moved, goal) * counted).sum()
            still = still + (generalized_box_iou_loss(now, goal) * counted).sum()
            weight_sum = weight_sum + counted.sum()
    return total / weight_sum.clamp(min=1.0), still / weight_sum.clamp(min=1.0)


@torch.no_grad()
def kept_recall(network: ForecastDetector, read: Comparison, batch: MotionBatch, t: int,
                later: int) -> Tensor:
    """
    Give how much of what a read of a frame finds its forecast finds, ``(B,)`` in [0, 1].

    Means over objects and `SCORED_IOUS`; 1 where reading finds no more than the forecast does.
    What only the forecast finds makes up for what only the read finds: unsure detections come and
    go where nothing moves, and to read again would win nothing. Objects that are not followed do
    not count.

    :param network: whose forecast is judged
    :param read: what the last read brought
    :param t, later: indices of the frame that was read and of the one that is judged
    """
    motion, frames = network.motion, batch.frames
    assert motion is not None
    tracks, old = frames.tracks[:, later], frames.tracks[:, t]
    if not tracks.shape[1]:
        return torch.ones_like(batch.times[:, 0])
    followed = tracks >= 0
    same = (tracks[:, :, None] == old[:, None, :]) & followed[:, :, None]
    place = same.to(torch.uint8).argmax(2)
    anchor = frames.found_anchor[:, t].gather(1, place)
    rows = torch.arange(len(anchor), device=anchor.device)[:, None]
    shift = motion.shift(read.state.motion[rows, anchor // motion.per_cell],
                         time_ahead(batch.times, t, later)) * motion.units[anchor]
    offsets = frames.found_offsets[:, t].gather(1, place[:, :, None].expand(-1, -1, 4))
    moved = box_coder().decode_single((offsets + shift).reshape(-1, 4),
                                      network.anchors[anchor.flatten()])
    overlap = pairwise_iou(moved[:, None], frames.boxes[:, later].reshape(-1, 1, 4))
    found = same.any(2) & (frames.found_overlap[:, t].gather(1, place) > 0)
    overlap = overlap.view(found.shape) * found
    levels = overlap.new_tensor(SCORED_IOUS)
    lost = ((frames.found_overlap[:, later, :, None] >= levels).float()
            - (overlap[:, :, None] >= levels).float()).mean(2)
    weight = frames.scores[:, later] * followed
    return 1.0 - ((lost * weight).sum(1) / weight.sum(1).clamp(min=1e-6)).clamp(min=0)


def motion_losses(network: ForecastDetector, batch: MotionBatch, config: LossConfig,
                  with_scheduler: bool, frozen_detection: bool) -> StepLosses:
    """
    Add up the losses of a batch of clips: of motion, of its scheduler, or of both.

    :param network: with a forecast of motion
    :param batch: all frames of its clips but the last are read
    :param with_scheduler: whether L_dec is part of the loss
    :param frozen_detection: only L_dec is wanted
    """
    device = batch.times.device
    result = StepLosses(total=torch.zeros((), device=device))
    # Displacements of a fraction of a cell have digits that bf16 does not have.
    with torch.autocast(device.type, enabled=False):
        with torch.set_grad_enabled(not frozen_detection):
            reads = read_clip(network, batch)
            moved, still = motion_loss(network, reads, batch)
        if not frozen_detection:
            result.total = result.total + config.gamma * moved
        result.parts |= {'for': float(moved.detach()), 'persistence': float(still)}
        if with_scheduler:
            _add_decision(result, network, reads, batch, config)
    return result


def _add_decision(result: StepLosses, network: ForecastDetector, reads: list[Comparison],
                  batch: MotionBatch, config: LossConfig) -> None:
    motion = network.motion
    assert motion is not None
    wanted, logits = [], []
    for t, read in enumerate(reads[1:], 1):
        # The encoder learns from where boxes go alone.
        summary = motion.scheduler.summarise(read).detach()
        for later in range(t + 1, batch.times.shape[1]):
            kept = kept_recall(network, read, batch, t, later)
            wanted.append((1.0 - (1.0 - kept) * LOSS_THAT_COUNTS).clamp(min=0))
            logits.append(motion.scheduler(summary, time_ahead(batch.times, t, later)))
    y, scores = torch.cat(wanted), torch.cat(logits)
    l_dec = functional.cross_entropy(scores, torch.stack((1.0 - y, y), 1),
                                     weight=scores.new_tensor(config.decision_weights))
    result.total = result.total + config.lambda_ * l_dec
    result.parts['dec'] = float(l_dec.detach())
    result.reliable = y > 0.5
    result.decisions, result.ones = y.numel(), int(result.reliable.sum())
    result.reads = int((scores[:, 1] <= scores[:, 0]).sum())
