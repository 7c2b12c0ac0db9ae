# SPDX-License-Identifier: Apache-2.0
"""
Run a recipe, stage by stage, resumable at any iteration.

Data, random combination and rollout depend on nothing but seed, stage and iteration, so a run
that is killed and resumed goes the way it would have gone.
"""

from collections import defaultdict
from dataclasses import replace
import logging
from pathlib import Path
from time import monotonic
import zlib

import torch
from torch import nn

from .clip_step import clip_losses, StepLosses
from .config import Recipe, RecipeError, StageConfig
from .frozen import FrozenFeatures
from .loader import batches, Sources
from .schedule import group_parameters, learning_rate, make_optimizer, MovingAverage
from .snapshot import load_snapshot, save_snapshot, Snapshot
from ..data.clips import ClipBatch
from ..model.extractor import freeze_batch_norm
from ..model.network import ForecastDetector
from ..runtime.checkpoint import Card, save_checkpoint

log = logging.getLogger(__name__)

SNAPSHOT = 'last.snapshot.safetensors'
"""Name of the resumable state in a run's folder."""


class TrainingDivergedError(RuntimeError):
    """The loss is no number any more; the message gives advice."""


def build_network(recipe: Recipe, variant: str, weights: dict[str, torch.Tensor] | None = None
                  ) -> ForecastDetector:
    """
    Build the network of a stage, with the weights that an earlier stage left.

    Parameters of modules that the earlier variant did not have keep their random start.

    Raises
    ------
    RecipeError
        If a weight has another shape.

    """
    torch.manual_seed(recipe.seed)
    network = ForecastDetector(replace(recipe.network_config(), variant=variant))
    if weights:
        own = network.state_dict()
        try:
            network.load_state_dict({key: value for key, value in weights.items() if key in own},
                                    strict=False)
        except RuntimeError as error:
            raise RecipeError('weights do not fit the recipe: '
                              f'{" ".join(str(error).split())}') from None
    return network.to(memory_format=torch.channels_last)


class Trainer:
    """
    A run of a recipe in a folder.

    Parameters
    ----------
    recipe:
        What to do.
    sources:
        The data.
    output:
        The run's folder: snapshot, checkpoint of every finished stage.
    imagenet:
        Weights for the backbone's start, or None for a random start.
    start:
        State of a network to start from (a checkpoint of an earlier run), instead.

    """

    def __init__(self, recipe: Recipe, sources: Sources, output: Path,
                 imagenet: dict[str, torch.Tensor] | None = None,
                 start: dict[str, torch.Tensor] | None = None) -> None:
        self.recipe = recipe
        self.sources = sources
        self.output = output
        self.weights = start
        self.imagenet = imagenet
        self.seconds = 0.0
        output.mkdir(parents=True, exist_ok=True)

    def run(self, resume: bool = True, stop_after: float | None = None,
            snapshot_every: float = 300.0, log_every: int = 20) -> bool:
        """
        Train until the last stage is done.

        Parameters
        ----------
        resume:
            Go on from the folder's snapshot if there is one.
        stop_after:
            Stop with a snapshot after so many seconds.
        snapshot_every:
            Seconds between snapshots.
        log_every:
            Iterations between log lines.

        Returns
        -------
        bool
            Whether everything is done (False after `stop_after`).

        Raises
        ------
        SnapshotError
            If the snapshot is damaged.
        TrainingDivergedError
            If the loss becomes infinite or NaN.

        """
        path = self.output / SNAPSHOT
        snapshot = load_snapshot(path) if resume and path.exists() else None
        names = [stage.name for stage in self.recipe.stages]
        first = 0
        if snapshot is not None:
            if snapshot.stage not in names:
                raise RecipeError(f'{path}: belongs to a stage {snapshot.stage!r} that the recipe '
                                  'does not have')
            first = names.index(snapshot.stage)
            self.seconds = snapshot.seconds
        deadline = monotonic() + stop_after if stop_after is not None else float('inf')
        for stage in self.recipe.stages[first:]:
            run = _StageRun(self, stage, snapshot)
            snapshot = None
            finished = run.train(path, deadline, snapshot_every, log_every)
            self.seconds = run.seconds
            if not finished:
                return False
            self.weights = run.best_weights()
            self._save_stage(stage)
        return True

    def _save_stage(self, stage: StageConfig) -> None:
        network = build_network(self.recipe, stage.variant, self.weights)
        path = self.output / f'{stage.name}.safetensors'
        card = Card(name=f'{self.recipe.name}/{stage.name}', classes=self.recipe.classes,
                    network=network.config, preset=self.recipe.preset, **self.recipe.card)
        card = replace(card, provenance={
            **card.provenance, 'recipe': self.recipe.name, 'stage': stage.name,
            'training_hours': round(self.seconds / 3600, 2), 'torch': str(torch.__version__)})
        save_checkpoint(path, network, card)
        log.info('wrote %s', path)


class _StageRun:
    """One stage: network, optimiser, moving average, counters."""

    def __init__(self, trainer: Trainer, stage: StageConfig, snapshot: Snapshot | None) -> None:
        self.recipe, self.stage, self.sources = trainer.recipe, stage, trainer.sources
        weights = snapshot.network if snapshot else trainer.weights
        self.network = build_network(self.recipe, stage.variant, weights)
        if weights is None and trainer.imagenet is not None:
            self.network.extractor.load_imagenet(trainer.imagenet)
        groups = group_parameters(self.network, stage)
        self.trained = [parameter for group in groups.values() for parameter in group]
        self.optimizer = make_optimizer(groups, stage)
        self.average = MovingAverage(self.network, stage.ema) if stage.ema else None
        self.iteration = 0
        self.seconds = trainer.seconds
        if snapshot is not None:
            self.iteration = snapshot.iteration
            self.optimizer.load_state_dict(snapshot.optimizer)
            if self.average:
                self.average.state = snapshot.average
                self.average.updates = snapshot.average_updates
        trained = set(stage.groups)
        self.frozen_detection = trained == {'scheduler'}
        self.frozen: FrozenFeatures | None = None
        # The projections stand behind the whole backbone: to train them alone saves no block.
        extracts = bool(trained & {'backbone', 'projection'})
        if stage.frozen_blocks or not extracts:
            self.frozen = FrozenFeatures(
                self.network, stage.frozen_blocks if extracts else None,
                torch.bfloat16 if self.recipe.amp == 'bf16' else torch.float32)

    def best_weights(self) -> dict[str, torch.Tensor]:
        """Give the averaged weights, or the plain ones where there is no average."""
        return self.average.state if self.average else self.network.state_dict()

    def train(self, path: Path, deadline: float, snapshot_every: float, log_every: int) -> bool:
        stage = self.stage
        total = stage.epochs * stage.clips_per_epoch // stage.batch
        log.info('stage %s: %d iterations of %d clips, %.2f M trained parameters, variant %s',
                 stage.name, total, stage.batch, sum(p.numel() for p in self.trained) / 1e6,
                 stage.variant)
        meter = _Meter()
        saved = last = monotonic()
        for batch in batches(self.sources, self.recipe, stage, self.iteration):
            rates = self._set_rates()
            losses = self._step(batch)
            self.iteration += 1
            now = monotonic()
            self.seconds += now - last
            last = now
            meter.add(losses, batch.images.shape[0] * batch.images.shape[1])
            done = self.iteration == total
            if self.iteration % log_every == 0 or done:
                log.info('%s', meter.line(stage.name, self.iteration, total, rates))
            if done or now - saved > snapshot_every or now > deadline:
                self._snapshot(path)
                saved = now
            if now > deadline:
                return done
        return True

    def _set_rates(self) -> dict[str, float]:
        rates = {}
        for group in self.optimizer.param_groups:
            name = group['name']
            group['lr'] = rates[name] = learning_rate(self.stage.groups[name], self.stage,
                                                      self.iteration)
        return rates

    def _set_modes(self) -> None:
        """Train the parts that have a learning rate, with the BatchNorms that the stage frees."""
        stage, network = self.stage, self.network
        parts = {'backbone': (network.extractor.stem, network.extractor.trunk),
                 'projection': (network.extractor.projections,), 'head': (network.head,),
                 'encoder': (network.encoder1, network.encoder2),
                 'scheduler': (network.scheduler,) if network.scheduler else ()}
        network.eval()
        for group in stage.groups:
            for part in parts[group]:
                part.train()
                if stage.freeze_bn == 'all' or stage.freeze_bn == group:
                    freeze_batch_norm(part)

    def _step(self, batch: ClipBatch) -> StepLosses:
        stage = self.stage
        self._set_modes()
        per_epoch = stage.clips_per_epoch // stage.batch
        with_scheduler = stage.scheduler_from is not None \
            and self.iteration // per_epoch >= stage.scheduler_from
        generator = torch.Generator().manual_seed(
            zlib.crc32(f'{self.recipe.seed}/{stage.name}/{self.iteration}'.encode()))
        with torch.autocast('cpu', torch.bfloat16, enabled=self.recipe.amp == 'bf16'):
            losses = clip_losses(self.network, batch, stage.loss, generator, stage.extra_frame,
                                 with_scheduler, self.frozen, self.frozen_detection)
        if not torch.isfinite(losses.total):
            raise TrainingDivergedError(
                f'stage {stage.name}, iteration {self.iteration}: the loss is '
                f'{float(losses.total)} ({losses.parts}); lower the learning rates, set clip_norm '
                'or a longer warmup')
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        if stage.clip_norm:
            nn.utils.clip_grad_norm_(self.trained, stage.clip_norm)
        self.optimizer.step()
        if self.average:
            self.average.update(self.network)
        return losses

    def _snapshot(self, path: Path) -> None:
        save_snapshot(path, Snapshot(
            self.stage.name, self.iteration, self.network.state_dict(),
            self.average.state if self.average else {},
            self.average.updates if self.average else 0,
            self.optimizer.state_dict(), self.seconds))


class _Meter:
    """Means between two log lines."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.steps = self.images = 0
        self.ones = self.decisions = 0
        self.start = monotonic()

    def add(self, losses: StepLosses, images: int) -> None:
        for key, value in losses.parts.items():
            self.sums[key] += value
        self.steps += 1
        self.images += images
        if losses.reliable is not None:
            self.ones += int(losses.reliable.sum())
            self.decisions += losses.reliable.numel()

    def line(self, stage: str, iteration: int, total: int, rates: dict[str, float]) -> str:
        elapsed = monotonic() - self.start
        left = (total - iteration) * elapsed / self.steps
        parts = [f'{stage} {iteration}/{total}']
        parts += [f'{key} {value / self.steps:.4f}' for key, value in self.sums.items()]
        if self.decisions:
            parts.append(f'y_t {self.ones / self.decisions:.2f}')
        parts += [f'lr_{name} {rate:.1e}' for name, rate in rates.items()]
        parts.append(f'{self.images / elapsed:.1f} images/s')
        parts.append(f'ETA {int(left // 3600)}:{int(left // 60 % 60):02d}:{int(left % 60):02d}')
        self._clear()
        return '  '.join(parts)
