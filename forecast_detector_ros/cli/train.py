# SPDX-License-Identifier: Apache-2.0
"""
Train a detector from a recipe.

Several processes can train together under torchrun; the help shows the command.
"""

import argparse
from contextlib import ExitStack
import logging
from pathlib import Path
import sys

from safetensors import SafetensorError
import torch

from .inputs import add_backbone
from .options import positive, seconds
from .shell import print_result, run_verb, Show, show_progress, verb_parser
from ..clips.dataset import ClipBatch
from ..detector.checkpoint import CheckpointError
from ..detector.host import keep_large_blocks
from ..evaluation.policy_sweep import make_validation
from ..model.network import ForecastDetector
from ..training.config import load_recipe
from ..training.loader import load_sources
from ..training.machine import join_processes, leave_processes, Processes
from ..training.run_log import Observer, TensorBoardLog
from ..training.trainer import load_backbone, load_start, Trainer, TrainingDivergedError

VERB = 'train'

TENSORBOARD = 'tensorboard'  #: Folder of scalars and examples, in the run's folder


def make_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    result = verb_parser(
        VERB, 'RECIPE --data FOLDER --output FOLDER', __doc__,
        epilog='For several processes: torchrun --nproc-per-node N -m -- '
        'forecast_detector_ros.cli train RECIPE ...')
    result.add_argument('recipe', type=Path, metavar='RECIPE',
                        help='YAML file, such as config/training/*.yaml')
    result.add_argument('--data', type=Path, required=True, metavar='FOLDER',
                        help='folder that the paths in the recipe start from')
    result.add_argument('--output', type=Path, required=True, metavar='FOLDER',
                        help='folder of the run; a snapshot in it is resumed')
    start = result.add_mutually_exclusive_group()
    add_backbone(start)
    start.add_argument('--start', type=Path, metavar='FILE',
                       help='checkpoint to start from, with its card')
    result.add_argument('--fresh', action='store_true', help='do not resume')
    result.add_argument('--stop-after', type=seconds, metavar='SECONDS',
                        help='stop with a snapshot after this time')
    result.add_argument('--snapshot-every', type=seconds, default=300.0, metavar='SECONDS',
                        help='time between snapshots (default %(default)g)')
    result.add_argument('--log-every', type=positive, default=20, metavar='ITERATIONS',
                        help='iterations between lines of the log (default %(default)d)')
    result.add_argument('--tensorboard', action='store_true',
                        help=f'write scalars and example frames to OUTPUT/{TENSORBOARD}')
    return result


class StageBar:
    """A progress bar for each stage in a terminal; without one the log shows the progress."""

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
        """Do nothing: the log has them."""

    def examples(self, stage: str, iteration: int, batch: ClipBatch,
                 network: ForecastDetector) -> None:
        """Do nothing: a bar shows no pictures."""

    def close(self) -> None:
        """Leave the last bar as it is."""
        self._stack.close()
        self._show = None


def main(args: list[str] | None = None) -> int:
    """Run the verb; its exit code is 1 if the training diverged."""
    return run_verb(
        VERB, make_parser().parse_args(args), _run, failures=(TrainingDivergedError,),
        interrupted='interrupted; the same command continues from the last snapshot')


def _run(options: argparse.Namespace) -> None:
    keep_large_blocks()
    try:
        with ExitStack() as stack:
            stack.callback(leave_processes)
            _train(options, stack)
    except SafetensorError as error:
        raise CheckpointError(f'{options.start or options.output}: {error}') from None


def _train(options: argparse.Namespace, stack: ExitStack) -> None:
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
    finished = trainer.run(not options.fresh, options.stop_after, options.snapshot_every,
                           options.log_every, validate, observers)
    if processes.first:
        stages = {stage.name: options.output / f'{stage.name}.safetensors'
                  for stage in recipe.stages}
        print_result(options, {'finished': finished, 'checkpoints': {
            name: str(path) for name, path in stages.items() if path.exists()}},
            f'written: {stages[recipe.stages[-1].name]}' if finished else
            f'stopped; the same command continues from the snapshot in {options.output}')


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
