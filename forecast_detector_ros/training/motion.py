# SPDX-License-Identifier: Apache-2.0
"""
Training of a forecast of motion: data of frames, clips of them, and a step on clips.

Extractor and head are frozen, so all data of a frame can be computed once. Some views of every
video fit into memory. Two cores then train on some hundred clips per second.

A clip is a series of frames that are read, and one more frame. From the second read on, the boxes
that the head finds are moved to every later frame of the clip, and compared with the boxes of the
same objects there. The stage's `gaps` and `horizons` are the distances between the frames.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from .assignment import (
    assign_aligned,
    decode_boxes,
    pad,
    padded_boxes,
    PaddedBoxes,
    pairwise_iou,
)
from .config import PAUSE
from .losses import LossConfig, StepLosses
from ..clips.dataset import ClipBatch
from ..clips.drawn_clips import ClipDrawer, DrawnClips, join
from ..model.extractor import kept_statistics
from ..model.motion_forecast import Comparison, LONGEST, MotionState
from ..model.network import ForecastDetector
from ..model.ssdlite import box_coder, HeadOutput

log = logging.getLogger(__name__)

LEAST_QUALITY = 0.1  #: Smallest quality of an anchor that is trained on
MOST_ANCHORS = 96  #: Most anchors of a frame that are trained on; the best ones
#: IoUs at which a forecast is compared with a read, to train the scheduler.
SCORED_IOUS = (0.5, 0.6, 0.7)
CHUNK = 8  #: Frames that are computed together
#: Factor of the lost recall: a forecast that loses a third of a read's recall is unreliable.
LOSS_THAT_COUNTS = 3.0


@dataclass(frozen=True)
class MotionFrames:
    """Frames of any leading shape ``(...)``: N of a video, or B clips of T."""

    features: tuple[Tensor, ...]  #: ``(..., C, h, w)`` per level
    views: Tensor  #: ``(..., cells, V)``: as `MotionForecast.cell_views` gives them
    anchor: Tensor  #: ``(..., P)`` int64: anchors that predict a box well
    owner: Tensor  #: ``(..., P)`` int64: index of that box
    weight: Tensor  #: ``(..., P)``: quality times the box's score; 0 where there is no such anchor
    #: ``(..., K)`` int64: the anchor with the largest score of the box's class that overlaps it.
    found_anchor: Tensor
    #: ``(..., K)``: that anchor's IoU with the box; 0 where its score is too small.
    found_overlap: Tensor
    found_offsets: Tensor  #: ``(..., K, 4)``: the head's offsets at that anchor
    boxes: Tensor  #: ``(..., K, 4)`` float32, xyxy
    scores: Tensor  #: ``(..., K)`` float32, of the boxes; 0 where there is none
    tracks: Tensor  #: ``(..., K)`` int64; -1 where the object is not followed or there is none

    def changed(self, change: Callable[[Tensor], Tensor]) -> 'MotionFrames':
        """Return a copy with `change` applied to every tensor."""
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            values[field.name] = (tuple(map(change, value)) if isinstance(value, tuple)
                                  else change(value))
        return MotionFrames(**values)


@dataclass(frozen=True)
class MotionBatch:
    """B clips of T frames."""

    frames: MotionFrames
    times: Tensor  #: ``(B, T)`` float32: when each frame was taken

    @property
    def counts(self) -> Tensor:
        """Return a tensor with one entry per frame, as `ClipBatch.counts` has."""
        return self.times

    def to(self, device: torch.device | str, non_blocking: bool = False) -> 'MotionBatch':
        """Return the batch on a device."""
        return MotionBatch(
            self.frames.changed(lambda part: part.to(device, non_blocking=non_blocking)),
            self.times.to(device, non_blocking=non_blocking))


@torch.no_grad()
def look_at(network: ForecastDetector, features: tuple[Tensor, ...], boxes: PaddedBoxes,
            tracks: Tensor, score: float) -> MotionFrames:
    """
    Apply a network's head to N frames, and compare its output with the boxes.

    :param network: its head and anchors are used
    :param features: ``(N, C, h, w)`` per level
    :param boxes, tracks: annotated boxes, and ``(N, K)`` int64 numbers of their objects
    :param score: smallest score of a detection that counts as found
    """
    head = network.head(tuple(level.float() for level in features))
    head = HeadOutput(head.logits.float(), head.offsets.float())
    motion = network.motion
    assert motion is not None
    targets = assign_aligned(head, network.anchors, network.anchor_strides, boxes)
    quality = targets.quality * (targets.classes > 0) * (targets.quality > LEAST_QUALITY)
    best, anchor = quality.topk(min(MOST_ANCHORS, quality.shape[1]), 1)
    there = boxes.labels >= 0
    overlap = pairwise_iou(boxes.boxes, decode_boxes(head.offsets, network.anchors))
    column = (boxes.labels.clamp(min=0) + 1)[:, :, None].expand(-1, -1, overlap.shape[2])
    said = head.logits.softmax(2).transpose(1, 2).gather(1, column)
    loudest, found = (said * (overlap >= SCORED_IOUS[0])).max(2)
    reached = overlap.gather(2, found[:, :, None])[:, :, 0] * ((loudest >= score) & there)
    return MotionFrames(
        features, motion.cell_views(*head), anchor, targets.owner.gather(1, anchor),
        best * targets.weights.gather(1, anchor), found, reached,
        head.offsets.gather(1, found[:, :, None].expand(-1, -1, 4)), boxes.boxes,
        boxes.scores * there, torch.where(there, tracks, -1))


def motion_batch(network: ForecastDetector, batch: ClipBatch, features: tuple[Tensor, ...],
                 score: float) -> MotionBatch:
    """
    Turn clips and their features, ``(B, T, C, h, w)`` per level, into a training batch.

    :raises ValueError: if the clips have no tracks or no times
    """
    if batch.all_tracks is None or batch.times is None:
        raise ValueError('a forecast of motion is trained on clips with tracks: set cache: device')
    seen = look_at(network, tuple(level.detach().flatten(0, 1) for level in features),
                   padded_boxes(batch), pad(batch.all_tracks, batch.counts.flatten(), -1), score)
    return MotionBatch(seen.changed(lambda part: part.unflatten(0, batch.counts.shape)),
                       batch.times)


class KeptFrames:
    """
    All frames of some views of every video, computed once; clips are made of these frames.

    :param extract: returns the features of ``(N, 3, H, W)`` uint8 pictures
    :param drawer: draws the views; its first entries are the videos
    :param score: smallest score of a detection that counts as found
    :param pauses: whether to compute pauses, too, for clips that repeat one frame
    """

    def __init__(self, network: ForecastDetector, extract: Callable[[Tensor], tuple[Tensor, ...]],
                 drawer: ClipDrawer, lengths: np.ndarray, views: int, seed: int, score: float,
                 pauses: bool = False) -> None:
        parts: list[MotionFrames] = []
        features: tuple[Tensor, ...] = ()
        count, total = 0, views * int(lengths.sum() + PAUSE * len(lengths) * pauses)
        drawn = [drawer.draw_video] + [partial(drawer.draw_pause, frames=PAUSE)] * pauses
        for draw in drawn:
            for view, video in np.ndindex(views, len(lengths)):
                clips = draw((seed, view, video), video)
                pictures = clips.images[0].split(CHUNK)
                truth = _used_columns(clips)
                for images, *rest in zip(pictures, *(part.split(CHUNK) for part in truth)):
                    seen = look_at(network, extract(images), PaddedBoxes(*rest[:4]), rest[4],
                                   score)
                    # Written to their final place: joining pieces would take twice the memory.
                    features = features or tuple(
                        level.new_empty((total, *level.shape[1:]), dtype=torch.bfloat16)
                        for level in seen.features)
                    for kept, level in zip(features, seen.features):
                        kept[count:count + len(level)] = level
                    count += len(images)
                    parts.append(replace(seen, features=()))
        columns = {field.name: [getattr(part, field.name) for part in parts]
                   for field in fields(MotionFrames) if field.name != 'features'}
        # Videos have different numbers of boxes, so they are padded.
        self._frames = MotionFrames(features, **{
            name: join(values, -1 if values[0].dtype == torch.int64 else 0, 1)
            for name, values in columns.items()})
        self._lengths = np.tile(lengths, views)
        self._first = np.cumsum(self._lengths) - self._lengths
        log.info('kept %d frames in %.1f GB', len(self._frames.views), sum(
            level.nbytes for level in self._frames.features) / 1e9)

    def clips(self, rng: np.random.Generator, steps: np.ndarray, strides: tuple[int, ...],
              pauses: float = 0.0) -> MotionBatch:
        """
        Make a batch of clips.

        :param rng: draws videos, strides and places; videos in proportion to their frames
        :param steps: ``(B, T)``: frame numbers of each clip, from 0, before the stride
        :param strides: one is drawn for each clip; a clip that would be longer than its video gets
            the largest that fits
        :param pauses: part of the clips, 0 to 1, that repeat one frame; 0 if no pauses were
            computed
        """
        weights = self._lengths / self._lengths.sum()
        video = rng.choice(len(weights), len(steps), p=weights)
        length = self._lengths[video]
        fits = np.maximum((length - 1) // np.maximum(steps[:, -1], 1), 1)
        times = steps * np.minimum(rng.choice(strides, len(steps)), fits)[:, None]
        span = times[:, -1]
        start = np.floor(rng.random(len(steps)) * np.maximum(length - span, 1)).astype(np.int64)
        # A clip that is longer than its video with every stride repeats the last frame.
        place = np.minimum(start[:, None] + times, (length - 1)[:, None])
        first = self._first[video]
        if pauses:
            paused = rng.random(len(steps)) < pauses
            pause = rng.integers(len(weights), size=len(steps))
            first = np.where(paused, self._lengths.sum() + PAUSE * pause, first)
            shown = rng.random((len(steps), PAUSE)).argsort(1)[:, :steps.shape[1]]
            place = np.where(paused[:, None], shown, place)
        index = torch.from_numpy(first[:, None] + place)
        moved = torch.from_numpy(times.astype(np.float32))
        frames = self._frames.changed(lambda part: part[index.to(part.device)])
        return MotionBatch(frames, moved)


def _used_columns(clips: DrawnClips) -> tuple[Tensor, ...]:
    """
    Return the first clip's boxes, labels, scores, ignore regions and tracks, with little padding.

    The bank pads to its picture with the most boxes; assigning anchors would take twice the time.
    """
    seen = (clips.labels[0] >= 0).any(0)
    seen[:1] = True
    hidden = (clips.ignore[0, ..., 2:] > clips.ignore[0, ..., :2]).all(-1).any(0)
    return (clips.boxes[0][:, seen], clips.labels[0][:, seen], clips.scores[0][:, seen],
            clips.ignore[0][:, hidden], clips.tracks[0][:, seen])


def time_ahead(times: Tensor, read: int, frame: int) -> Tensor:
    """
    Return the time from a read to a later frame, ``(B, 1)``, over that between the last two reads.

    :param times: ``(B, T)``: when each frame was taken
    :param read, frame: indices of the read, at least 1, and of the later frame
    """
    gap = (times[:, read] - times[:, read - 1]).clamp(min=1e-6)
    return ((times[:, frame] - times[:, read]) / gap).clamp(0.0, LONGEST)[:, None]


def read_clip(network: ForecastDetector, batch: MotionBatch) -> list[Comparison]:
    """Read all frames of the clips except the last; return the comparison at each."""
    motion, frames = network.motion, batch.frames
    assert motion is not None
    state = network.initial_state(len(batch.times)).motion
    assert isinstance(state, MotionState)
    result = []
    for t in range(batch.times.shape[1] - 1):
        elapsed = batch.times[:, t] - batch.times[:, t - 1] if t else torch.ones_like(
            batch.times[:, 0])
        # The first read has no earlier one; its zeros must not enter BatchNorm's statistics.
        with nullcontext() if t else kept_statistics(motion):
            view = motion.compare_reads(tuple(level[:, t].float() for level in frames.features),
                                        frames.views[:, t], state, elapsed[:, None])
        state = view.state
        result.append(view)
    return result


def motion_loss(network: ForecastDetector, reads: list[Comparison], batch: MotionBatch
                ) -> tuple[Tensor, Tensor]:
    """
    Return the loss of moved boxes, and that of boxes that do not move.

    Both are 1 - GIoU, weighted with the anchors' quality and the objects' scores, mean over all
    anchors and later frames. The moved box is the true box of the frame that was read, because
    motion cannot correct the error of a detection.
    """
    motion, frames = network.motion, batch.frames
    assert motion is not None
    total, still, weight_sum = (batch.times.new_zeros(()) for _ in range(3))
    for t, read in enumerate(reads):
        # A batch without tracks needs a gradient, too: zero.
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
    Return the recall of a forecast over that of a read of the same frame, ``(B,)`` in [0, 1].

    Both are means over objects and `SCORED_IOUS`; 1 where reading finds no more than the forecast.
    An object that only the forecast finds makes up for one that only the read finds: uncertain
    detections come and go without motion, and a read would not help. Objects without a track do
    not count.

    :param network: makes the forecast
    :param read: the comparison at the last read
    :param t, later: indices of the frame that was read and of the one that is forecast
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
    :param frozen_detection: whether L_dec is the only loss
    """
    device = batch.times.device
    result = StepLosses(total=torch.zeros((), device=device))
    # bf16 cannot represent displacements of a small fraction of a cell.
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
        # The encoder learns only from the boxes' motion.
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
