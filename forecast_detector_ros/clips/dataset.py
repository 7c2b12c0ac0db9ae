# SPDX-License-Identifier: Apache-2.0
"""Clips: the choice of their frames, the dataset that makes them, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .affine import merge_targets, shift_targets, view_to_output
from .augment import (
    add_noise,
    AugmentConfig,
    draw_tile_view,
    draw_view,
    MOSAIC_CENTRE,
    Photometric,
)
from .scene import add_camera, add_cutout, Cutout, make_scene, render, Scene
from ..annotations.findings import DataError
from ..annotations.records import FrameReader, Targets, VideoRecord

THINNING = 25  #: r of the paper, section 4.2, "Data augmentation"


@dataclass
class Clip:
    """T frames of one video; the lists have one entry per frame."""

    images: Tensor  #: uint8 (T, 3, H, W) RGB
    boxes: list[Tensor]  #: float32 (N, 4) xyxy, in pixels of `images`
    labels: list[Tensor]  #: int64 (N,), 0-based
    scores: list[Tensor]  #: float32 (N,), 0 to 1
    ignore: list[Tensor]  #: float32 (K, 4) xyxy


@dataclass
class ClipBatch:
    """
    B clips of T frames; `batch.boxes[b][t]` are the boxes of one frame, as in `Clip`.

    The boxes of all frames are one tensor, because each tensor that is sent between processes
    needs a file descriptor.
    """

    images: Tensor  #: uint8 (B, T, 3, H, W) RGB
    counts: Tensor  #: int64 (B, T): boxes of each frame
    ignore_counts: Tensor  #: int64 (B, T): ignore regions of each frame
    all_boxes: Tensor
    all_labels: Tensor
    all_scores: Tensor
    all_ignore: Tensor
    #: As `all_labels`: the same number for the same object of a clip; None if unknown.
    all_tracks: Tensor | None = None
    #: float32 (B, T): when each frame was taken, in frames of its video; None for one a step.
    times: Tensor | None = None

    @cached_property
    def boxes(self) -> list[list[Tensor]]:
        """Boxes of each frame of each clip, as views of one tensor; split at the first access."""
        return _split(self.all_boxes, self.counts)

    @cached_property
    def labels(self) -> list[list[Tensor]]:
        """Labels of each frame of each clip."""
        return _split(self.all_labels, self.counts)

    @cached_property
    def scores(self) -> list[list[Tensor]]:
        """Scores of each frame of each clip."""
        return _split(self.all_scores, self.counts)

    @cached_property
    def ignore(self) -> list[list[Tensor]]:
        """Ignore regions of each frame of each clip."""
        return _split(self.all_ignore, self.ignore_counts)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ClipBatch:
        """Return the batch on a device; the counts stay where they are."""
        return replace(self, **{
            name: value.to(device, non_blocking=non_blocking)
            for name, value in self._tensors().items() if not name.endswith('counts')})

    def pin_memory(self) -> ClipBatch:
        """Return the batch in page-locked memory (called by torch's DataLoader)."""
        return replace(self, **{name: value.pin_memory()
                                for name, value in self._tensors().items()})

    def _tensors(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def collate(clips: Sequence[Clip]) -> ClipBatch:
    """Put clips of the same T, H and W into one batch."""
    return ClipBatch(
        torch.stack([clip.images for clip in clips]),
        torch.tensor([[len(frame) for frame in clip.boxes] for clip in clips]),
        torch.tensor([[len(frame) for frame in clip.ignore] for clip in clips]),
        *(torch.cat([frame for clip in clips for frame in getattr(clip, name)])
          for name in ('boxes', 'labels', 'scores', 'ignore')))


def worker_init(worker: int) -> None:
    """Keep OpenCV in a DataLoader's worker to one thread; pass it as `worker_init_fn`."""
    _use_one_thread()


def _use_one_thread() -> None:
    # A worker forked from a process in which OpenCV has threads hangs: it waits for threads that
    # it does not have, in `setNumThreads` as in any larger operation.
    if cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)


def _split(packed: Tensor, counts: Tensor) -> list[list[Tensor]]:
    frames = iter(packed.split(counts.flatten().tolist()))
    return [[next(frames) for _ in range(counts.shape[1])] for _ in range(counts.shape[0])]


class ClipDataset(Dataset):
    """
    Clips drawn from videos and stills.

    Sample i of epoch e depends only on (seed, e, i), in any process. An epoch covers the frames
    evenly: all weights are divided into `length` equal parts, and one sample starts in each part,
    in a shuffled order.
    """

    def __init__(self, videos: Sequence[VideoRecord], stills: Sequence[VideoRecord] = (),
                 cutouts: Sequence[Cutout] = (), clip_length: int = 10,
                 input_size: tuple[int, int] = (320, 320), thinning: int = THINNING,
                 augment: AugmentConfig | None = None, seed: int = 0, length: int | None = None,
                 extra_frame: bool = True, still_fraction: float | None = None,
                 video_weights: Sequence[float] | None = None,
                 still_weights: Sequence[float] | None = None,
                 reader: FrameReader | None = None) -> None:
        """
        Store the settings; no picture is read yet.

        OpenCV is set to one thread, in the whole process: otherwise the workers of a DataLoader
        that are forked from it hang.

        :param stills: videos of one frame
        :param cutouts: what `augment` pastes; a class is drawn first, evenly, then a cut-out
        :param clip_length: the paper's n: frames to train on; T is one more with `extra_frame`
        :param input_size: (height, width) of the pictures given
        :param thinning: the r of `draw_indices`, 0 for consecutive frames
        :param augment: None for no augmentation: whole frames, stills without motion, no cut-outs
        :param seed: seed of all draws
        :param length: samples in an epoch (default: stills, and frames of videos over clip_length)
        :param still_fraction: fraction of stills among the samples (default: among the frames)
        :param extra_frame: add one frame to `clip_length`, for the forecast loss
        :param video_weights, still_weights: how often each is drawn (default: its number of
            frames); only ratios count
        :param reader: reads the frames; it may have preloaded them
        :raises DataError: nothing to draw from, or a number out of its range
        """
        _use_one_thread()
        self._sources = [*videos, *stills]
        if not self._sources:
            raise DataError('no training data: neither videos nor stills were given')
        for name, value, least in (('clip_length', clip_length, 1), ('thinning', thinning, 0),
                                   ('length', 1 if length is None else length, 1),
                                   ('input_size', min(input_size), 32)):
            if value < least:
                raise DataError(f'{name} is {value}; it must be at least {least}')
        self._videos = len(videos)
        self._clip_length, self._extra_frame = clip_length, extra_frame
        self._size = (int(input_size[0]), int(input_size[1]))
        self._augment, self._seed = augment, seed
        self._by_class: dict[int, list[Cutout]] = {}
        for cutout in cutouts:
            self._by_class.setdefault(cutout.label, []).append(cutout)
        frames = sum(len(video.frames) for video in videos)
        self._length = max(1, frames // clip_length + len(stills)) if length is None else length
        self._bounds = np.cumsum(_probabilities(videos, stills, video_weights, still_weights,
                                                still_fraction))
        self._reader = FrameReader() if reader is None else reader
        # Shared memory, so that persistent workers see the next epoch's number.
        self._shared = torch.tensor([0, thinning]).share_memory_()
        self._order = (-1, np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        """Return the number of samples in an epoch."""
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; call it before the loader is iterated."""
        self._shared[0] = epoch

    def set_thinning(self, thinning: int) -> None:
        """Change r, for the last epochs that train on consecutive frames."""
        self._shared[1] = thinning

    def __getitem__(self, index: int) -> Clip:
        """
        Make one clip.

        :raises DataError: a picture cannot be read
        """
        if not 0 <= index < self._length:
            raise IndexError(index)
        epoch = int(self._shared[0])
        rng = np.random.default_rng((self._seed, epoch, index))
        if self._order[0] != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._length)
            self._order = (epoch, order)
        place = (self._order[1][index] + rng.random()) / self._length
        if self._augment is not None and rng.random() < self._augment.mosaic_probability:
            images, targets = self._mosaic(place, self._augment, rng)
        else:
            images, targets = self._single(place, rng)
        return _clip(images, targets)

    def _single(self, place: float,
                rng: np.random.Generator) -> tuple[np.ndarray, list[Targets]]:
        scene = self._scene(place, rng)
        if self._augment is None:
            whole = np.array([0, 0, scene.size[1], scene.size[0]])
            return render(scene, view_to_output(whole, self._size), self._size, 0.0, 0.0)
        boxes = np.concatenate([target.boxes for target in scene.targets])
        view = draw_view(boxes, scene.size, self._augment, rng)
        return self._finish(scene, view, self._size, self._augment, rng)

    def _mosaic(self, place: float, config: AugmentConfig,
                rng: np.random.Generator) -> tuple[np.ndarray, list[Targets]]:
        height, width = self._size
        middle_x = round(rng.uniform(*MOSAIC_CENTRE) * width)
        middle_y = round(rng.uniform(*MOSAIC_CENTRE) * height)
        frames = self._clip_length + int(self._extra_frame)
        images = np.empty((frames, height, width, 3), dtype=np.uint8)
        parts: list[list[Targets]] = [[] for _ in range(frames)]
        for y0, y1 in ((0, middle_y), (middle_y, height)):
            for x0, x1 in ((0, middle_x), (middle_x, width)):
                scene = self._scene(place, rng)
                place = rng.random()
                tile = (y1 - y0, x1 - x0)
                view = draw_tile_view(scene.size, tile, self._size, config, rng)
                drawn, targets = self._finish(scene, view, tile, config, rng)
                images[:, y0:y1, x0:x1] = drawn
                for part, target in zip(parts, targets):
                    part.append(shift_targets(target, x0, y0))
        return images, [merge_targets(part) for part in parts]

    def _finish(self, scene: Scene, view: np.ndarray, size: tuple[int, int],
                config: AugmentConfig,
                rng: np.random.Generator) -> tuple[np.ndarray, list[Targets]]:
        flip = rng.random() < config.flip_probability
        images, targets = render(scene, view_to_output(view, size, flip), size,
                                 config.min_visible, config.min_side)
        return add_noise(Photometric(rng, config).apply(images), rng, config), targets

    def _scene(self, place: float, rng: np.random.Generator) -> Scene:
        number = min(int(np.searchsorted(self._bounds, place, side='right')),
                     len(self._sources) - 1)
        video = self._sources[number]
        indices = draw_indices(len(video.frames), self._clip_length, self._extra_frame,
                               int(self._shared[1]), rng)
        # A frame may parse its annotation when it is asked for, so each is asked for once.
        frames = {index: video.frames[index] for index in set(indices)}
        images = {index: self._reader.read(frame) for index, frame in frames.items()}
        records = [frames[index] for index in indices]
        scene = make_scene([images[index] for index in indices], records)
        config = self._augment
        if config is None:
            return scene
        still = number >= self._videos
        moves = config.still_motion_probability if still else config.video_motion_probability
        if len(indices) > 1 and rng.random() < moves:
            scene = add_camera(scene, config, rng)
        pastes = config.paste_still_probability if still else config.paste_video_probability
        if not any(len(record.boxes) for record in records):
            pastes = max(pastes, config.paste_empty_probability)
        if self._by_class and rng.random() < pastes:
            for _ in range(rng.integers(1, config.paste_max_objects + 1)):
                label = list(self._by_class)[rng.integers(len(self._by_class))]
                choice = self._by_class[label]
                scene = add_cutout(scene, choice[rng.integers(len(choice))], config, rng)
        return scene


def _probabilities(videos: Sequence[VideoRecord], stills: Sequence[VideoRecord],
                   video_weights: Sequence[float] | None, still_weights: Sequence[float] | None,
                   still_fraction: float | None) -> np.ndarray:
    """Return the probability of each source, videos first; they add up to 1."""
    frames = np.array([len(video.frames) for video in videos], dtype=np.float64)
    ours = _weights('video_weights', video_weights, frames)
    theirs = _weights('still_weights', still_weights, np.ones(len(stills)))
    if still_fraction is None:
        still_fraction = len(stills) / (frames.sum() + len(stills))
    if not 0 <= still_fraction <= 1:
        raise DataError(f'still_fraction is {still_fraction}; it must be from 0 to 1')
    if not len(videos) or not len(stills):
        still_fraction = float(len(stills) > 0)
    return np.concatenate([ours * (1 - still_fraction), theirs * still_fraction])


def _weights(name: str, given: Sequence[float] | None, default: np.ndarray) -> np.ndarray:
    weights = default if given is None else np.asarray(given, dtype=np.float64)
    if weights.shape != default.shape:
        raise DataError(f'{name} has {weights.size} entries; it must have {default.size}')
    if not np.isfinite(weights).all() or (weights < 0).any() or (
            len(weights) and not weights.sum() > 0):
        raise DataError(f'{name} must be finite, not negative, and not all zero')
    return weights / weights.sum() if len(weights) else weights


def _clip(images: np.ndarray, targets: list[Targets]) -> Clip:
    # NumPy's transposition takes half as long as torch's, and wakes no threads.
    return Clip(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
                *([torch.from_numpy(np.ascontiguousarray(getattr(target, name)))
                   for target in targets]
                  for name in ('boxes', 'labels', 'scores', 'ignore')))


def largest_thinning(length: int, clip_length: int, limit: int) -> int:
    """
    Return the largest thinning parameter q for a video: min(floor((l - 1) / n) - 1, r), never < 0.

    At this q, clip_length + 1 frames at stride q + 1 still fit into the video, so that the extra
    frame of the forecast loss needs no other formula.

    :param length: the paper's l: frames in the video, at least 1
    :param clip_length: the paper's n: frames to train on without the extra one, at least 1
    :param limit: the paper's r; 0 switches thinning off
    """
    return max(0, min((length - 1) // clip_length - 1, limit))


def draw_indices(length: int, clip_length: int, extra_frame: bool, limit: int,
                 rng: np.random.Generator) -> np.ndarray:
    """
    Draw the frames of one clip: q uniform in [0, `largest_thinning`], random start, stride q + 1.

    A video that is too short has its first and last frames repeated, split at random.

    :returns: int64 (T,), 0-based, not descending; T = clip_length + 1 with `extra_frame`
    """
    frames = clip_length + int(extra_frame)
    stride = 1 + int(rng.integers(0, largest_thinning(length, clip_length, limit) + 1))
    slack = length - 1 - (frames - 1) * stride
    start = int(rng.integers(min(0, slack), max(0, slack) + 1))
    return np.clip(start + stride * np.arange(frames), 0, length - 1)
