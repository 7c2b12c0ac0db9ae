# SPDX-License-Identifier: Apache-2.0
"""
Train a recipe for a given time, on a machine that is available only for minutes.

``python -m dev.timed_training RECIPE --data DATA --output DIR --seconds STAGE=N ...
[--backbone FILE] [--start CHECKPOINT]`` trains the stages one after the other. For each stage it
measures the clips per second, and sets the epochs so that the stage ends in time. DIR/recipe.yaml
is the resulting recipe; `train` makes the same weights of it.
"""

import argparse
from dataclasses import replace
import logging
from pathlib import Path
import sys
from time import monotonic

from forecast_detector_ros.training.config import load_recipe, Recipe
from forecast_detector_ros.training.loader import load_sources, Sources
from forecast_detector_ros.training.machine import join_processes
from forecast_detector_ros.training.trainer import load_backbone, load_start, Trainer
import torch
import yaml

log = logging.getLogger('timed_training')


def main() -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(prog='timed_training', description=__doc__)
    parser.add_argument('recipe', type=Path)
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--seconds', type=stage_seconds, nargs='+', required=True,
                        metavar='STAGE=N')
    parser.add_argument('--backbone', type=Path)
    parser.add_argument('--start', type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    seconds = dict(options.seconds)
    recipe = load_recipe(options.recipe)
    names = [stage.name for stage in recipe.stages]
    if unknown := seconds.keys() - names:
        parser.error(f'{options.recipe} has no stage {", ".join(unknown)}, but {", ".join(names)}')
    sources = load_sources(recipe, options.data)
    backbone = load_backbone(options.backbone) if options.backbone else None
    start = load_start(options.start, recipe) if options.start else None
    values = yaml.safe_load(options.recipe.read_text())
    values['stages'] = [stage for stage in values['stages'] if stage['name'] in seconds]
    for number, stage in enumerate(stage for stage in recipe.stages if stage.name in seconds):
        begin = monotonic()
        one = replace(recipe, stages=(stage,))
        rate = _rate(one, sources, options.output / 'rate', backbone, start)
        left = seconds[stage.name] - (monotonic() - begin)
        epochs = max(1, int(rate * left / stage.clips_per_epoch))
        log.info('%s: %.0f clips a second: %d epochs of %d clips in %.0f s', stage.name, rate,
                 epochs, stage.clips_per_epoch, left)
        values['stages'][number]['epochs'] = epochs
        (options.output / 'recipe.yaml').write_text(yaml.safe_dump(values, sort_keys=False))
        trainer = Trainer(replace(recipe, stages=(replace(stage, epochs=epochs),)), sources,
                          options.output, backbone, start, join_processes(recipe.device))
        trainer.run(resume=False, snapshot_every=1e9, log_every=50)
        start = trainer.weights
        log.info('%s: done after %.0f s', stage.name, monotonic() - begin)
    return 0


def stage_seconds(text: str) -> tuple[str, float]:
    """Read ``STAGE=N``."""
    name, _, value = text.partition('=')
    return name, float(value)


def _rate(recipe: Recipe, sources: Sources, output: Path,
          backbone: dict[str, torch.Tensor] | None, start: dict[str, torch.Tensor] | None
          ) -> float:
    """Return the clips per second after a warm-up."""
    stage = recipe.stages[0]
    seconds = []
    for iterations in (10, 10, 40):
        short = replace(stage, epochs=1, clips_per_epoch=iterations * stage.batch)
        begin = monotonic()
        Trainer(replace(recipe, stages=(short,)), sources, output, backbone, start,
                join_processes(recipe.device)).run(resume=False, snapshot_every=1e9)
        seconds.append(monotonic() - begin)
    return 30 * stage.batch / (seconds[2] - seconds[1])


if __name__ == '__main__':
    sys.exit(main())
