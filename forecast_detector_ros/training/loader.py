# SPDX-License-Identifier: Apache-2.0
"""Load the data of a recipe, and make batches of clips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
import logging
from pathlib import Path
import zlib

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from .config import DEVICE, MEMORY, Recipe, StageConfig
from .machine import ALONE, Processes
from .motion import KeptFrames
from ..annotations.findings import DataError, NO_TRACKS
from ..annotations.records import FrameReader, VideoRecord
from ..annotations.sources import load_source
from ..clips.dataset import ClipBatch, ClipDataset, collate, worker_init
from ..clips.drawn_clips import ClipDrawer, load_bank, PictureBank
from ..clips.scene import Cutout, load_cutouts

log = logging.getLogger(__name__)


@dataclass
class Sources:
    """The data of a recipe."""

    videos: list[VideoRecord]
    stills: list[VideoRecord]
    cutouts: list[Cutout]
    #: Keeps the decoded frames for all stages.
    reader: FrameReader = field(default_factory=FrameReader)
    #: Results of a frozen network for all frames, by network and views; only of the last stage.
    kept: dict[tuple[object, ...], KeptFrames] = field(default_factory=dict)
    #: With `cache: device` all frames, not yet on the device; videos first, then stills.
    bank: PictureBank | None = None


def load_sources(recipe: Recipe, root: Path) -> Sources:
    """
    Read the annotations; with the recipe's `cache: memory`, decode all frames and keep them.

    :param root: folder that the recipe's paths start from
    :raises DataError: if a file is missing or broken
    """
    cv2.setNumThreads(1)
    videos: list[VideoRecord] = []
    stills: list[VideoRecord] = []
    for source in recipe.sources:
        records = load_source(source, root, recipe.classes)
        (stills if source.kind == 'still' else videos).extend(records)
    if any(recipe.forecasts_motion(stage) for stage in recipe.stages):
        _check_tracks(videos)
    cutouts = load_cutouts(root / recipe.cutouts, recipe.classes) if recipe.cutouts else []
    if cutouts and recipe.cache == DEVICE:
        log.warning('cutouts: %s is not used: with cache: device nothing is pasted',
                    recipe.cutouts)
    result = Sources(videos, stills, cutouts)
    size = result.reader.preload([*videos, *stills]) if recipe.cache == MEMORY else 0
    if recipe.cache == DEVICE:
        result.bank = load_bank([*videos, *stills], result.reader, recipe.cache_side)
        size = result.bank.pixels.nbytes
    log.info('%d videos with %d frames, %d stills, %d cut-outs; %.1f GB in memory', len(videos),
             sum(len(video.frames) for video in videos), len(stills), len(cutouts), size / 1e9)
    return result


def _check_tracks(videos: Sequence[VideoRecord]) -> None:
    """Refuse data without any track, and warn of videos without one: motion needs tracks."""
    tracked = sum(any((frame.tracks >= 0).any() for frame in video.frames) for video in videos)
    if not tracked:
        raise DataError(NO_TRACKS)
    if tracked < len(videos):
        log.warning('%d of %d videos have no track_id in their boxes: they teach no motion',
                    len(videos) - tracked, len(videos))


def picture_weights(records: Sequence[VideoRecord], classes: int, balance: float) -> list[float]:
    """
    Return weights of videos (or stills) with which rare classes are drawn more often.

    A frame weighs (1 / frames with its rarest class) ** balance, a video the sum of its frames.
    Frames without boxes weigh as much as those of the most frequent class.
    """
    if not balance:
        # Same result as below, without the annotations, because ImageNet's are slow to read.
        return [float(len(record.frames)) for record in records]
    labels = [[np.unique(frame.labels) for frame in record.frames] for record in records]
    seen = np.ones(classes)
    for video in labels:
        for present in video:
            seen[present] += 1
    per_class = seen ** -balance
    rest = float(per_class.min())
    return [sum(float(per_class[present].max()) if len(present) else rest for present in video)
            for video in labels]


class _Range(Sampler[list[int]]):
    """One process's part of batches of consecutive indices; the dataset shuffles."""

    def __init__(self, length: int, batch: int, own: slice) -> None:
        self.length, self.batch, self.own, self.start = length, batch, own, 0

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(self.start * self.batch, self.length, self.batch):
            yield list(range(first, first + self.batch))[self.own]

    def __len__(self) -> int:
        return self.length // self.batch - self.start


class ClipLoader:
    """
    The clips of a stage, epoch by epoch.

    :param processes: the processes that share each batch; this one gets its own part
    """

    def __init__(self, sources: Sources, recipe: Recipe, stage: StageConfig,
                 processes: Processes = ALONE) -> None:
        self._stage = stage
        classes = len(recipe.classes)
        self._dataset = ClipDataset(
            sources.videos, sources.stills, sources.cutouts, stage.clip_length,
            recipe.network_config(stage).input_size, stage.thinning, stage.augment, recipe.seed,
            stage.clips_per_epoch, stage.extra_frame,
            still_fraction=stage.still_fraction,
            video_weights=picture_weights(sources.videos, classes, recipe.balance),
            still_weights=picture_weights(sources.stills, classes, recipe.balance),
            reader=sources.reader)
        self._sampler = _Range(stage.clips_per_epoch, stage.batch, processes.share(stage.batch))
        self._loader = DataLoader(
            self._dataset, batch_sampler=self._sampler, num_workers=recipe.workers,
            collate_fn=collate, worker_init_fn=worker_init,
            persistent_workers=recipe.workers > 0, pin_memory=processes.device.type == 'cuda')

    def epoch(self, epoch: int, start: int = 0) -> Iterator[ClipBatch]:
        """
        Yield the batches of an epoch, the same at every call.

        :param epoch: its index, from 0
        :param start: batch to begin with; the following ones are the same as in an epoch from 0
        :raises DataError: if a frame cannot be read
        """
        stage = self._stage
        self._sampler.start = start
        self._dataset.set_epoch(epoch)
        plain = epoch >= stage.epochs - stage.plain_epochs
        self._dataset.set_thinning(0 if plain else stage.thinning)
        try:
            yield from self._loader
        except DataError as error:
            # PyTorch gives a worker's traceback, whose last line has the message.
            raise DataError(str(error).rstrip().rpartition('DataError: ')[2]) from None


class DrawnLoader:
    """
    The clips of a stage, drawn on the device from pictures that it holds.

    :param sources: the data, with a bank
    :param device: device that draws
    """

    def __init__(self, sources: Sources, recipe: Recipe, stage: StageConfig,
                 device: torch.device) -> None:
        assert sources.bank is not None
        sources.bank = sources.bank.to(device)
        self._recipe, self._stage = recipe, stage
        self._drawer = ClipDrawer(
            sources.bank, len(sources.videos), drawing_weights(sources, recipe, stage),
            recipe.network_config(stage).input_size, stage.augment, stage.strides)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[ClipBatch]:
        """Yield the batches of an epoch, from `start` on; the same at every call."""
        stage = self._stage
        name = zlib.crc32(stage.name.encode())
        for index in range(start, stage.clips_per_epoch // stage.batch):
            seed = (self._recipe.seed, name, epoch, index)
            yield self._drawer.draw(seed, stage.batch, frame_steps(stage, seed)).packed()


def frame_steps(stage: StageConfig, seed: tuple[int, ...]) -> np.ndarray:
    """Draw the frame numbers of a batch's clips: ``(B, T)``, or ``(1, T)`` for equal ones."""
    if not stage.gaps or not stage.horizons:
        return np.arange(stage.clip_length + int(stage.extra_frame))[None]
    rng = np.random.default_rng((*seed, 1))
    gaps = rng.choice(stage.gaps, (stage.batch, stage.clip_length - 1))
    return np.concatenate((np.zeros((stage.batch, 1), np.int64), gaps,
                           rng.choice(stage.horizons, (stage.batch, 1))), 1).cumsum(1)


def drawing_weights(sources: Sources, recipe: Recipe, stage: StageConfig) -> np.ndarray:
    """Return the probability of each video, then of each still; they add up to 1."""
    classes = len(recipe.classes)
    parts = [np.array(picture_weights(records, classes, recipe.balance))
             for records in (sources.videos, sources.stills)]
    stills = stage.still_fraction if len(parts[0]) else 1.0
    fractions = (1.0 - stills if len(parts[1]) else 1.0, stills)
    return np.concatenate([part / part.sum() * fraction if len(part) else part
                           for part, fraction in zip(parts, fractions)])


def make_loader(sources: Sources, recipe: Recipe, stage: StageConfig,
                processes: Processes) -> ClipLoader | DrawnLoader:
    """Return the loader for the recipe's `cache`."""
    if recipe.cache == DEVICE:
        return DrawnLoader(sources, recipe, stage, processes.device)
    return ClipLoader(sources, recipe, stage, processes)


def batches(loader: ClipLoader | DrawnLoader, stage: StageConfig, start: int = 0
            ) -> Iterator[ClipBatch]:
    """
    Yield the batches of a stage.

    :param start: iteration of the stage to begin with; the batches from there on are the same as
        in a run from 0
    """
    per_epoch = stage.clips_per_epoch // stage.batch
    for epoch in range(start // per_epoch, stage.epochs):
        yield from loader.epoch(epoch, max(0, start - epoch * per_epoch))
