# SPDX-License-Identifier: Apache-2.0
"""
The paper's comparisons on a set of one's own: Table 2, its rivals, and the sweep of Fig. 5.

For every seed one baseline is trained, and from it every row, on the same clips and for as long.
What is finished lies in the output folder and is not done again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
import torch

from .average_precision import PLAIN
from .motion_iou import motion_iou
from .runner import FootageRun, run_footage
from .sequences import EvaluationError, Footage
from .tables import DetectionTable, TruthTable
from .vid_ap import vid_average_precision
from ..runtime.checkpoint import write_atomically
from ..runtime.detector import Detector
from ..runtime.policy import AlternatePolicy, AlwaysReadPolicy, Policy, ThresholdPolicy
from ..runtime.settings import DetectorSettings
from ..training.config import Recipe, RecipeError
from ..training.loader import load_sources, Sources
from ..training.tracks import track_boxes
from ..training.trainer import Trainer

log = logging.getLogger(__name__)

BASELINE = 'baseline'

ALWAYS = 'always_read'


@dataclass(frozen=True)
class Row:
    """One network of the comparison."""

    name: str
    variant: str
    forecast_mode: str | None = None
    """None takes the recipe's."""


ROWS = (
    Row(BASELINE, 'baseline'),
    Row('complete', 'complete'),
    Row('without_forecast', 'without_forecast'),
    Row('without_combination', 'without_combination'),
    Row('persistence', 'persistence'),
    Row('complete, other forecast mode', 'complete', 'other'),
)
"""The rows of Table 2, persistence, and the complete network with the other `forecast_mode`."""

ALTERNATIONS = (1, 2, 3)
"""Forecasts behind each read that are measured on every row that can forecast."""

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the sweep, besides `always_read`."""


@dataclass(frozen=True)
class Plan:
    """What to train, and what to measure it on."""

    recipe: Recipe
    """Its stages: first the baseline's, then those of the encoders; those that train the
    scheduler alone serve the sweep."""

    data: Path
    """Folder that the recipe's paths start from."""

    output: Path
    footage: Sequence[Footage]
    """Held out from training."""

    imagenet: dict[str, torch.Tensor] | None = None
    rows: Sequence[Row] = ROWS


def check_plan(plan: Plan) -> None:
    """
    Refuse a plan that cannot be carried out, or that measures what it trained on.

    Raises
    ------
    EvaluationError
        If the recipe's stages are others than `Plan` says.

    """
    stages = plan.recipe.stages
    if len(stages) < 2 or stages[0].variant != 'baseline' or any(
            stage.variant == 'baseline' for stage in stages[1:]):
        raise EvaluationError(f'recipe {plan.recipe.name}: must have a stage of the variant '
                              'baseline first, then stages with encoders')


def number_tracks(item: Footage) -> Footage:
    """Give the objects of a sequence numbers by their overlap, if its boxes have no tracks."""
    table = item.truth
    if len(table) and (table.tracks < 0).all():
        rows = [np.flatnonzero(table.frames == frame) for frame in range(len(item.frames))]
        found = track_boxes([(table.boxes[r], table.labels[r]) for r in rows])
        tracks = np.empty(len(table), np.int64)
        for r, numbers in zip(rows, found):
            tracks[r] = numbers
        table = replace(table, tracks=tracks)
    return replace(item, truth=table, labelled=table)


def reproduce(plan: Plan, seeds: Sequence[int]) -> dict[str, Any]:
    """
    Train and measure every row with every seed.

    Returns
    -------
    dict
        ``results[seed][row][policy]``: `ap50`, `slow`, `medium`, `fast` (fractions, None where
        there is no such box), `read_ratio`; and what was measured on.

    Raises
    ------
    EvaluationError, RecipeError, DataError
        With a message of one line.

    """
    check_plan(plan)
    sources = load_sources(plan.recipe, plan.data)
    _check_held_out(sources, plan.footage)
    results: dict[str, Any] = {}
    for seed in seeds:
        recipe = replace(plan.recipe, seed=seed)
        folder = plan.output / f'seed_{seed}'
        baseline = _train(recipe, recipe.stages[:1], sources, folder / BASELINE, plan.imagenet,
                          None)
        results[str(seed)] = {}
        for row in plan.rows:
            checkpoint, sweep = baseline, False
            if row.name != BASELINE:
                checkpoint, sweep = _train_row(recipe, row, sources, folder, baseline)
            results[str(seed)][row.name] = _measure(checkpoint, plan.footage, row, sweep)
            log.info('seed %d, %s: %s', seed, row.name, results[str(seed)][row.name][ALWAYS])
    groups = _motion(plan.footage)
    return {'recipe': plan.recipe.name, 'seeds': list(seeds),
            'sequences': [item.name for item in plan.footage],
            'frames': sum(len(item.frames) for item in plan.footage),
            'boxes': int(len(groups)), 'results': results}


def _check_held_out(sources: Sources, footage: Sequence[Footage]) -> None:
    trained = {frame.path.resolve() for record in (*sources.videos, *sources.stills)
               for frame in record.frames}
    for item in footage:
        if any(frame.path.resolve() in trained for frame in item.frames):
            raise EvaluationError(f'sequence {item.name} is trained on; name it under exclude in '
                                  "the recipe's sources, or measure other sequences")


def _train_row(recipe: Recipe, row: Row, sources: Sources, folder: Path, baseline: Path
               ) -> tuple[Path, bool]:
    """Train a row from the baseline; tell also whether its scheduler was trained."""
    mode = row.forecast_mode
    if mode == 'other':
        mode = {'residual': 'direct', 'direct': 'residual'}[recipe.network_config().forecast_mode]
    network = recipe.network if mode is None else {**recipe.network, 'forecast_mode': mode}
    with_scheduler = row.variant == 'complete' and mode is None
    stages = []
    for stage in recipe.stages[1:]:
        if set(stage.groups) == {'scheduler'} and not with_scheduler:
            continue
        gamma = 0.0 if row.variant == 'without_forecast' else stage.loss.gamma
        stages.append(replace(stage, variant=row.variant, loss=replace(stage.loss, gamma=gamma)))
    own = replace(recipe, network=network, stages=tuple(stages))
    name = row.name.replace(', ', '_').replace(' ', '_')
    return _train(own, own.stages, sources, folder / name, None, baseline), with_scheduler


def _train(recipe: Recipe, stages: Sequence[Any], sources: Sources, output: Path,
           imagenet: dict[str, torch.Tensor] | None, start: Path | None) -> Path:
    checkpoint = output / f'{stages[-1].name}.safetensors'
    if checkpoint.exists():
        return checkpoint
    weights = None
    if start is not None:
        weights = {key: value.float() if value.is_floating_point() else value
                   for key, value in load_file(start).items()}
    recipe = replace(recipe, stages=tuple(stages))
    log.info('training %s', output)
    Trainer(recipe, sources, output, imagenet, weights).run()
    if not checkpoint.exists():
        raise RecipeError(f'{output}: training left no {checkpoint.name}')
    return checkpoint


def _policies(row: Row, sweep: bool) -> list[Policy]:
    policies: list[Policy] = [AlwaysReadPolicy()]
    if row.name != BASELINE:
        policies += [AlternatePolicy(count) for count in ALTERNATIONS]
    if sweep:
        policies += [ThresholdPolicy(value) for value in THRESHOLDS]
    return policies


def _measure(checkpoint: Path, footage: Sequence[Footage], row: Row, sweep: bool
             ) -> dict[str, dict[str, float | None]]:
    path = checkpoint.with_suffix('.results.json')
    if path.exists():
        return json.loads(path.read_text(encoding='utf-8'))
    detector = Detector.load(checkpoint)
    result = {}
    for policy in _policies(row, sweep):
        # As many forecasts in a row as the longest fixed rule has, so that the rules are alike.
        settings = DetectorSettings(policy=policy, max_consecutive_forecasts=max(ALTERNATIONS))
        runs = [run_footage(detector, item, settings, collect=True) for item in footage]
        result[str(policy)] = _score(footage, runs)
    write_atomically(path, json.dumps(result, indent=2).encode())
    return result


def _motion(footage: Sequence[Footage]) -> np.ndarray:
    return np.concatenate([motion_iou(item.truth) for item in footage])


def _score(footage: Sequence[Footage], runs: Sequence[FootageRun]) -> dict[str, float | None]:
    truths, detections, start = [], [], 0
    for item, run in zip(footage, runs):
        assert run.collected is not None
        truths.append(item.truth.shift(start))
        detections.append(run.collected.shift(start))
        start += len(item.frames)
    ap = vid_average_precision(DetectionTable.join(detections), TruthTable.join(truths), PLAIN,
                               _motion(footage))
    values = {'ap50': ap.whole.mean, **{name: group.mean for name, group in ap.groups.items()},
              'read_ratio': float(np.concatenate([run.read for run in runs]).mean())}
    return {key: None if np.isnan(value) else round(float(value), 4)
            for key, value in values.items()}
