# SPDX-License-Identifier: Apache-2.0
"""
Run a recipe, stage by stage, resumable at any iteration.

Data, random combination and rollout depend on nothing but seed, stage and iteration, so a run
that is killed and resumed goes the way it would have gone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
import logging
import os
from pathlib import Path
from time import monotonic

import torch

from .config import Recipe, RecipeError, StageConfig
from .loader import Sources
from .machine import describe_machine, join_processes, Processes
from .run_log import Observer, RunOptions, Validate
from .snapshot import check_recipe, load_snapshot, recipe_digest
from .stage_run import build_network, StageRun, TrainingDivergedError
from ..detector.checkpoint import Card, save_checkpoint

__all__ = ['SNAPSHOT', 'Trainer', 'TrainingDivergedError']

log = logging.getLogger(__name__)

SNAPSHOT = 'last.snapshot.safetensors'  #: Name of the resumable state in a run's folder


class Trainer:
    """
    A run of a recipe in a folder.

    :param output: the run's folder: the snapshot, STAGE.safetensors of every finished stage, and
        with a validation STAGE.best.safetensors of the stage that is going on
    :param imagenet: weights for the backbone's start, or None for a random start
    :param start: state of a network to start from (a checkpoint of an earlier run), instead
    :param processes: those that train together; None for the recipe's device and those that
        torchrun started
    :raises DeviceError: if there is no such device
    """

    def __init__(self, recipe: Recipe, sources: Sources, output: Path,
                 imagenet: dict[str, torch.Tensor] | None = None,
                 start: dict[str, torch.Tensor] | None = None,
                 processes: Processes | None = None) -> None:
        self.recipe = recipe
        self.sources = sources
        self.output = output
        self.weights = start
        self.imagenet = imagenet
        self.seconds = 0.0
        self.processes = processes or join_processes(recipe.device)
        output.mkdir(parents=True, exist_ok=True)

    def run(self, resume: bool = True, stop_after: float | None = None,
            snapshot_every: float = 300.0, log_every: int = 20,
            validate: Validate | None = None, observers: Sequence[Observer] = ()) -> bool:
        """
        Train until the last stage is done.

        :param resume: go on from the folder's snapshot if there is one
        :param stop_after: stop with a snapshot after so many seconds
        :param validate: measures a network as often as the recipe's `validation` says; each stage
            then hands on the weights that did best. None for the last ones.
        :returns: whether everything is done (False after `stop_after`)
        :raises SnapshotError: if the snapshot is damaged
        :raises RecipeError: if it belongs to a run of another recipe
        :raises TrainingDivergedError: if the loss becomes infinite or NaN
        """
        path = self.output / SNAPSHOT
        snapshot = load_snapshot(path) if resume and path.exists() else None
        names = [stage.name for stage in self.recipe.stages]
        first = 0
        if snapshot is not None:
            if snapshot.recipe:
                check_recipe(path, snapshot.recipe, self.recipe)
            if snapshot.stage not in names:
                raise RecipeError(f'{path}: belongs to a stage {snapshot.stage!r} that the recipe '
                                  'does not have')
            first = names.index(snapshot.stage)
            self.seconds = snapshot.seconds
        log.info('%s', describe_machine(self.recipe.amp, self.processes.device,
                                        torch.get_num_threads()))
        deadline = monotonic() + stop_after if stop_after is not None else float('inf')
        with _determinism(self.recipe.deterministic):
            for stage in self.recipe.stages[first:]:
                run = StageRun(self.recipe, stage, self.sources, self.processes, self.weights,
                               self.imagenet, snapshot, self.seconds)
                snapshot = None

                def keep(weights: dict[str, torch.Tensor], stage: StageConfig = stage) -> None:
                    self._write(stage, weights, f'{stage.name}.best')

                finished = run.train(RunOptions(path, snapshot_every, log_every, deadline,
                                                tuple(observers), keep), validate)
                self.seconds = run.seconds
                if not finished:
                    return False
                # Parts that this stage's variant lacks stay as they were, for a later one.
                self.weights = {**(self.weights or {}), **run.result()}
                if self.processes.first:
                    self._write(stage, self.weights, stage.name)
        return True

    def _write(self, stage: StageConfig, weights: dict[str, torch.Tensor], name: str) -> None:
        state = torch.random.get_rng_state()
        network = build_network(self.recipe, stage.variant, weights)
        torch.random.set_rng_state(state)
        path = self.output / f'{name}.safetensors'
        card = Card(name=f'{self.recipe.name}/{stage.name}', classes=self.recipe.classes,
                    network=network.config, preset=self.recipe.preset, **self.recipe.card)
        card = replace(card, provenance={
            **card.provenance, 'recipe': self.recipe.name,
            'recipe_sha256': recipe_digest(self.recipe), 'stage': stage.name,
            'training_hours': round(self.seconds / 3600, 2), 'torch': str(torch.__version__)})
        save_checkpoint(path, network, card)
        log.info('wrote %s', path)


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Let PyTorch refuse operations whose result depends on chance."""
    if not wanted:
        yield
        return
    # cuBLAS is deterministic only with a workspace of fixed size (its manual, reproducibility).
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    before = torch.are_deterministic_algorithms_enabled()
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
