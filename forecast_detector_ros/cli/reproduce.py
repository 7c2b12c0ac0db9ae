# SPDX-License-Identifier: Apache-2.0
"""Train and measure the paper's variants on held-out video: ``reproduce RECIPE ...``."""

import argparse
import json
import logging
from pathlib import Path
import sys

import torch

from ..data.errors import DataError
from ..evaluation.layout import table
from ..evaluation.reproduction import DEFAULT_ROWS, number_tracks, Plan, reproduce, ROWS
from ..evaluation.reproduction_estimate import as_table, estimate
from ..evaluation.reproduction_tables import as_markdown
from ..evaluation.sequences import EvaluationError, load_annotated, pick
from ..runtime.allocator import keep_large_blocks
from ..runtime.checkpoint import CheckpointError, write_atomically
from ..training.config import load_recipe, RecipeError
from ..training.imagenet import load_imagenet_weights, WeightsError
from ..training.snapshot import SnapshotError
from ..training.trainer import TrainingDivergedError


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    result = argparse.ArgumentParser(prog='reproduce', description=__doc__)
    result.add_argument('recipe', type=Path,
                        help='YAML file: a stage of the variant baseline, then the others')
    result.add_argument('--data', type=Path, required=True,
                        help='folder that the paths in the recipe start from')
    result.add_argument('--output', type=Path, required=True,
                        help='folder for checkpoints, results.json and results.md; what is '
                             'finished in it is not done again')
    result.add_argument('--annotations', type=Path, required=True,
                        help='COCO-video JSON with the held-out sequences')
    result.add_argument('--images', type=Path, required=True,
                        help='folder that its file names start from')
    result.add_argument('--sequences', nargs='+', required=True,
                        help='held-out sequences; the recipe must exclude them')
    result.add_argument('--min-score', type=float, default=0.4,
                        help='boxes of lower score are no objects (default %(default)s)')
    result.add_argument('--ignore-score', type=float, default=0.2,
                        help='of these, ones from this score on are ignore regions '
                             '(default %(default)s)')
    result.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    result.add_argument('--rows', nargs='+', default=list(DEFAULT_ROWS), metavar='ROW',
                        choices=[row.name for row in ROWS],
                        help='networks to compare, of: ' + '; '.join(row.name for row in ROWS)
                        + ' (default: all but the last)')
    result.add_argument('--estimate', action='store_true',
                        help='only time a few iterations of each stage, and say what all will '
                        'take on this machine')
    result.add_argument('--imagenet', type=Path, metavar='FILE',
                        help='ImageNet weights of the backbone, as for train')
    return result


def main(args: list[str] | None = None) -> int:
    """Run the command; give the exit code: 0 done, 1 failed, 2 bad input."""
    options = parser().parse_args(args)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s', stream=sys.stderr)
    keep_large_blocks()
    try:
        recipe = load_recipe(options.recipe)
        torch.set_num_threads(recipe.threads)
        footage = pick(load_annotated(options.annotations, options.images, recipe.classes,
                                      options.min_score, options.ignore_score),
                       options.sequences)
        imagenet = load_imagenet_weights(options.imagenet) if options.imagenet else None
        plan = Plan(recipe, options.data, options.output,
                    [number_tracks(item) for item in footage], options.seeds, imagenet,
                    options.rows)
        if options.estimate:
            head, *rows = as_table(estimate(plan), len(plan.seeds))
            print(table(head, rows))
            return 0
        text = ''
        # After every seed, so that an interrupted run leaves the tables of the others.
        for report in reproduce(plan):
            write_atomically(options.output / 'results.json',
                             (json.dumps(report, indent=2) + '\n').encode())
            text = as_markdown(report)
            write_atomically(options.output / 'results.md', text.encode())
    except (RecipeError, DataError, EvaluationError, WeightsError, SnapshotError,
            CheckpointError) as error:
        print(f'reproduce: {error}', file=sys.stderr)
        return 2
    except OSError as error:
        print(f'reproduce: {options.output}: {error}', file=sys.stderr)
        return 2
    except TrainingDivergedError as error:
        print(f'reproduce: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('reproduce: interrupted; run the same command again to go on', file=sys.stderr)
        return 130
    print(text, end='')
    return 0


if __name__ == '__main__':
    sys.exit(main())
