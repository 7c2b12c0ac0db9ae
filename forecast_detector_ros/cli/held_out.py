# SPDX-License-Identifier: Apache-2.0
"""What the commands share that train from a recipe and measure on held-out sequences."""

import argparse
from collections.abc import Callable
from pathlib import Path

from .shell import run_verb, VerbFailedError
from ..detector.allocator import keep_large_blocks
from ..evaluation.sequences import Footage, load_annotated, pick
from ..training.config import Recipe
from ..training.trainer import TrainingDivergedError


def add_training(parser: argparse.ArgumentParser, recipe: str, leaves: str) -> None:
    """Add the options of a training and its folder; `recipe` and `leaves` say what they hold."""
    parser.add_argument('recipe', type=Path, help=recipe)
    parser.add_argument('--data', type=Path, required=True,
                        help='folder that the paths in the recipe start from')
    parser.add_argument('--output', type=Path, required=True,
                        help=f'folder for {leaves}; what is finished in it is not done again')
    parser.add_argument('--backbone', '--imagenet', type=Path, metavar='FILE',
                        help='weights of the backbone, as for train')


def add_held_out(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_held_out` reads."""
    parser.add_argument('--annotations', type=Path, required=True,
                        help='COCO-video JSON with the held-out sequences')
    parser.add_argument('--images', type=Path, required=True,
                        help='folder that its file names start from')
    parser.add_argument('--sequences', nargs='+', required=True,
                        help='held-out sequences; the recipe must exclude them')
    parser.add_argument('--min-score', type=float, default=0.4,
                        help='boxes of lower score are no objects (default %(default)s)')
    parser.add_argument('--ignore-score', type=float, default=0.2,
                        help='of these, ones from this score on are ignore regions '
                             '(default %(default)s)')


def load_held_out(options: argparse.Namespace, recipe: Recipe) -> list[Footage]:
    """
    Load the sequences that the options name, with the recipe's classes.

    Raises
    ------
    DataError, EvaluationError
        With a message of one line.

    """
    return pick(load_annotated(options.annotations, options.images, recipe.classes,
                               options.min_score, options.ignore_score), options.sequences)


def run_command(verb: str, options: argparse.Namespace,
                work: Callable[[argparse.Namespace], str]) -> int:
    """
    Do the work of a verb and print the text that comes of it.

    Gives the exit code, as `run_verb` does; 1 if a training diverged.
    """
    def train_and_print(options: argparse.Namespace) -> None:
        keep_large_blocks()
        try:
            print(work(options), end='')
        except TrainingDivergedError as error:
            raise VerbFailedError(str(error)) from None

    return run_verb(verb, options, train_and_print,
                    interrupted='interrupted; run the same command again to go on')
