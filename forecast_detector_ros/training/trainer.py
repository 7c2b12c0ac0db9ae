# SPDX-License-Identifier: Apache-2.0
"""
Run a recipe, stage by stage, resumable at any iteration.

Data, random combination and rollout depend on nothing but seed, stage and iteration, so a run
that is killed and resumed goes the way it would have gone.
"""

from dataclasses import replace
import logging
from pathlib import Path
from time import monotonic

import torch

from .config import Recipe, RecipeError, StageConfig
from .loader import Sources
from .processes import Processes
from .snapshot import load_snapshot
from .stage_run import build_network, RunOptions, StageRun, TrainingDivergedError
from ..runtime.checkpoint import Card, save_checkpoint

__all__ = ['SNAPSHOT', 'Trainer', 'TrainingDivergedError']

log = logging.getLogger(__name__)

SNAPSHOT = 'last.snapshot.safetensors'
"""Name of the resumable state in a run's folder."""


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
            run = StageRun(self.recipe, stage, self.sources, Processes(), self.weights,
                           self.imagenet, snapshot, self.seconds)
            snapshot = None
            finished = run.train(RunOptions(path, snapshot_every, log_every, deadline))
            self.seconds = run.seconds
            if not finished:
                return False
            self.weights = run.result()
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
