# SPDX-License-Identifier: Apache-2.0
"""Weights of a finished training to start another one from."""

from dataclasses import replace
import logging
from pathlib import Path

from safetensors import safe_open, SafetensorError
from torch import Tensor

from .config import Recipe, RecipeError
from ..detector.checkpoint import load_checkpoint
from ..model.network import ForecastDetector

log = logging.getLogger(__name__)

#: Parts that a checkpoint may lack: the variant `baseline` has none of them.
MAY_BE_NEW = ('encoder1', 'encoder2', 'scheduler', 'motion', 'recurrent')


def load_start(path: str | Path, recipe: Recipe) -> dict[str, Tensor]:
    """
    Read the weights that a recipe's first stage starts from.

    :param path: a ``.safetensors`` checkpoint with its card
    :returns: state of the checkpoint's network, float32
    :raises CheckpointError: if checkpoint or card cannot be read
    :raises RecipeError: if the file is a snapshot, the classes are others, or a weight has no
        place in the recipe's network or is missing for it. Encoders and scheduler may be missing
        as a whole.
    """
    if _is_snapshot(path):
        raise RecipeError(f'{path}: is the snapshot of a run, which only that run goes on from; '
                          'name the STAGE.safetensors of a finished stage')
    network, card = load_checkpoint(path)
    if card.classes != recipe.classes:
        place = next((i for i, (a, b) in enumerate(zip(card.classes, recipe.classes)) if a != b),
                     min(len(card.classes), len(recipe.classes)))
        found, wanted = (names[place] if place < len(names) else 'none'
                         for names in (card.classes, recipe.classes))
        raise RecipeError(f'{path}: its classes are not those of the recipe: class {place} is '
                          f'{found}, must be {wanted}')
    weights = network.state_dict()
    config = recipe.network_config()
    own: dict[str, Tensor] = {}
    for variant in ('complete', 'recurrent'):
        own |= ForecastDetector(replace(config, variant=variant)).state_dict()
    for key, value in weights.items():
        if key not in own:
            raise RecipeError(f"{path}: {key} has no place in the recipe's network")
        if value.shape != own[key].shape:
            raise RecipeError(f'{path}: {key} has the shape {tuple(value.shape)}, must be '
                              f'{tuple(own[key].shape)}')
    parts = {key.partition('.')[0] for key in weights}
    for key in own:
        part = key.partition('.')[0]
        if key not in weights and (part in parts or part not in MAY_BE_NEW):
            raise RecipeError(f"{path}: lacks {key} of the recipe's network")
    first = recipe.stages[0]
    kept = {key.partition('.')[0]
            for key in ForecastDetector(replace(config, variant=first.variant)).state_dict()}
    for part in sorted(parts - kept):
        log.warning('%s: %s is not used: the variant %s of stage %s has none', path, part,
                    first.variant, first.name)
    return weights


def _is_snapshot(path: str | Path) -> bool:
    try:
        with safe_open(path, 'pt') as file:
            return 'about' in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False
