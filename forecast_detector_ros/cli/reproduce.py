# SPDX-License-Identifier: Apache-2.0
"""Train and measure the paper's variants on held-out video: ``reproduce RECIPE ...``."""

import argparse
import json
import sys

import torch

from .held_out import add_held_out, add_training, load_held_out, run_command
from .shell import verb_parser
from ..experiments.reproduction import DEFAULT_ROWS, number_tracks, Plan, reproduce, ROWS
from ..experiments.reproduction_estimate import as_table, estimate
from ..experiments.reproduction_tables import as_markdown
from ..files import write_atomically
from ..layout import table
from ..training.backbone import load_backbone
from ..training.config import load_recipe

VERB = 'reproduce'


def make_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    result = verb_parser(VERB, __doc__)
    add_training(result, 'YAML file: a stage of the variant baseline, then the others',
                 'checkpoints, results.json and results.md')
    add_held_out(result)
    result.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    result.add_argument('--rows', nargs='+', default=list(DEFAULT_ROWS), metavar='ROW',
                        choices=[row.name for row in ROWS],
                        help='networks to compare, of: ' + '; '.join(row.name for row in ROWS)
                        + ' (default: all but the last)')
    result.add_argument('--estimate', action='store_true',
                        help='only time a few iterations of each stage, and say what all will '
                        'take on this machine')
    return result


def main(args: list[str] | None = None) -> int:
    """Run the command; give the exit code: 0 done, 1 failed, 2 bad input."""
    return run_command(VERB, make_parser().parse_args(args), _reproduce)


def _reproduce(options: argparse.Namespace) -> str:
    recipe = load_recipe(options.recipe)
    torch.set_num_threads(recipe.threads)
    footage = load_held_out(options, recipe)
    imagenet = load_backbone(options.backbone) if options.backbone else None
    plan = Plan(recipe, options.data, options.output, [number_tracks(item) for item in footage],
                options.seeds, imagenet, options.rows)
    if options.estimate:
        head, *rows = as_table(estimate(plan), len(plan.seeds))
        return table(head, rows) + '\n'
    text = ''
    # After every seed, so that an interrupted run leaves the tables of the others.
    for report in reproduce(plan):
        write_atomically(options.output / 'results.json',
                         (json.dumps(report, indent=2) + '\n').encode())
        text = as_markdown(report)
        write_atomically(options.output / 'results.md', text.encode())
    return text


if __name__ == '__main__':
    sys.exit(main())
