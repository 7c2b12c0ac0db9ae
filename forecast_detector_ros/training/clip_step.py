# SPDX-License-Identifier: Apache-2.0
"""One training step on a batch of clips: the losses of equation 1 (paper, Fig. 2 and 3.4)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn, Tensor

from .assignment import assign_aligned, padded_boxes, PaddedBoxes
from .frozen import FrozenFeatures
from .losses import (
    assign,
    decision_loss,
    detection_loss,
    first_decision,
    forecast_loss,
    is_consistent,
    is_reliable,
    level_errors,
    LossConfig,
    PERSISTENCE,
    QUALITY,
    quality_loss,
    READ_FRAME,
    scale_errors,
    StepLosses,
)
from .machine import ALONE, Processes
from .motion import motion_batch, motion_losses
from ..clips.dataset import ClipBatch
from ..model.network import ForecastDetector, Maps
from ..model.ssdlite import Boxes, HeadOutput, postprocess

#: Weight of `feature` in the head's input in training; the rest is `temporal`. One of the three is
#: drawn per clip (section 3.4): `feature`, `temporal`, or their mean.
FEATURE_PART = (1.0, 0.0, 0.5)


def _combine(choice: Tensor, maps: Maps, variant: str) -> tuple[Tensor, ...]:
    """Choose the head's input for each clip; some variants have only one."""
    if variant in ('without_combination', 'baseline', 'recurrent'):
        return maps.fused
    part = maps.feature[0].new_tensor(FEATURE_PART)[choice].view(-1, 1, 1, 1)
    return tuple(part * feature + (1.0 - part) * temporal
                 for feature, temporal in zip(maps.feature, maps.temporal))


def clip_losses(network: ForecastDetector, batch: ClipBatch, config: LossConfig,
                generator: torch.Generator, extra_frame: bool, with_scheduler: bool,
                frozen: FrozenFeatures | None = None, frozen_detection: bool = False,
                processes: Processes = ALONE,
                features: tuple[Tensor, ...] | None = None) -> StepLosses:
    """
    Run a batch of clips through the network and add the losses up.

    :param network: in the mode of the stage; runs under the caller's autocast
    :param generator: source of the random combination and the rollout; the same state gives the
        same step
    :param extra_frame: whether the last frame is used only for the forecast loss and y_t
    :param with_scheduler: whether L_dec is part of the loss
    :param frozen: extracts the features in place of the network's extractor, if a part of that is
        frozen
    :param frozen_detection: whether only the scheduler is trained: all else runs without gradient
    :param processes: the processes that share a batch. `batch` is the part of this process, and
        the losses are its part of the whole batch's losses.
    :param features: one ``(B, T, C, h, w)`` map per level, the extractor's output for the
        pictures, which are then not used; None to extract them
    """
    device = batch.all_boxes.device
    clips, frames = batch.counts.shape
    steps = frames - 1 if extra_frame else frames
    variant = network.config.variant
    if features is None:
        images = batch.images.flatten(0, 1)
        with torch.set_grad_enabled(not frozen_detection):
            flat = frozen(images) if frozen is not None else network.extract(
                network.normalise(images).contiguous(memory_format=torch.channels_last))
        features = tuple(level.unflatten(0, (clips, frames)) for level in flat)

    if network.motion is not None:
        seen = motion_batch(network, batch, features, config.reliable_score)
        return motion_losses(network, seen, config, with_scheduler, frozen_detection)

    # Some variants have no scheduler.
    with_scheduler = with_scheduler and network.scheduler is not None
    # Drawn for the whole batch, so that the number of processes does not change the result.
    whole, own = clips * processes.count, processes.share(clips * processes.count)
    choice = torch.multinomial(torch.tensor(config.combination), whole, replacement=True,
                               generator=generator)[own].to(device)
    rolled = torch.rand((frames, whole), generator=generator)[:, own].to(device) < config.rollout
    first = first_decision(network.config)
    if with_scheduler:
        # Before the first decision no forecast was compared with a read.
        rolled[1:first + 1] = False
    state = network.initial_state(clips)
    heads: list[HeadOutput] = []
    maps_of: list[Maps] = []
    decisions: list[Tensor] = []
    with torch.set_grad_enabled(not frozen_detection):
        for t in range(steps):
            feature = tuple(level[:, t] for level in features)
            # The first frame of a clip is always read, and so is every frame of a variant without
            # a forecast.
            read: bool | Tensor = True
            if t and network.config.has_encoders:
                read = ~rolled[t]
                if bool(rolled[t].any()):
                    skip = rolled[t].view(-1, 1, 1, 1)
                    feature = tuple(torch.where(skip, f.to(x.dtype), x)
                                    for f, x in zip(state.forecast, feature))
            maps, state = network.encode(feature, state, read)
            heads.append(network.head(_combine(choice, maps, variant)))
            maps_of.append(maps)
    if with_scheduler:
        for maps in maps_of[first:]:
            # Correlations differ from 1 by less than bf16 can represent.
            with torch.autocast(device.type, enabled=False):
                decisions.append(network.schedule(
                    Maps(*(tuple(x.float() for x in level) for level in maps))))

    result = StepLosses(total=torch.zeros((), device=device))
    if not frozen_detection:
        _add_detection(result, network, batch, heads, steps, config, processes)
        if extra_frame and network.config.has_encoders:
            _add_forecast(result, maps_of, features, config, processes, variant)
    if with_scheduler:
        _add_decision(result, network, batch, maps_of, first, decisions, features, config,
                      processes)
    return result


def _add_detection(result: StepLosses, network: ForecastDetector, batch: ClipBatch,
                   heads: list[HeadOutput], steps: int, config: LossConfig,
                   processes: Processes) -> None:
    stacked = HeadOutput(torch.cat([h.logits for h in heads]),
                         torch.cat([h.offsets for h in heads]))
    # Targets are in the order in which the heads were collected: time-major.
    if config.detection == QUALITY:
        wanted = PaddedBoxes(*(
            part.unflatten(0, batch.counts.shape)[:, :steps].transpose(0, 1).flatten(0, 1)
            for part in padded_boxes(batch)))
        if not config.score_weighted:
            wanted = wanted._replace(scores=torch.ones_like(wanted.scores))
        aligned = assign_aligned(stacked, network.anchors, network.anchor_strides, wanted)
        l_loc, l_cls = quality_loss(stacked, aligned, network.anchors, config.box,
                                    processes.total)
    else:
        boxes, labels, scores, ignore = (
            [clip[t] for t in range(steps) for clip in clips]
            for clips in (batch.boxes, batch.labels, batch.scores, batch.ignore))
        targets = assign(network.anchors, boxes, labels,
                         scores if config.score_weighted else None, ignore)
        l_loc, l_cls = detection_loss(stacked, targets, network.anchors,
                                      min_negatives=config.min_negatives, total=processes.total)
    result.total = result.total + config.alpha * l_loc + config.beta * l_cls
    result.parts |= {'loc': float(l_loc.detach()), 'cls': float(l_cls.detach())}


def _add_forecast(result: StepLosses, maps_of: list[Maps], features: tuple[Tensor, ...],
                  config: LossConfig, processes: Processes, variant: str) -> None:
    forecast = [torch.stack([maps.forecast[level] for maps in maps_of], 1)
                for level in range(len(features))]
    wanted = [level[:, 1:len(maps_of) + 1] for level in features]
    with torch.no_grad():
        # Persistence as reference: the map of t, unchanged, for t + 1. The processes have equal
        # shares of the batch, so their means, divided by their number, add up to the whole mean.
        persistence = level_errors([level[:, :len(maps_of)] for level in features], wanted)
        scale = None
        if config.forecast_scale == PERSISTENCE:
            scale = processes.total(persistence / processes.count)
    l_for = forecast_loss(forecast, wanted, config.detach_target, scale) / processes.count
    still = scale_errors(persistence, scale).mean() / processes.count
    if config.gamma and variant != 'without_forecast':
        result.total = result.total + config.gamma * l_for
    result.parts |= {'for': float(l_for.detach()), 'persistence': float(still)}


def _add_decision(result: StepLosses, network: ForecastDetector, batch: ClipBatch,
                  maps_of: list[Maps], first: int, decisions: list[Tensor],
                  features: tuple[Tensor, ...], config: LossConfig, processes: Processes
                  ) -> None:
    reliable = []
    for t, maps in enumerate(maps_of[first:], first):
        following = tuple(level[:, t + 1] for level in features)
        reliable.append(reliable_targets(network, maps.forecast, following, batch, t + 1, config))
    y = torch.stack(reliable).flatten()
    logits = torch.cat(decisions)
    l_dec = decision_loss(logits, y, config.decision_weights, processes.total)
    result.total = result.total + config.lambda_ * l_dec
    result.parts['dec'] = float(l_dec.detach())
    result.reliable = y
    result.decisions, result.ones = y.numel(), int(y.sum())
    # The rule of inference at the threshold 0.5: a frame is forecast only if that score is larger.
    result.reads = int((logits[:, 1] <= logits[:, 0]).sum())


@torch.no_grad()
def reliable_targets(network: ForecastDetector, forecast: tuple[Tensor, ...],
                     following: tuple[Tensor, ...], batch: ClipBatch, frame: int,
                     config: LossConfig) -> Tensor:
    """
    Compute y_t for every clip: detect on the raw forecast and compare with the next frame.

    No state is propagated (section 3.4).

    :param network: its head detects in evaluation mode, as in inference, and leaves BatchNorm's
        statistics unchanged
    :param forecast: ``(B, C, h, w)`` per level, the forecast of `frame`
    :param following: of the same shapes, the extractor's maps of `frame`
    :param batch: its boxes of `frame` are the ground truth
    :param config: says what the detections are compared with, and has the limits of IoU and score
    :returns: ``(B,)`` bool
    """
    on_forecast = _detect(network, forecast, config.reliable_score)
    if config.reliable_against == READ_FRAME:
        confident = config.reliable_score + config.reliable_margin
        return torch.tensor([
            is_consistent(found, read, confident, config.reliable_iou)
            for found, read in zip(on_forecast,
                                   _detect(network, following, config.reliable_score))],
            device=forecast[0].device)
    return torch.tensor([
        is_reliable(found, batch.boxes[b][frame], batch.labels[b][frame], config.reliable_iou,
                    batch.ignore[b][frame])
        for b, found in enumerate(on_forecast)], device=forecast[0].device)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for a while, then restore the mode of each part."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _detect(network: ForecastDetector, maps: tuple[Tensor, ...], score: float) -> list[Boxes]:
    with _evaluating(network.head):
        head = network.head(maps)
    return [postprocess(logits.float(), offsets.float(), network.anchors,
                        network.config.input_size, score, 0.45, 100)
            for logits, offsets in zip(head.logits, head.offsets)]
