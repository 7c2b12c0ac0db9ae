# SPDX-License-Identifier: Apache-2.0
"""Compare shapes of the network, accuracy against time: ``compare designs RECIPE DESIGNS ...``."""

import argparse
import json
from pathlib import Path
import sys

import torch

from .held_out import add_held_out, add_training, load_held_out, run_command
from .options import positive
from .progress import show_progress
from .provenance import machine, versions
from .shell import command_line, verb_parser
from ..experiments.designs import as_rows, compare_designs, describe, DesignPlan, load_designs
from ..files import write_atomically
from ..layout import markdown
from ..training.backbone import load_backbone
from ..training.config import load_recipe

VERB = 'compare designs'


def make_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    result = verb_parser(VERB, __doc__)
    add_training(result, 'YAML file; its first stage, of the variant baseline, trains every '
                 'design', 'checkpoints, designs.json and designs.md')
    result.add_argument('designs', type=Path,
                        help='YAML file: names of designs, and the keys of the network in which '
                        'each differs from the recipe')
    add_held_out(result)
    result.add_argument('--rounds', type=positive, default=100, metavar='N',
                        help='runs of each step when they are timed (default %(default)s)')
    result.add_argument('--timings-only', action='store_true',
                        help='only time the steps anew, in a folder where all else is finished')
    return result


def main(args: list[str] | None = None) -> int:
    """Run the command; give the exit code: 0 done, 1 failed, 2 bad input."""
    given = list(sys.argv[1:] if args is None else args)
    options = make_parser().parse_args(given)
    options.command = command_line(VERB, given)
    return run_command(VERB, options, _compare)


def _compare(options: argparse.Namespace) -> str:
    recipe = load_recipe(options.recipe)
    torch.set_num_threads(recipe.threads)
    designs = load_designs(options.designs, recipe)
    imagenet = load_backbone(options.backbone) if options.backbone else None
    plan = DesignPlan(recipe, designs, options.data, options.output,
                      load_held_out(options, recipe), imagenet, options.rounds)
    with show_progress('rounds') as show:
        report = compare_designs(plan, options.timings_only, show)
    about = {'command': options.command, 'machine': machine(), 'versions': versions('openvino')}
    text = f'{describe(report)}\n\n{markdown(as_rows(report))}\n'
    write_atomically(options.output / 'designs.json',
                     (json.dumps({**about, **report}, indent=2) + '\n').encode())
    write_atomically(options.output / 'designs.md', text.encode())
    return text


if __name__ == '__main__':
    sys.exit(main())
