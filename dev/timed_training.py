# SPDX-License-Identifier: Apache-2.0
"""
Train a recipe for a given time on a machine that is lent for minutes.

``python -m dev.timed_training RECIPE --data DATA --output DIR --seconds N [--stage NAME]
[--backbone FILE] [--start CHECKPOINT]`` measures how many clips a second the machine makes, sets
the epochs of one stage so that it ends in time, writes the recipe that results to DIR/recipe.yaml,
and trains. The same recipe gives the same weights again with `train`.
"""

import argparse
from dataclasses import replace
import logging
from pathlib import Path
import sys
from time import monotonic

from forecast_detector_ros.training.config import load_recipe, Recipe
from forecast_detector_ros.training.distributed import join_processes
from forecast_detector_ros.training.loader import load_sources, Sources
from forecast_detector_ros.training.trainer import Trainer
from safetensors.torch import load_file
import torch
import yaml

log = logging.getLogger('timed_training')


def main() -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(prog='timed_training', description=__doc__)
    parser.add_argument('recipe', type=Path)
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--seconds', type=float, required=True, help='of training, all in all')
    parser.add_argument('--stage', help='default: the first')
    parser.add_argument('--backbone', type=Path)
    parser.add_argument('--start', type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    begin = monotonic()
    torch.backends.cudnn.benchmark = True
    recipe = load_recipe(options.recipe)
    stages = [stage for stage in recipe.stages
              if options.stage in (None, stage.name)][:1]
    recipe = replace(recipe, stages=tuple(stages))
    sources = load_sources(recipe, options.data)
    backbone = {key: value for key, value in load_file(options.backbone).items()
                if key.startswith('features.')} if options.backbone else None
    start = load_file(options.start) if options.start else None
    rate = _rate(recipe, sources, options.output / 'rate', backbone, start)
    left = options.seconds - (monotonic() - begin)
    stage = stages[0]
    epochs = max(1, int(rate * left / stage.clips_per_epoch))
    log.info('%.0f clips a second: %d epochs of %d clips in %.0f s', rate, epochs,
             stage.clips_per_epoch, left)
    values = yaml.safe_load(options.recipe.read_text())
    values['stages'] = [{**values_of, 'epochs': epochs} for values_of in values['stages']
                        if values_of['name'] == stage.name]
    (options.output / 'recipe.yaml').write_text(yaml.safe_dump(values, sort_keys=False))
    recipe = replace(recipe, stages=(replace(stage, epochs=epochs),))
    Trainer(recipe, sources, options.output, backbone, start, join_processes(recipe.device)).run(
        resume=False, snapshot_every=1e9, log_every=50)
    log.info('done after %.0f s', monotonic() - begin)
    return 0


def _rate(recipe: Recipe, sources: Sources, output: Path,
          backbone: dict[str, torch.Tensor] | None, start: dict[str, torch.Tensor] | None
          ) -> float:
    """Measure clips a second, once the device is warm."""
    stage = recipe.stages[0]
    seconds = []
    for iterations in (20, 20, 80):
        short = replace(stage, epochs=1, clips_per_epoch=iterations * stage.batch)
        begin = monotonic()
        Trainer(replace(recipe, stages=(short,)), sources, output, backbone, start,
                join_processes(recipe.device)).run(resume=False, snapshot_every=1e9)
        seconds.append(monotonic() - begin)
    return 60 * stage.batch / (seconds[2] - seconds[1])


if __name__ == '__main__':
    sys.exit(main())
