# SPDX-License-Identifier: Apache-2.0
"""
Features without gradients: computed fast, and once for several epochs.

Frozen parts have no gradients and keep their BatchNorm statistics. So BatchNorm can be folded into
the convolutions, and the weights can have the type of the computation. Images are computed a few
at a time, so that they stay in the processor's cache.

If all of the extractor is frozen, a clip's features never change. They are stored with the clip's
targets, so that later epochs need no decoding, augmentation or extractor. The order of clips is a
function of seed, stage and iteration, so a resumed run computes the same.
"""

from collections.abc import Callable, Iterator
import logging
import zlib

import torch
from torch import nn, Tensor

from .config import Recipe, StageConfig
from .loader import ClipLoader, DrawnLoader
from .machine import ALONE, Processes
from ..clips.dataset import Clip, ClipBatch, collate
from ..model.extractor import feature_sizes, fold_batch_norm
from ..model.network import ForecastDetector

# Images that are computed together on a CPU: measured, 4 and 8 were the fastest for 320x320.
_CHUNK = 4


class FrozenFeatures:
    """
    Extract features with a copy of the frozen part of a network's backbone.

    :param network: each call uses its present normalisation and trained blocks
    :param blocks: number of frozen blocks of `extractor.stem`; None if all of the extractor is
        frozen
    :param dtype: type of the frozen part's computation, on the network's device
    """

    def __init__(self, network: ForecastDetector, blocks: int | None,
                 dtype: torch.dtype = torch.float32) -> None:
        self._network = network
        self._skip = blocks
        extractor = network.extractor
        part: nn.Module = extractor if blocks is None else extractor.stem[:blocks]
        self._part = fold_batch_norm(part).to(dtype).to(memory_format=torch.channels_last)
        self._part.requires_grad_(False)
        self._dtype = dtype

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """
        Extract `feature` from 8-bit RGB images.

        :param images: ``(N, 3, H, W)`` uint8
        :returns: one map per level; with gradients for the blocks that are not frozen
        """
        with torch.no_grad():
            chunk_size = _CHUNK if images.device.type == 'cpu' else len(images)
            parts = [self._part(self._network.normalise(chunk).to(
                self._dtype, memory_format=torch.channels_last))
                for chunk in images.split(chunk_size)]
        if self._skip is None:
            return tuple(torch.cat(level) for level in zip(*parts))
        return self._network.extractor(torch.cat(parts), self._skip)


log = logging.getLogger(__name__)

Features = tuple[Tensor, ...]  #: One ``(B, T, C, h, w)`` map per level


def drawn_in(stage: StageConfig, epoch: int) -> int:
    """Return the epoch whose clips `epoch` uses; a change of thinning needs new clips."""
    plain = max(0, stage.epochs - stage.plain_epochs)
    first = plain if epoch >= plain else 0
    return epoch - (epoch - first) % stage.reuse


def describe_memory(recipe: Recipe, stage: StageConfig, bytes_per_value: int,
                    processes: Processes) -> str:
    """Return a line for the log: how much memory a stage keeps."""
    config = recipe.network_config(stage)
    each = bytes_per_value * sum(
        channels * height * width for channels, (height, width) in zip(
            config.feature_channels, feature_sizes(config.input_size, config.levels)))
    clips = stage.clips_per_epoch // processes.count
    frames = clips * (stage.clip_length + int(stage.extra_frame))
    return (f'stage {stage.name}: keeps the features of {clips} clips for {stage.reuse} epochs in '
            f'{frames * each / 1e9:.2f} GB ({config.input_size[0]}x{config.input_size[1]}, '
            f'{"+".join(map(str, config.feature_channels))} channels: {each / 1e3:.0f} kB a frame '
            f'in {8 * bytes_per_value} bit)')


class _Kept:
    """
    The clips of one epoch, without their pictures.

    Channels stand last in memory, as the extractor leaves them.
    """

    def __init__(self) -> None:
        self._features: list[list[Tensor]] = []
        self._clips: list[list[Clip]] = []

    def add(self, batch: ClipBatch, features: Features) -> None:
        self._features.append([level.permute(0, 1, 3, 4, 2).cpu().contiguous()
                               for level in features])
        # Clones: each tensor from a worker process would keep a file descriptor open.
        targets = zip(*([[frame.clone() for frame in clip] for clip in getattr(batch, name)]
                        for name in ('boxes', 'labels', 'scores', 'ignore')))
        self._clips.append([Clip(images.new_empty((len(images), 3, 0, 0)), *parts)
                            for images, parts in zip(batch.images, targets)])

    def pick(self, iterations: list[int]) -> tuple[ClipBatch, Features]:
        """Return a batch of row r of iteration `iterations[r]`, for each r."""
        rows = list(enumerate(iterations))
        features = tuple(
            torch.stack([self._features[i][level][row] for row, i in rows]).permute(0, 1, 4, 2, 3)
            for level in range(len(self._features[0])))
        return collate([self._clips[i][row] for row, i in rows]), features


def feature_batches(loader: ClipLoader | DrawnLoader, extract: Callable[[ClipBatch], Features],
                    recipe: Recipe, stage: StageConfig, start: int = 0,
                    processes: Processes = ALONE) -> Iterator[tuple[ClipBatch, Features]]:
    """
    Yield the batches of a stage with their features; draw clips every `reuse` epochs.

    In an epoch that uses clips again, each row of the batch has its own clips in a new order. So
    batches change, and the number of processes does not matter.

    :param extract: returns the features of a batch of clips; they must not depend on trained
        weights
    :param start: iteration of the stage to begin with; the batches from there on are the same as
        in a run from 0
    :param processes: the processes that share each batch; this process gets its own part
    :yields: a batch and its features. Clips that are used again have no pictures: their `images`
        are ``(B, T, 3, 0, 0)``.
    """
    per_epoch = stage.clips_per_epoch // stage.batch
    kept: _Kept | None = None
    for epoch in range(start // per_epoch, stage.epochs):
        begin = max(0, start - epoch * per_epoch)
        drawn = drawn_in(stage, epoch)
        again = drawn < stage.epochs - 1 and drawn_in(stage, drawn + 1) == drawn
        if epoch == drawn:
            kept = _Kept() if again else None
            first = 0 if again else begin
            for index, batch in enumerate(loader.epoch(epoch, first), first):
                features = extract(batch)
                if kept is not None:
                    kept.add(batch, features)
                if index >= begin:
                    yield batch, features
            continue
        if kept is None:
            log.info('stage %s: computing the features of epoch %d again', stage.name, drawn)
            kept = _Kept()
            for batch in loader.epoch(drawn):
                kept.add(batch, extract(batch))
        generator = torch.Generator().manual_seed(
            zlib.crc32(f'{recipe.seed}/{stage.name}/order/{epoch}'.encode()))
        orders = torch.stack([torch.randperm(per_epoch, generator=generator)
                              for _ in range(stage.batch)])[processes.share(stage.batch)]
        for index in range(begin, per_epoch):
            yield kept.pick(orders[:, index].tolist())
