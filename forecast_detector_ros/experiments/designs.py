# SPDX-License-Identifier: Apache-2.0
"""
Compare the accuracy of network shapes, and the time of their two steps.

Every design is trained in the same way as a single-frame detector, and measured with every frame
read. Then the steps of all designs, with encoders, are timed in turns.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
import json
import logging
from pathlib import Path
import re
from typing import Any

import cv2
import torch

from .reproduction import claim, read_figures, train, video_values
from ..benchmark.steps import backend_contenders, backend_of, Build
from ..benchmark.timing import time_in_turns
from ..detector.backends.registry import AUTO, choose_backend
from ..detector.checkpoint import load_checkpoint
from ..detector.policy import AlwaysReadPolicy
from ..detector.settings import DetectorSettings
from ..evaluation.policy_sweep import check_held_out, join_runs, run_policies
from ..evaluation.sequences import EvaluationError, picture, Video
from ..files import write_atomically
from ..layout import mean, plain
from ..metrics.average_precision import average_precision
from ..metrics.tables import recall
from ..model.config import ConfigError, NetworkConfig
from ..training.config import Recipe
from ..training.loader import load_sources
from ..training.recipe_file import read_yaml, RecipeError
from ..training.stage_run import build_network

log = logging.getLogger(__name__)

BASELINE, COMPLETE = 'baseline', 'complete'  #: The trained and the timed variant
#: Score threshold of recall: that of the shown detections.
SCORE = 0.3
#: Width of the backbone for which there are ImageNet weights (`training/trainer.py`).
IMAGENET_WIDTH = 1.0
ACCURACY = 'accuracy.json'  #: Recall and AP50 of a training, in its folder
STATE_PICTURES = 4  #: Consecutive frames after which a state is typical
#: Start of a width without ImageNet weights, if other designs have them.
NO_WEIGHTS = 'none'
_OWN = ('classes', 'variant')
#: Keys that a baseline does not use; `plan.json` has them for compatibility with older versions.
_CLAIMED = ('motion_channels', 'motion_from_boxes', 'scheduler_norm')
_NAME = re.compile(r'\w[\w.-]*')


@dataclass(frozen=True)
class Design:
    """A possible shape of the network."""

    name: str  #: Also the name of its folder
    #: Keys of the network that differ from the recipe's.
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DesignPlan:
    """The training, and the test data."""

    recipe: Recipe  #: Its first stage, of the variant baseline, trains every design
    designs: Sequence[Design]
    data: Path  #: Folder that the recipe's paths start from
    output: Path
    videos: Sequence[Video]  #: Held out from training
    imagenet: dict[str, torch.Tensor] | None = None
    rounds: int = 100  #: Runs of each step


@dataclass(frozen=True)
class DesignTraining:
    """A training of one design, or of several that differ only in encoders and scheduler."""

    name: str  #: Name of the first of its designs, and of its folder
    recipe: Recipe
    #: `imagenet`; `random`, if no weights were given; or `NO_WEIGHTS`, if it is not trained.
    start: str


def load_designs(path: Path, recipe: Recipe) -> list[Design]:
    """
    Read a mapping from names to keys of the network.

    :raises RecipeError: if the file cannot be read, a name is no valid folder name, a key is
        unknown or not permitted, or a network is impossible. The message names file, design and
        key.
    """
    values = read_yaml(path)
    if not isinstance(values, dict) or not values:
        raise RecipeError(f'{path}: must be a mapping from names of designs to keys of the '
                          'network')
    designs = []
    for name, overrides in values.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RecipeError(f'{path}: design {name!r} must have a name of letters, digits, '
                              '"_", "." and "-"')
        if not isinstance(overrides, dict):
            raise RecipeError(f'{path}: design {name} must be a mapping, {{}} for no difference')
        for key in _OWN:
            if key in overrides:
                raise RecipeError(f'{path}: design {name}: {key} is the same for all designs')
        design = Design(name, overrides)
        try:
            design_recipe(recipe, design).network_config()
        except ConfigError as error:
            raise RecipeError(f'{path}: design {name}: {error}') from None
        designs.append(design)
    return designs


def design_recipe(recipe: Recipe, design: Design) -> Recipe:
    """Return the recipe with a design's network and only its first stage."""
    return replace(recipe, network={**recipe.network, **design.overrides},
                   stages=recipe.stages[:1])


def trained_shape(config: NetworkConfig) -> NetworkConfig:
    """Return the part of a shape that a baseline trains; equal parts need only one training."""
    usual = NetworkConfig()
    unused = {key: getattr(usual, key) for key in (
        'forecast_mode', 'scheduler_reference', 'scheduler_channels', 'state_update', *_CLAIMED)}
    return replace(config, variant=BASELINE, lstm_channels=config.feature_channels, **unused)


def design_trainings(plan: DesignPlan) -> dict[str, DesignTraining]:
    """
    Return the training of each design, by its name.

    Only one width has ImageNet weights. A backbone of another width would start at random and not
    be comparable, so it is only timed. If no weights are given, all start at random, and no block
    or BatchNorm is frozen, because frozen ones would keep random features.
    """
    found: dict[NetworkConfig, DesignTraining] = {}
    result = {}
    for design in plan.designs:
        recipe = design_recipe(plan.recipe, design)
        config = recipe.network_config()
        start = 'imagenet' if config.width == IMAGENET_WIDTH else NO_WEIGHTS
        if plan.imagenet is None:
            start = 'random'
            recipe = replace(recipe, stages=(
                replace(recipe.stages[0], frozen_blocks=0, freeze_bn='none'),))
        result[design.name] = found.setdefault(
            trained_shape(config), DesignTraining(design.name, recipe, start))
    return result


def compare_designs(plan: DesignPlan, timings_only: bool = False,
                    progress: Callable[[int, int], object] = lambda *_: None) -> dict[str, Any]:
    """
    Train and measure all designs, then time their steps.

    Finished trainings and their accuracy in the output folder are used again; the times are new.

    :param timings_only: whether everything else must be finished already
    :param progress: called with the number of finished rounds of timing, and of all rounds
    :returns: plain values: data and settings, and ``designs``, a list with `name`, `overrides`,
        `trained_as`, `start`, `recall` and `ap50` (fractions, None without boxes). `read` and
        `forecast` have fields of `Timing`.
    :raises EvaluationError, RecipeError, DataError, RuntimeConfigError: with a message of one line
    """
    stage = plan.recipe.stages[0]
    if stage.variant != BASELINE:
        raise EvaluationError(f'recipe {plan.recipe.name}: its first stage is of the variant '
                              f'{stage.variant}, must be of {BASELINE}')
    todo = design_trainings(plan)
    trained = [item for item in todo.values() if item.start != NO_WEIGHTS]
    if timings_only:
        for item in trained:
            if not (plan.output / item.name / ACCURACY).exists():
                raise EvaluationError(f'{plan.output}: {item.name} is not finished; run the '
                                      'command without --timings-only first')
        _claim(plan, trained)
    else:
        sources = load_sources(plan.recipe, plan.data)
        check_held_out(sources, plan.videos)
        _claim(plan, trained)
        for item in trained:
            folder = plan.output / item.name
            checkpoint = train(item.recipe, sources, folder, plan.imagenet)
            if not (folder / ACCURACY).exists():
                found = measure_design(checkpoint, plan.videos, plan.recipe.threads)
                write_atomically(folder / ACCURACY, json.dumps(found).encode())
                log.info('%s: %s', item.name, found)
    return {
        'recipe': plan.recipe.name, 'seed': plan.recipe.seed,
        'iterations': stage.epochs * stage.clips_per_epoch // stage.batch, 'batch': stage.batch,
        'sequences': [item.name for item in plan.videos],
        'frames': sum(len(item.frames) for item in plan.videos),
        'boxes': sum(len(item.truth) for item in plan.videos),
        'backend': choose_backend(AUTO, 'cpu', 'fp32'), 'rounds': plan.rounds,
        'designs': _rows(plan, todo, progress)}


def _claim(plan: DesignPlan, trained: Sequence[DesignTraining]) -> None:
    videos = video_values(plan.videos)
    claim(plan.output, {'recipe': asdict(plan.recipe), 'video': videos})
    for item in trained:
        # The trained shape, independent of a later change of its preset or of its LSTMs.
        config = item.recipe.network_config()
        shape = trained_shape(config).to_dict() | {key: getattr(config, key) for key in _CLAIMED}
        claim(plan.output / item.name,
              {'stages': asdict(item.recipe)['stages'], 'shape': shape, 'start': item.start},
              'another shape or start')


def measure_design(checkpoint: Path, videos: Sequence[Video], threads: int
                   ) -> dict[str, float | None]:
    """
    Measure a network with every frame read.

    :returns: fractions, None without boxes: `recall`, at `SCORE` and an IoU of 0.5, the mean over
        the sequences; `ap50`, plain, the mean over the classes
    """
    torch.set_num_threads(threads)
    network, card = load_checkpoint(checkpoint)
    policy = AlwaysReadPolicy()
    runs = run_policies(network, card, videos, DetectorSettings(score_threshold=SCORE),
                        [policy])[str(policy)]
    shown = [run.collected.select(run.collected.scores > SCORE) for run in runs]
    return {'recall': mean([recall(found, item.truth) for found, item in zip(shown, videos)]),
            'ap50': plain(average_precision(*join_runs(videos, runs)).mean)}


def _rows(plan: DesignPlan, todo: dict[str, DesignTraining],
          progress: Callable[[int, int], object]) -> list[dict[str, Any]]:
    """Time all designs together, and return the results of each as a row."""
    build = Build(choose_backend(AUTO, 'cpu', 'fp32'))
    pictures = [cv2.cvtColor(picture(frame).array, cv2.COLOR_RGB2BGR)
                for frame in plan.videos[0].frames[:STATE_PICTURES]]
    contenders = []
    figures: list[dict[str, Any]] = []
    for design in plan.designs:
        training = todo[design.name]
        weights = None
        figures.append({'recall': None, 'ap50': None})
        if training.start != NO_WEIGHTS:
            figures[-1] = read_figures(plan.output / training.name / ACCURACY, tuple(figures[-1]))
            stage = training.recipe.stages[0].name
            baseline, _ = load_checkpoint(plan.output / training.name / f'{stage}.safetensors')
            weights = baseline.state_dict()
        config = design_recipe(plan.recipe, design).network_config()
        network = build_network(replace(config, variant=COMPLETE), plan.recipe.seed, weights)
        contenders += backend_contenders(backend_of(network.eval(), build), network.config, build,
                                         pictures, label=design.name)
    timings = time_in_turns(contenders, plan.rounds,
                            progress=lambda done: progress(done, plan.rounds))
    rows = []
    for number, design in enumerate(plan.designs):
        training = todo[design.name]
        read, forecast = timings[2 * number:2 * number + 2]
        rows.append({'name': design.name, 'overrides': design.overrides,
                     'trained_as': training.name, 'start': training.start, **figures[number],
                     'read': asdict(read), 'forecast': asdict(forecast)})
    return rows


HEAD = ('design', 'start', 'read ms', 'forecast ms', 'read MMAC', 'forecast MMAC', 'recall',
        'AP50')


def design_rows(report: dict[str, Any]) -> list[list[str]]:
    """Return the table of a report of `compare_designs`; recall and AP50 in points."""
    def points(value: float | None) -> str:
        return '-' if value is None else f'{100 * value:.1f}'

    rows = [list(HEAD)]
    for row in report['designs']:
        read, forecast = row['read'], row['forecast']
        rows.append([row['name'], row['start'], f'{read["median_ms"]:.2f}',
                     f'{forecast["median_ms"]:.2f}', f'{read["macs"] / 1e6:.0f}',
                     f'{forecast["macs"] / 1e6:.0f}', points(row['recall']),
                     points(row['ap50'])])
    return rows


def describe_designs(report: dict[str, Any]) -> str:
    """Return a paragraph that describes the table of a report."""
    return (
        f'Recall (IoU 0.5, score {SCORE:g}, mean over sequences) and AP50 in points: of single '
        f'frames, without encoders, after {report["iterations"]} iterations of '
        f'{report["batch"]} pictures with one seed, on {len(report["sequences"])} held-out '
        f'sequences ({report["frames"]} frames, {report["boxes"]} boxes). Widths without '
        'ImageNet weights are timed alone. Milliseconds: of the complete '
        f'network, {report["backend"]} fp32, one thread, batch 1; medians of '
        f'{report["rounds"]} rounds in which all take turns.')
