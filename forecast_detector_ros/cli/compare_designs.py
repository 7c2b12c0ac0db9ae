# SPDX-License-Identifier: Apache-2.0
"""Compare shapes of the network: train them alike, and measure accuracy and time."""

import argparse
from pathlib import Path
import sys

import torch

from .inputs import add_backbone, add_held_out, add_training, load_held_out
from .options import positive
from .results import machine, versions
from .shell import command_line, print_result, run_verb, show_progress, verb_parser
from ..detector.host import keep_large_blocks
from ..experiments.designs import (
    compare_designs,
    describe_designs,
    design_rows,
    DesignPlan,
    load_designs,
)
from ..files import write_atomically, write_json
from ..layout import markdown
from ..training.config import load_recipe
from ..training.trainer import load_backbone, TrainingDivergedError

VERB = 'compare designs'


def make_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    result = verb_parser(
        VERB, 'RECIPE DESIGNS --data FOLDER --output FOLDER --annotations FILE --images FOLDER '
        '--sequences NAME...', __doc__)
    add_training(result, 'YAML file; its first stage, of the variant baseline, trains every '
                 'design', 'checkpoints, designs.json and designs.md')
    result.add_argument('designs', type=Path, metavar='DESIGNS',
                        help='YAML file: names, and keys in which each differs from the recipe')
    add_backbone(result)
    add_held_out(result)
    result.add_argument('--rounds', type=positive, default=100, metavar='N',
                        help='runs of each step when they are timed (default %(default)s)')
    result.add_argument('--timings-only', action='store_true',
                        help='only time the steps anew, in a folder where all else is finished')
    return result


def main(args: list[str] | None = None) -> int:
    """Run the verb; its exit code is 1 if a training diverged."""
    given = list(sys.argv[1:] if args is None else args)
    options = make_parser().parse_args(given)
    options.command = command_line(VERB, given)
    return run_verb(VERB, options, _compare, failures=(TrainingDivergedError,),
                    interrupted='interrupted; run the same command again to go on')


def _compare(options: argparse.Namespace) -> None:
    keep_large_blocks()
    recipe = load_recipe(options.recipe)
    torch.set_num_threads(recipe.threads)
    designs = load_designs(options.designs, recipe)
    imagenet = load_backbone(options.backbone) if options.backbone else None
    plan = DesignPlan(recipe, designs, options.data, options.output,
                      load_held_out(options, recipe.classes), imagenet, options.rounds)
    with show_progress('rounds') as show:
        report = compare_designs(plan, options.timings_only, show)
    about = {'command': options.command, 'machine': machine(), 'versions': versions('openvino')}
    result = {**about, **report}
    text = f'{describe_designs(report)}\n\n{markdown(design_rows(report))}'
    write_json(options.output / 'designs.json', result, indent=2, nan=True)
    write_atomically(options.output / 'designs.md', f'{text}\n'.encode())
    print_result(options, result, text)
