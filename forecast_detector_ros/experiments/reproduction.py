# SPDX-License-Identifier: Apache-2.0
"""
The paper's comparisons on other data: Table 2, fixed rules, and the sweep of Fig. 5.

For every seed one baseline is trained. Every row starts from it, and is trained on the same clips
for the same number of iterations. Finished parts in the output folder are kept. A few iterations
of each stage give an estimate of the time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
import json
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from safetensors.torch import load_file
import torch

from ..detector.checkpoint import Card, load_checkpoint
from ..detector.policy import AlternatePolicy, AlwaysReadPolicy, Policy, ThresholdPolicy
from ..detector.settings import DetectorSettings
from ..evaluation.policy_sweep import check_held_out, join_runs, PolicyRun, run_policies
from ..evaluation.sequences import EvaluationError, Video
from ..files import write_atomically
from ..labelling.label_folders import track_boxes
from ..metrics.average_precision import motion_iou, PLAIN, vid_average_precision
from ..model.network import ForecastDetector
from ..plain_values import PlainJsonError, read_plain_json
from ..training.config import Recipe, StageConfig
from ..training.loader import load_sources, Sources
from ..training.recipe_file import RecipeError
from ..training.trainer import Trainer

log = logging.getLogger(__name__)

BASELINE, COMPLETE, OTHER_MODE = 'baseline', 'complete', 'complete, other forecast mode'
ALWAYS = 'always_read'
RESULTS = 'rows.json'  #: Figures of the measured rows of a seed, in the seed's folder
SNAPSHOT_SECONDS = 60.0  #: Seconds between snapshots; the stages are short


@dataclass(frozen=True)
class Row:
    """One network of the comparison."""

    name: str
    variant: str
    other_mode: bool = False  #: Whether it has the other `forecast_mode` than the recipe
    weights_of: str | None = None  #: Row whose weights it uses, if it is not trained itself
    #: Whether the last read feature replaces the forecast on frames that are not read.
    hold: bool = False
    scheduler: bool = False  #: Whether its scheduler is trained, and thresholds are swept


#: The rows of Table 2, the complete network with the other `forecast_mode`, and persistence.
#: `recurrent` is the baseline of the paper's section 3, trained on clips like the rows below it.
#: On frames that are not read, it and `baseline` repeat their boxes. `held_feature` and
#: `persistence` have the weights of `complete`, see `forecast_quality.ROWS`. `persistence,
#: trained` has its own training.
ROWS = (
    Row(BASELINE, 'baseline'),
    Row('recurrent', 'recurrent'),
    Row(COMPLETE, 'complete', scheduler=True),
    Row('without_forecast', 'without_forecast'),
    Row('without_combination', 'without_combination'),
    Row(OTHER_MODE, 'complete', other_mode=True, scheduler=True),
    Row('held_feature', 'complete', weights_of=COMPLETE, hold=True),
    Row('persistence', 'persistence', weights_of=COMPLETE),
    Row('persistence, trained', 'persistence'),
)
DEFAULT_ROWS = tuple(row.name for row in ROWS[:-1])
_OTHER_MODES = {'residual': 'direct', 'direct': 'residual'}
ALTERNATIONS = (1, 2, 3)  #: Forecasts after each read of the fixed rules, for every row
#: Thresholds of the sweep; most are high, because most labels of the scheduler are 1.
THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class Plan:
    """The training, and the test data."""

    #: Its stages: first the baseline's, then those of the encoders. Stages that train only the
    #: scheduler are for the sweep.
    recipe: Recipe
    data: Path  #: Folder that the recipe's paths start from
    output: Path
    videos: Sequence[Video]  #: Held out from training
    seeds: Sequence[int] = (0, 1, 2)
    imagenet: dict[str, torch.Tensor] | None = None
    #: Names of `ROWS`; `BASELINE` is always added.
    rows: Sequence[str] = DEFAULT_ROWS

    def chosen(self) -> list[Row]:
        """Return the rows; a row comes after the row whose weights it uses."""
        return [row for row in ROWS if row.name in (BASELINE, *self.rows)]


@dataclass(frozen=True)
class Training:
    """The training of one row, with one seed."""

    row: str
    recipe: Recipe  #: Has only the stages of this row
    folder: str  #: Relative to the seed's folder


def check_plan(plan: Plan) -> None:
    """
    Refuse an impossible plan.

    :raises EvaluationError: if the stages differ from the description in `Plan`, the network
        forecasts no features, a row is unknown, or a row lacks its stage or its source of weights
    """
    mode = plan.recipe.network_config().forecast_mode
    if mode not in _OTHER_MODES:
        raise EvaluationError(f"recipe {plan.recipe.name}: forecast_mode is '{mode}'; the paper's "
                              f'variants forecast features, so it must be one of '
                              f'{", ".join(_OTHER_MODES)} (as in preset features)')
    stages = plan.recipe.stages
    if len(stages) < 2 or stages[0].variant != 'baseline' or any(
            stage.variant in ('baseline', 'recurrent') for stage in stages[1:]):
        raise EvaluationError(f'recipe {plan.recipe.name}: must have a stage of the variant '
                              'baseline first, then stages with encoders')
    names = [row.name for row in ROWS]
    for name in plan.rows:
        if name not in names:
            raise EvaluationError(f'row {name!r} is unknown, must be of {", ".join(names)}')
    for row in plan.chosen():
        if row.weights_of and row.weights_of not in plan.rows:
            raise EvaluationError(f'row {row.name} uses the weights of {row.weights_of}, which '
                                  'must be among the rows')
    for training in trainings(plan, 0):
        if not training.recipe.stages:
            raise EvaluationError(f'recipe {plan.recipe.name}: has no stage for row '
                                  f'{training.row}, whose scheduler is not trained; add one that '
                                  'trains the encoders')


def number_tracks(item: Video) -> Video:
    """
    Assign tracks to the boxes of a sequence by their overlap, if they have none.

    If there are boxes for average precision, only these are used.
    """
    table = item.truth if item.labelled is None else item.labelled
    if len(table) and (table.tracks < 0).all():
        rows = [np.flatnonzero(table.frames == frame) for frame in range(len(item.frames))]
        found = track_boxes([(table.boxes[r], table.labels[r]) for r in rows])
        tracks = np.empty(len(table), np.int64)
        for r, numbers in zip(rows, found):
            tracks[r] = numbers
        table = replace(table, tracks=tracks)
    return replace(item, truth=table, labelled=table)


def trainings(plan: Plan, seed: int) -> list[Training]:
    """Return the trainings of one seed, the baseline first."""
    recipe = replace(plan.recipe, seed=seed)
    result = []
    for row in plan.chosen():
        if row.weights_of is None:
            own = (replace(recipe, stages=recipe.stages[:1]) if row.name == BASELINE
                   else _recipe_of(recipe, row))
            result.append(Training(row.name, own, row.name.replace(', ', '_').replace(' ', '_')))
    return result


def _recipe_of(recipe: Recipe, row: Row) -> Recipe:
    network = recipe.network
    if row.other_mode:
        mode = _OTHER_MODES[recipe.network_config().forecast_mode]
        network = {**network, 'forecast_mode': mode}
    stages: list[StageConfig] = []
    for stage in recipe.stages[1:]:
        if set(stage.groups) == {'scheduler'} and not row.scheduler:
            continue
        gamma = 0.0 if row.variant == 'without_forecast' else stage.loss.gamma
        stages.append(replace(stage, variant=row.variant, loss=replace(stage.loss, gamma=gamma)))
    return replace(recipe, network=network, stages=tuple(stages))


def policies_of(row: Row) -> list[Policy]:
    """Return the policies of a row."""
    policies: list[Policy] = [AlwaysReadPolicy(), *map(AlternatePolicy, ALTERNATIONS)]
    return policies + [ThresholdPolicy(value) for value in THRESHOLDS if row.scheduler]


def reproduce(plan: Plan) -> Iterator[dict[str, Any]]:
    """
    Train and measure every row with every seed.

    :yields: after every seed, the results so far: ``results[seed][row][policy]`` with `ap50`,
        `slow`, `medium`, `fast` (fractions, None without such boxes) and `read_ratio`; and a
        description of the test data
    :raises EvaluationError, RecipeError, DataError: with a message of one line
    """
    check_plan(plan)
    sources = load_sources(plan.recipe, plan.data)
    check_held_out(sources, plan.videos)
    # Checks come before `claim`, so that the folder is free for a corrected recipe.
    claim(plan.output, {'recipe': asdict(replace(plan.recipe, seed=0)),
                        'video': video_values(plan.videos)})
    motion = np.concatenate([motion_iou(item.truth) for item in plan.videos])
    results: dict[str, Any] = {}
    for seed in plan.seeds:
        results[str(seed)] = _seed(plan, seed, sources, motion)
        yield {'recipe': plan.recipe.name, 'seeds': list(map(int, results)),
               'sequences': [item.name for item in plan.videos],
               'frames': sum(len(item.frames) for item in plan.videos),
               'boxes': len(motion), 'results': results}


def _seed(plan: Plan, seed: int, sources: Sources, motion: np.ndarray) -> dict[str, Any]:
    folder = plan.output / f'seed_{seed}'
    claim(folder / BASELINE, {'start': 'random' if plan.imagenet is None else 'imagenet'},
          'another start')
    path = folder / RESULTS
    known = read_figures(path) if path.exists() else {}
    todo = {item.row: item for item in trainings(plan, seed)}
    checkpoints: dict[str, Path] = {}
    for row in plan.chosen():
        if row.weights_of is None:
            start = checkpoints.get(BASELINE)
            training = todo[row.name]
            checkpoints[row.name] = train(training.recipe, sources, folder / training.folder,
                                          None if start else plan.imagenet, start)
        if row.name not in known:
            known[row.name] = _measure(checkpoints[row.weights_of or row.name], plan.videos, row,
                                       motion, plan.recipe.threads)
            write_atomically(path, json.dumps(known, indent=1).encode())
        log.info('seed %d, %s: %s', seed, row.name, known[row.name][ALWAYS])
    return {row.name: known[row.name] for row in plan.chosen()}


def read_figures(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """
    Read the figures of an earlier run.

    :param keys: required keys
    :raises EvaluationError: if the file has another form, or is damaged
    """
    try:
        values = read_plain_json(path)
    except PlainJsonError as error:
        raise EvaluationError(f'{error}; remove it to measure again') from None
    if not isinstance(values, dict) or not set(keys) <= set(values):
        raise EvaluationError(f'{path}: must be an object{" with " if keys else ""}'
                              f'{" and ".join(keys)}; remove it to measure again')
    return values


def video_values(videos: Sequence[Video]) -> list[list[Any]]:
    """Return plain values that identify videos."""
    return [[item.name, len(item.frames), len(item.truth)] for item in videos]


def claim(folder: Path, values: dict[str, Any],
          other: str = 'another recipe or other sequences') -> None:
    """
    Reserve a folder for the results of one plan.

    :param folder: is made if missing; `plan.json` in it identifies the plan
    :param values: plain values on which the results depend
    :param other: description of the difference to the other plan, for the message
    :raises EvaluationError: if the folder has results of another plan
    """
    data = json.dumps(values, indent=1, sort_keys=True).encode()
    path = folder / 'plan.json'
    if path.exists() and path.read_bytes() != data:
        raise EvaluationError(f'{folder}: holds results of {other}; name another folder')
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)


def train(recipe: Recipe, sources: Sources, output: Path,
          imagenet: dict[str, torch.Tensor] | None, start: Path | None = None) -> Path:
    """
    Train in a folder, or continue there, unless the training is finished.

    :param recipe, sources: the recipe, of which all stages are trained, and its data
    :param imagenet, start: weights of the backbone to start from, or a checkpoint; both None for a
        random start
    :returns: the checkpoint of the last stage
    :raises RecipeError, SnapshotError: with a message of one line
    :raises TrainingDivergedError: if the loss becomes infinite or NaN
    """
    checkpoint = output / f'{recipe.stages[-1].name}.safetensors'
    if checkpoint.exists():
        return checkpoint
    weights = None
    if start is not None:
        weights = {key: value.float() if value.is_floating_point() else value
                   for key, value in load_file(start).items()}
    log.info('training %s', output)
    torch.set_num_threads(recipe.threads)
    Trainer(recipe, sources, output, imagenet, weights).run(snapshot_every=SNAPSHOT_SECONDS)
    if not checkpoint.exists():
        raise RecipeError(f'{output}: training left no {checkpoint.name}')
    return checkpoint


def _measure(checkpoint: Path, videos: Sequence[Video], row: Row, motion: np.ndarray,
             threads: int) -> dict[str, dict[str, float | None]]:
    torch.set_num_threads(threads)
    network, card = load_checkpoint(checkpoint)
    if row.weights_of is not None and row.variant != network.config.variant:
        network = network.with_variant(row.variant)
    # The same limit as that of the longest fixed rule, so that the policies are comparable.
    settings = DetectorSettings(max_consecutive_forecasts=max(ALTERNATIONS))
    runs = run_policies(network, card, videos, settings, policies_of(row), hold=row.hold)
    return {policy: _score(videos, found, motion) for policy, found in runs.items()}


def _score(videos: Sequence[Video], runs: Sequence[PolicyRun], motion: np.ndarray
           ) -> dict[str, float | None]:
    ap = vid_average_precision(*join_runs(videos, runs), PLAIN, motion)
    values = {'ap50': ap.whole.mean, **{name: group.mean for name, group in ap.groups.items()},
              'read_ratio': float(np.concatenate([run.read for run in runs]).mean())}
    return {key: None if np.isnan(value) else round(float(value), 4)
            for key, value in values.items()}


#: Iterations of the short and the long run of each stage; the difference gives their time.
ITERATIONS = (2, 8)
FRAMES = 6  #: Frames of the first sequence, for the time of a measurement


@dataclass(frozen=True)
class WorkPart:
    """The time of one part of the work with one seed."""

    row: str
    what: str
    units: int  #: Iterations, or frames
    seconds: float  #: Time of all units


def estimate(plan: Plan) -> list[WorkPart]:
    """
    Time a few iterations of every stage, and a few frames of every measurement.

    No files are kept. The network has random weights, with which a measurement takes somewhat
    longer than with trained ones.

    :raises EvaluationError, RecipeError, DataError: with a message of one line
    """
    check_plan(plan)
    sources = load_sources(plan.recipe, plan.data)
    check_held_out(sources, plan.videos)
    torch.set_num_threads(plan.recipe.threads)
    parts = []
    for training in trainings(plan, plan.seeds[0]):
        for stage in training.recipe.stages:
            units = stage.epochs * stage.clips_per_epoch // stage.batch
            each = _iteration(training.recipe, stage, sources, plan.imagenet)
            parts.append(WorkPart(training.row, f'stage {stage.name}', units, units * each))
    frames = sum(len(item.frames) for item in plan.videos)
    few = replace(plan.videos[0], frames=plan.videos[0].frames[:FRAMES])
    for row in plan.chosen():
        config = replace(plan.recipe.network_config(), variant=row.variant)
        card = Card('estimate', plan.recipe.classes, config)
        start = perf_counter()
        run_policies(ForecastDetector(config).eval(), card, [few],
                     DetectorSettings(max_consecutive_forecasts=max(ALTERNATIONS)),
                     policies_of(row), hold=row.hold)
        each = (perf_counter() - start) / len(few.frames)
        parts.append(WorkPart(row.name, 'measurement', frames, each * frames))
    return parts


def _iteration(recipe: Recipe, stage: StageConfig, sources: Sources,
               imagenet: dict[str, torch.Tensor] | None) -> float:
    """Time an iteration, with rates so small that random weights cannot diverge."""
    still = {name: replace(group, lr=1e-9) for name, group in stage.groups.items()}
    seconds = []
    for count in ITERATIONS:
        # There are no weights of earlier stages for a mean.
        short = replace(stage, epochs=1, clips_per_epoch=count * stage.batch, groups=still,
                        mean_of={})
        with TemporaryDirectory() as folder:
            start = perf_counter()
            Trainer(replace(recipe, stages=(short,)), sources, Path(folder), imagenet).run()
            seconds.append(perf_counter() - start)
    return max(0.0, seconds[1] - seconds[0]) / (ITERATIONS[1] - ITERATIONS[0])


def estimate_table(parts: Sequence[WorkPart], seeds: int) -> list[list[str]]:
    """Return the time of each part with one seed, and the sum for all seeds, as a table."""
    rows = [['row', 'part', 'units', 's a unit', 'minutes']]
    rows += [[part.row, part.what, str(part.units),
              f'{part.seconds / part.units:.3f}' if part.units else '-',
              f'{part.seconds / 60:.1f}'] for part in parts]
    total = sum(part.seconds for part in parts) / 60
    return [*rows, ['one seed', '', '', '', f'{total:.1f}'],
            [f'{seeds} seeds', '', '', '', f'{total * seeds:.1f}']]
