# SPDX-License-Identifier: Apache-2.0
"""Train and measure the paper's variants on held-out video."""

import argparse
from dataclasses import asdict

import torch

from .inputs import add_backbone, add_held_out, add_training, load_held_out
from .options import whole
from .shell import print_result, run_verb, tell_written, verb_parser
from ..detector.host import keep_large_blocks
from ..experiments.reproduction import (
    DEFAULT_ROWS,
    estimate,
    estimate_table,
    number_tracks,
    Plan,
    reproduce,
    ROWS,
)
from ..experiments.reproduction_tables import reproduction_markdown
from ..files import write_atomically, write_json
from ..layout import table
from ..training.config import load_recipe
from ..training.trainer import load_backbone, TrainingDivergedError

VERB = 'reproduce'


def make_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    result = verb_parser(VERB, 'RECIPE --data FOLDER --output FOLDER --annotations FILE --images '
                         'FOLDER --sequences NAME...', __doc__)
    add_training(result, 'YAML file: a stage of the variant baseline, then the others',
                 'checkpoints, results.json and results.md')
    add_backbone(result)
    add_held_out(result)
    result.add_argument('--seeds', type=whole, nargs='+', default=[0, 1, 2], metavar='N',
                        help='seeds of the trainings (default 0 1 2)')
    result.add_argument('--rows', nargs='+', default=list(DEFAULT_ROWS), metavar='ROW',
                        choices=[row.name for row in ROWS],
                        help='networks to compare: ' + '; '.join(row.name for row in ROWS)
                        + ' (default: all but the last)')
    result.add_argument('--estimate', action='store_true',
                        help='only time a few iterations of each stage, and estimate the whole '
                        'time on this machine')
    return result


def main(args: list[str] | None = None) -> int:
    """Run the verb; its exit code is 1 if a training diverged."""
    return run_verb(VERB, make_parser().parse_args(args), _reproduce,
                    failures=(TrainingDivergedError,),
                    interrupted='interrupted; the same command continues the run')


def _reproduce(options: argparse.Namespace) -> None:
    keep_large_blocks()
    recipe = load_recipe(options.recipe)
    torch.set_num_threads(recipe.threads)
    videos = load_held_out(options, recipe.classes)
    imagenet = load_backbone(options.backbone) if options.backbone else None
    plan = Plan(recipe, options.data, options.output, [number_tracks(item) for item in videos],
                options.seeds, imagenet, options.rows)
    if options.estimate:
        parts = estimate(plan)
        head, *rows = estimate_table(parts, len(plan.seeds))
        print_result(options, [asdict(part) for part in parts], table(head, rows))
        return
    report, text = {}, ''
    # Write after every seed, so that an interrupted run leaves tables of the finished seeds.
    for report in reproduce(plan):
        write_json(options.output / 'results.json', report, indent=2, nan=True)
        text = reproduction_markdown(report)
        write_atomically(options.output / 'results.md', text.encode())
    print_result(options, report, tell_written(text.rstrip(), options.output / 'results.json',
                                               'results.md'))
