# SPDX-License-Identifier: Apache-2.0
"""One stage of a training run: network, optimiser, moving average, best weights, counters."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
import logging
import math
from pathlib import Path
from time import monotonic
import zlib

import numpy as np
import torch
from torch import nn, Tensor

from .clip_step import clip_losses
from .config import DEVICE, Recipe, StageConfig
from .frozen import describe_memory, feature_batches, Features, FrozenFeatures
from .loader import batches, drawing_weights, frame_steps, make_loader, Sources
from .losses import QUALITY, StepLosses
from .machine import BF16, choose_amp, FP16, Processes
from .motion import KeptFrames, motion_losses, MotionBatch
from .recipe_file import RecipeError
from .run_log import Meter, RunOptions, Validate
from .schedule import (
    group_parameters,
    learning_rate,
    make_optimizer,
    MovingAverage,
    pictures_after,
    set_modes,
)
from .snapshot import recipe_values, save_snapshot, Snapshot
from ..clips.dataset import ClipBatch
from ..clips.drawn_clips import ClipDrawer
from ..model.config import ConfigError, NetworkConfig
from ..model.extractor import expansion_channels
from ..model.network import ForecastDetector

log = logging.getLogger(__name__)

#: Successive steps with gradients that are no numbers, which end a training; one alone is skipped.
MOST_SKIPPED = 10


class TrainingDivergedError(RuntimeError):
    """The loss is infinite or NaN; the message gives advice."""


def fresh_network(config: NetworkConfig, seed: int, weights: Mapping[str, Tensor] | None = None
                  ) -> ForecastDetector:
    """
    Build a network with random weights, the same at each call.

    If channels of the backbone were dropped in `weights`, they are missing in the network, too.
    """
    # For weights of another backbone, `build_network` and `load_start` raise the error.
    with suppress(ConfigError, KeyError):
        config = replace(config, expansion_channels=expansion_channels(weights or {}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ForecastDetector(config)


def build_network(config: NetworkConfig, seed: int, weights: Mapping[str, Tensor] | None = None
                  ) -> ForecastDetector:
    """
    Build the network of a stage, with the weights that an earlier stage left.

    Modules that the earlier variant lacked have random weights.

    :raises RecipeError: if a weight has another shape
    """
    network = fresh_network(config, seed, weights)
    if weights:
        own = network.state_dict()
        try:
            network.load_state_dict({key: value for key, value in weights.items() if key in own},
                                    strict=False)
        except RuntimeError as error:
            raise RecipeError('weights do not fit the recipe: '
                              f'{" ".join(str(error).split())}') from None
    return network.to(memory_format=torch.channels_last)


class StageRun:
    """
    A stage and the progress of its training.

    :param weights: result of an earlier stage, or None
    :param imagenet: weights of the backbone for a network without `weights`, or None
    :param snapshot: state to continue from, or None for the stage's beginning
    :param seconds: time spent on the run so far
    :raises RecipeError: if weights do not fit, or the processes cannot share the batches
    """

    def __init__(self, recipe: Recipe, stage: StageConfig, sources: Sources, processes: Processes,
                 weights: dict[str, Tensor] | None, imagenet: dict[str, Tensor] | None,
                 snapshot: Snapshot | None, seconds: float) -> None:
        if stage.batch % processes.count:
            raise RecipeError(f'stage {stage.name}: batch is {stage.batch}, must be a multiple of '
                              f'the {processes.count} processes')
        if recipe.cache == DEVICE and processes.count > 1:
            raise RecipeError('cache is device, which is for one process; use memory')
        self.recipe, self.stage, self.sources, self.processes = recipe, stage, sources, processes
        device = processes.device
        self.amp = choose_amp(recipe.amp, device)
        if self.amp == FP16 and device.type != 'cuda':
            raise RecipeError(f'amp is fp16, which needs CUDA; on {device.type} use bf16 or none')
        handed_on = weights or {}
        if snapshot is not None:
            weights = snapshot.network
        self.network = build_network(recipe.network_config(stage), recipe.seed, weights)
        own = self.network.state_dict().keys()
        self._carried = {key: handed_on[key] for key in handed_on.keys() - own}
        if weights is None and imagenet is not None:
            self.network.extractor.load_imagenet(imagenet)
            if recipe.backbone_range == 'symmetric':
                self.network.extractor.expect_normalised()
            if recipe.prune:
                self.network.drop_constant_channels()
        if weights is None and stage.loss.detection == QUALITY:
            self.network.head.set_prior()
        self.network.to(device)
        groups = group_parameters(self.network, stage)
        self.trained = [parameter for group in groups.values() for parameter in group]
        self.optimizer = make_optimizer(groups, stage)
        self.average = MovingAverage(self.network, stage.ema) if stage.ema else None
        # Only used with fp16, in which small gradients would vanish.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp == FP16)
        self.iteration, self.seconds, self.skipped = 0, seconds, 0
        self.best: dict[str, Tensor] = {}
        self.best_score: float | None = None
        if snapshot is not None:
            self._restore(snapshot)
        self.frozen_detection = set(stage.groups) == {'scheduler'}
        self.frozen: FrozenFeatures | None = None
        # Not for a stage that trains only the projections: they come after the whole backbone.
        if stage.frozen_blocks or stage.extractor_is_frozen:
            self.frozen = FrozenFeatures(
                self.network, None if stage.extractor_is_frozen else stage.frozen_blocks,
                self._compute_type() or torch.float32)

    def _restore(self, snapshot: Snapshot) -> None:
        self.iteration = snapshot.iteration
        self.optimizer.load_state_dict(snapshot.optimizer)
        self.best, self.best_score = snapshot.best, snapshot.best_score
        if snapshot.scaler:
            self.scaler.load_state_dict(snapshot.scaler)
        if self.average:
            self.average.state = {key: value.to(self.processes.device)
                                  for key, value in snapshot.average.items()}
            self.average.updates = snapshot.average_updates

    def _compute_type(self) -> torch.dtype | None:
        return {BF16: torch.bfloat16, FP16: torch.float16}.get(self.amp)

    @property
    def total(self) -> int:
        """Return the number of iterations of the stage."""
        return self.stage.epochs * self.per_epoch

    @property
    def per_epoch(self) -> int:
        """Return the number of iterations of an epoch."""
        return self.stage.clips_per_epoch // self.stage.batch

    def result(self) -> dict[str, Tensor]:
        """Return the stage's result: the best validated weights, else the present ones."""
        return self.best or self._present()

    def _present(self) -> dict[str, Tensor]:
        return self.average.state if self.average else self.network.state_dict()

    def train(self, options: RunOptions, validate: Validate | None = None) -> bool:
        """Train to the stage's end; return False if the deadline came first."""
        stage, first = self.stage, self.processes.first
        if not self.total:
            return True
        log.info('stage %s: %d iterations of %d clips, %.2f M trained parameters, variant %s',
                 stage.name, self.total, stage.batch, sum(p.numel() for p in self.trained) / 1e6,
                 stage.variant)
        if stage.reuse > 1:
            size = (self._compute_type() or torch.float32).itemsize
            log.info('%s', describe_memory(self.recipe, stage, size, self.processes))
        meter = Meter(stage.name, self.total, self.processes.device, self.iteration,
                      pictures_after(self.recipe.stages, stage.name))
        observers = options.observers if first else ()
        saved = last = monotonic()
        for batch, features in self._batches():
            rates = self._set_rates()
            losses = self._step(batch, features)
            self.iteration += 1
            now = monotonic()
            self.seconds += now - last
            last = now
            images = batch.counts.numel() * self.processes.count
            meter.add(losses, images)
            planned = meter.plan(images)
            if planned:
                log.info('%s', planned)
            done = self.iteration == self.total
            for observer in observers:
                observer.progress(stage.name, self.iteration, self.total)
            if self.iteration % options.log_every == 0 or done:
                for observer in observers:
                    observer.scalars(stage.name, self.iteration, meter.scalars(rates))
                log.info('%s', meter.line(self.iteration, rates))
            if self.iteration % self.per_epoch == 0:
                self._end_of_epoch(validate, options, batch)
                # The time of a validation does not count as training.
                last = monotonic()
            late = self._late(options.deadline)
            if first and (done or late or monotonic() - saved > options.snapshot_every):
                self._save(options.snapshot)
                saved = monotonic()
            if late:
                return done
        return True

    def _batches(self) -> Iterator[tuple[ClipBatch | MotionBatch, Features | None]]:
        stage = self.stage
        if stage.keep:
            frames = self._kept_frames()
            for iteration in range(self.iteration, self.total):
                # Each batch depends only on its number, so a run can be resumed.
                seed = (self.recipe.seed, zlib.crc32(stage.name.encode()), iteration)
                yield frames.clips(np.random.default_rng(seed), frame_steps(stage, seed),
                                   stage.strides, stage.pauses), None
            return
        loader = make_loader(self.sources, self.recipe, stage, self.processes)
        if stage.reuse == 1:
            for batch in batches(loader, stage, self.iteration):
                yield batch, None
        else:
            yield from feature_batches(loader, self._extract, self.recipe, stage, self.iteration,
                                       self.processes)

    def _kept_frames(self) -> KeptFrames:
        """Compute all frames, or return those of an earlier stage with the same settings."""
        recipe, stage, sources = self.recipe, self.stage, self.sources
        frozen = self.frozen
        assert frozen is not None and sources.bank is not None
        self.network.eval()
        sources.bank = sources.bank.to(self.processes.device)
        drawer = ClipDrawer(sources.bank, len(sources.videos),
                            drawing_weights(sources, recipe, stage),
                            recipe.network_config(stage).input_size, stage.augment)
        weights = tuple(float(parameter.sum()) for part in (
            self.network.extractor, self.network.head) for parameter in part.parameters())
        key = (weights, stage.input_size, stage.keep, stage.augment, stage.loss.reliable_score,
               stage.pauses > 0)
        if key not in sources.kept:
            sources.kept.clear()  # They take much memory, and stages follow one another.
            with self._autocast():
                sources.kept[key] = KeptFrames(
                    self.network, frozen, drawer, sources.bank.lengths[:len(sources.videos)],
                    stage.keep, recipe.seed, stage.loss.reliable_score, stage.pauses > 0)
        return sources.kept[key]

    def _extract(self, batch: ClipBatch) -> Features:
        assert self.frozen is not None
        images = batch.images.to(self.processes.device, non_blocking=True)
        with self._autocast():
            levels = self.frozen(images.flatten(0, 1))
        return tuple(level.unflatten(0, images.shape[:2]) for level in levels)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.processes.device.type, self._compute_type(),
                              enabled=self._compute_type() is not None)

    def _late(self, deadline: float) -> bool:
        # All processes have the same deadline or none, so either all of them call `agree` or none.
        return deadline < float('inf') and self.processes.agree(monotonic() > deadline)

    def _set_rates(self) -> dict[str, float]:
        rates = {}
        for group in self.optimizer.param_groups:
            name = group['name']
            group['lr'] = rates[name] = learning_rate(self.stage.groups[name], self.stage,
                                                      self.iteration)
        return rates

    def _step(self, batch: ClipBatch | MotionBatch, features: Features | None = None
              ) -> StepLosses:
        stage, processes = self.stage, self.processes
        set_modes(self.network, stage)
        with_scheduler = stage.scheduler_from is not None \
            and self.iteration // self.per_epoch >= stage.scheduler_from
        generator = torch.Generator().manual_seed(
            zlib.crc32(f'{self.recipe.seed}/{stage.name}/{self.iteration}'.encode()))
        batch = batch.to(processes.device, non_blocking=True)
        if features is not None:
            features = tuple(level.to(processes.device, non_blocking=True) for level in features)
        if isinstance(batch, MotionBatch):
            losses = motion_losses(self.network, batch, stage.loss, with_scheduler,
                                   self.frozen_detection)
        else:
            with self._autocast():
                losses = clip_losses(self.network, batch, stage.loss, generator,
                                     stage.extra_frame, with_scheduler, self.frozen,
                                     self.frozen_detection, processes, features)
        self._share_parts(losses)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(losses.total).backward()
        processes.add_gradients(self.trained)
        self.scaler.unscale_(self.optimizer)
        # The gradients of all processes are equal now, so their networks stay equal.
        norm = nn.utils.get_total_norm(
            [parameter.grad for parameter in self.trained if parameter.grad is not None])
        if self.scaler.is_enabled() or self._usable(float(norm)):
            if stage.clip_norm:
                nn.utils.clip_grads_with_norm_(self.trained, stage.clip_norm, norm)
            self.scaler.step(self.optimizer)
        self.scaler.update()
        processes.average_statistics(self.network)
        if self.average:
            self.average.update(self.network)
        return losses

    def _usable(self, norm: float) -> bool:
        """Return whether the norm is a number; else warn, or raise after `MOST_SKIPPED` steps."""
        if math.isfinite(norm):
            self.skipped = 0
            return True
        self.skipped += 1
        broken = [name for name, parameter in self.network.named_parameters()
                  if parameter.grad is not None and not parameter.grad.isfinite().all()]
        where = f'{broken[0]} and {len(broken) - 1} more' if len(broken) > 1 else ''.join(broken)
        message = (f'stage {self.stage.name}, iteration {self.iteration}: the gradient is {norm} '
                   f'({where})')
        if self.skipped >= MOST_SKIPPED:
            raise TrainingDivergedError(f'{message}, {self.skipped} times in a row; lower the '
                                        'learning rates, set clip_norm or a longer warmup')
        log.warning('%s; this step is left out', message)
        return False

    def _share_parts(self, losses: StepLosses) -> None:
        """Sum the losses over the processes; raise TrainingDivergedError if infinite or NaN."""
        whole = float(losses.total.detach())
        if self.processes.count > 1:
            names = list(losses.parts)
            summed = self.processes.total(torch.tensor(
                [whole, losses.decisions, losses.reads, losses.ones, *losses.parts.values()],
                dtype=torch.float64, device=self.processes.device)).tolist()
            whole = summed[0]
            losses.decisions, losses.reads, losses.ones = map(int, summed[1:4])
            losses.parts = dict(zip(names, summed[4:]))
        if not math.isfinite(whole):
            raise TrainingDivergedError(
                f'stage {self.stage.name}, iteration {self.iteration}: the loss is {whole} '
                f'({losses.parts}); lower the learning rates, set clip_norm or a longer warmup')

    def _end_of_epoch(self, validate: Validate | None, options: RunOptions,
                      batch: ClipBatch | MotionBatch) -> None:
        epoch = self.iteration // self.per_epoch
        settings = self.recipe.validation
        observers = options.observers if self.processes.first else ()
        network = None
        if validate is not None and settings is not None and (
                epoch % settings.every == 0 or epoch == self.stage.epochs):
            network = self._averaged()
            # Only the first process measures, so that all agree on the best weights.
            values = validate(network) if self.processes.first else {'': 0.0}
            score = float(self.processes.total(torch.tensor(
                next(iter(values.values())), dtype=torch.float64, device=self.processes.device)))
            # NaN, if nothing could be measured, is never better; of equal scores the later wins.
            better = score >= (self.best_score if self.best_score is not None else float('-inf'))
            log.info('%s epoch %d: %s%s', self.stage.name, epoch, '  '.join(
                f'{name} {value:.4f}' for name, value in values.items()),
                '  best so far' if better else '')
            if better:
                self.best_score = score
                self.best = {key: value.detach().clone() for key, value in self._present().items()}
                if options.on_best is not None and self.processes.first:
                    options.on_best(self.best)
            for observer in observers:
                observer.scalars(self.stage.name, self.iteration, {
                    f'validation/{name}': value for name, value in values.items()})
        # Clips that are used again have no pictures.
        if observers and isinstance(batch, ClipBatch) and batch.images.numel():
            network = network or self._averaged()
            for observer in observers:
                observer.examples(self.stage.name, self.iteration, batch, network)

    def _averaged(self) -> ForecastDetector:
        """Return the network with the averaged weights, if there are any, in evaluation mode."""
        network = build_network(self.recipe.network_config(self.stage), self.recipe.seed,
                                self._present())
        return network.to(self.processes.device).eval()

    def _save(self, path: Path) -> None:
        save_snapshot(path, Snapshot(
            self.stage.name, self.iteration, self.network.state_dict(),
            self.average.state if self.average else {},
            self.average.updates if self.average else 0,
            self.optimizer.state_dict(), self.seconds, self.scaler.state_dict(), self.best,
            self.best_score, recipe_values(self.recipe), self._carried))
