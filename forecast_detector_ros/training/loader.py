# SPDX-License-Identifier: Apache-2.0
"""From a recipe and a folder to batches of clips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
import logging
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import DataLoader, Sampler

from .config import Recipe, StageConfig
from .distributed import Processes
from ..annotations.frames import FrameReader
from ..annotations.records import VideoRecord
from ..annotations.sources import load_source
from ..clips.cutouts import Cutout, load_cutouts
from ..clips.dataset import ClipBatch, ClipDataset, collate, worker_init

log = logging.getLogger(__name__)


@dataclass
class Sources:
    """What a recipe trains on."""

    videos: list[VideoRecord]
    stills: list[VideoRecord]
    cutouts: list[Cutout]
    reader: FrameReader = field(default_factory=FrameReader)
    """Keeps the decoded frames for all stages."""


def load_sources(recipe: Recipe, root: Path) -> Sources:
    """
    Read the annotations; with the recipe's `cache: memory`, decode all frames and keep them.

    Parameters
    ----------
    recipe:
        Names the files.
    root:
        Folder that the recipe's paths start from.

    Raises
    ------
    DataError
        If a file is missing or broken.

    """
    cv2.setNumThreads(1)
    videos: list[VideoRecord] = []
    stills: list[VideoRecord] = []
    for source in recipe.sources:
        records = load_source(source, root, recipe.classes)
        (stills if source.kind == 'still' else videos).extend(records)
    cutouts = load_cutouts(root / recipe.cutouts, recipe.classes) if recipe.cutouts else []
    result = Sources(videos, stills, cutouts)
    size = result.reader.preload([*videos, *stills]) if recipe.cache == 'memory' else 0
    log.info('%d videos with %d frames, %d stills, %d cut-outs; %.1f GB in memory', len(videos),
             sum(len(video.frames) for video in videos), len(stills), len(cutouts), size / 1e9)
    return result


def picture_weights(records: Sequence[VideoRecord], classes: int, balance: float) -> list[float]:
    """
    Weight videos (or stills) so that rare classes are drawn more often.

    A frame weighs (1 / frames with its rarest class) ** balance, a video the sum of its frames;
    frames without boxes weigh as the most frequent class.
    """
    if not balance:
        # The same as below, but it asks for no annotation: ImageNet's are read only when needed.
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
    """A process's share of batches of consecutive indices; the dataset shuffles."""

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

    Parameters
    ----------
    sources:
        The data.
    recipe, stage:
        What to draw.
    processes:
        Those that share each batch; what is given is this one's part.  None for one process.

    """

    def __init__(self, sources: Sources, recipe: Recipe, stage: StageConfig,
                 processes: Processes | None = None) -> None:
        processes = processes or Processes()
        self._stage = stage
        classes = len(recipe.classes)
        self._dataset = ClipDataset(
            sources.videos, sources.stills, sources.cutouts, stage.clip_length,
            recipe.network_config().input_size, stage.thinning, stage.augment, recipe.seed,
            stage.clips_per_epoch, stage.extra_frame,
            still_fraction=stage.still_share if sources.videos and sources.stills else None,
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

        Parameters
        ----------
        epoch:
            Its index, from 0.
        start:
            Batch to begin with; what follows is the same as in an epoch from 0.

        """
        stage = self._stage
        self._sampler.start = start
        self._dataset.set_epoch(epoch)
        plain = epoch >= stage.epochs - stage.plain_epochs
        self._dataset.set_thinning(0 if plain else stage.thinning)
        yield from self._loader


def batches(loader: ClipLoader, stage: StageConfig, start: int = 0) -> Iterator[ClipBatch]:
    """
    Yield the batches of a stage.

    Parameters
    ----------
    loader:
        Draws them.
    stage:
        How many there are.
    start:
        Iteration of the stage to begin with; what is yielded from there on is the same as in a
        run from 0.

    """
    per_epoch = stage.clips_per_epoch // stage.batch
    for epoch in range(start // per_epoch, stage.epochs):
        yield from loader.epoch(epoch, max(0, start - epoch * per_epoch))
