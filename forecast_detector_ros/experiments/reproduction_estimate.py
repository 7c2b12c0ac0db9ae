# SPDX-License-Identifier: Apache-2.0
"""What a reproduction will take on this machine, from a few iterations of each stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

from .reproduction import ALTERNATIONS, check_plan, Plan, policies_of, trainings
from ..detector.checkpoint import Card
from ..detector.settings import DetectorSettings
from ..evaluation.policy_runs import run_policies
from ..evaluation.sequences import Footage
from ..evaluation.validation import check_held_out
from ..model.network import ForecastDetector
from ..training.config import Recipe, StageConfig
from ..training.loader import load_sources, Sources
from ..training.trainer import Trainer

#: Of the short and the long run of each stage; what differs is the iterations alone.
ITERATIONS = (2, 8)
FRAMES = 6  #: Of the first sequence, for the cost of a measurement


@dataclass(frozen=True)
class Part:
    """What one part of the work takes with one seed."""

    row: str
    what: str
    units: int  #: Iterations, or frames
    seconds: float  #: Of all units


def estimate(plan: Plan) -> list[Part]:
    """
    Time a few iterations of every stage, and a few frames of every measurement.

    Nothing is kept.  The network has random weights, with which a measurement takes rather longer
    than with trained ones.

    :raises EvaluationError, RecipeError, DataError: with a message of one line
    """
    check_plan(plan)
    sources = load_sources(plan.recipe, plan.data)
    check_held_out(sources, plan.footage)
    torch.set_num_threads(plan.recipe.threads)
    parts = []
    for training in trainings(plan, plan.seeds[0]):
        for stage in training.recipe.stages:
            units = stage.epochs * stage.clips_per_epoch // stage.batch
            each = _iteration(training.recipe, stage, sources, plan.imagenet)
            parts.append(Part(training.row, f'stage {stage.name}', units, units * each))
    frames = sum(len(item.frames) for item in plan.footage)
    first = plan.footage[0]
    few = Footage(first.name, first.frames[:FRAMES], first.truth)
    for row in plan.chosen():
        config = replace(plan.recipe.network_config(), variant=row.variant)
        card = Card('estimate', plan.recipe.classes, config)
        start = perf_counter()
        run_policies(ForecastDetector(config).eval(), card, [few],
                     DetectorSettings(max_consecutive_forecasts=max(ALTERNATIONS)),
                     policies_of(row), hold=row.hold)
        each = (perf_counter() - start) / len(few.frames)
        parts.append(Part(row.name, 'measurement', frames, each * frames))
    return parts


def _iteration(recipe: Recipe, stage: StageConfig, sources: Sources,
               imagenet: dict[str, torch.Tensor] | None) -> float:
    """Time an iteration, with rates so small that random weights cannot diverge."""
    still = {name: replace(group, lr=1e-9) for name, group in stage.groups.items()}
    seconds = []
    for count in ITERATIONS:
        short = replace(stage, epochs=1, clips_per_epoch=count * stage.batch, groups=still)
        with TemporaryDirectory() as folder:
            start = perf_counter()
            Trainer(replace(recipe, stages=(short,)), sources, Path(folder), imagenet).run()
            seconds.append(perf_counter() - start)
    return max(0.0, seconds[1] - seconds[0]) / (ITERATIONS[1] - ITERATIONS[0])


def as_table(parts: Sequence[Part], seeds: int) -> list[list[str]]:
    """Write what each part takes with one seed, and the sum with all."""
    rows = [['row', 'part', 'units', 's a unit', 'minutes']]
    rows += [[part.row, part.what, str(part.units), f'{part.seconds / part.units:.3f}',
              f'{part.seconds / 60:.1f}'] for part in parts]
    total = sum(part.seconds for part in parts) / 60
    return [*rows, ['one seed', '', '', '', f'{total:.1f}'],
            [f'{seeds} seeds', '', '', '', f'{total * seeds:.1f}']]
