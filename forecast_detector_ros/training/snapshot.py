# SPDX-License-Identifier: Apache-2.0
"""
Snapshots of a training run: everything that a resume needs, in one safetensors file.

Random numbers need no state: every draw comes from a generator seeded with the recipe's seed,
the stage and the iteration. The recipe is kept too: a run continues only with the same one.
"""

from dataclasses import asdict, dataclass, field
import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open, SafetensorError
from safetensors.torch import save
import torch
from torch import Tensor

from .config import build_recipe, Recipe
from .recipe_file import RecipeError
from ..errors import InputError
from ..files import write_atomically
from ..plain_values import parse_plain_json


class SnapshotError(InputError):
    """A snapshot cannot be read or belongs to another run; the message names the file."""


@dataclass
class Snapshot:
    """The progress of a run."""

    stage: str
    iteration: int  #: Finished iterations of the stage
    network: dict[str, Tensor]
    average: dict[str, Tensor]  #: State of the moving average; empty where there is none
    average_updates: int
    optimizer: dict[str, Any]  #: `state_dict` of the optimiser
    seconds: float  #: Time spent in training so far, all stages
    #: State of the gradient scaler; empty where there is none.
    scaler: dict[str, float] = field(default_factory=dict)
    #: Weights of the stage with the best validation score; empty before the first validation.
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float | None = None  #: Their score
    #: The `recipe_values` of the run; empty in snapshots of earlier versions, which are refused.
    recipe: dict[str, Any] = field(default_factory=dict)
    #: Weights of parts that this stage's variant lacks, for a later stage.
    carried: dict[str, Tensor] = field(default_factory=dict)


#: Fields of a snapshot that hold tensors by their names.
_PARTS = ('network', 'average', 'best', 'carried')


def save_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot atomically."""
    tensors = {f'{part}/{key}': value for part in _PARTS
               for key, value in getattr(snapshot, part).items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, state in snapshot.optimizer['state'].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f'optimizer/{index}/{key}'] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    about = {'stage': snapshot.stage, 'iteration': snapshot.iteration,
             'average_updates': snapshot.average_updates, 'seconds': snapshot.seconds,
             'param_groups': snapshot.optimizer['param_groups'], 'plain': plain,
             'scaler': snapshot.scaler, 'best_score': snapshot.best_score,
             'recipe': snapshot.recipe}
    # clone: safetensors refuses tensors that share memory.
    data = save({key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                 for key, value in tensors.items()}, metadata={'about': json.dumps(about)})
    write_atomically(path, data)


def load_snapshot(path: Path) -> Snapshot:
    """
    Read a snapshot.

    :raises SnapshotError: if the file is missing, damaged or no snapshot
    """
    try:
        with safe_open(path, 'pt') as file:
            about = parse_plain_json((file.metadata() or {})['about'])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return _restored(about, tensors)
    except FileNotFoundError:
        raise SnapshotError(f'{path}: no such file') from None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise SnapshotError(f'{path}: not a snapshot of a training run, or damaged '
                            f'({" ".join(str(error).split())})') from None


def _restored(about: dict[str, Any], tensors: dict[str, Tensor]) -> Snapshot:
    state = {int(index): dict(values) for index, values in about['plain'].items()}
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for name, value in tensors.items():
        part, _, key = name.partition('/')
        if part == 'optimizer':
            index, _, key = key.partition('/')
            state.setdefault(int(index), {})[key] = value
        else:
            parts[part][key] = value
    optimizer = {'state': state, 'param_groups': about['param_groups']}
    return Snapshot(stage=about['stage'], iteration=about['iteration'],
                    average_updates=about['average_updates'], optimizer=optimizer,
                    seconds=about['seconds'], scaler=about.get('scaler', {}),
                    best_score=about.get('best_score'), recipe=about.get('recipe', {}), **parts)


#: Keys that depend on the machine: a run may continue with other values.
MACHINE_KEYS = ('workers', 'threads', 'device', 'amp', 'deterministic')


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain JSON values, without `MACHINE_KEYS` and the card."""
    # A card may contain dates, which JSON lacks.
    values = {key: value for key, value in asdict(recipe).items()
              if key not in (*MACHINE_KEYS, 'card')}
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def recipe_digest(recipe: Recipe) -> str:
    """Return the SHA-256 of `recipe_values`, hexadecimal."""
    text = json.dumps(recipe_values(recipe), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_recipe(path: Path, stored: dict[str, Any], recipe: Recipe) -> None:
    """
    Refuse to continue from a snapshot of another or an unknown recipe.

    :param stored: `recipe_values` of the snapshot; keys that an older version of the package
        lacked have their defaults
    :raises RecipeError: with the first key that differs
    """
    if not stored:
        raise RecipeError(f'{path}: does not contain its recipe, so it is of an earlier version; '
                          'name another --output, or begin anew with --fresh')
    try:
        before = recipe_values(build_recipe(stored))
    except ValueError as error:
        raise RecipeError(f'{path}: its recipe is not one of this version ({error}); name another '
                          '--output, or begin anew with --fresh') from None
    difference = _first_difference(before, recipe_values(recipe))
    if difference:
        raise RecipeError(f'{path}: belongs to a run of another recipe: {difference}; name '
                          'another --output, or begin anew with --fresh')


def _first_difference(one: Any, other: Any, where: str = '') -> str:
    """Return the first key in which plain values differ, and both values; empty if none."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            found = _first_difference(one.get(key), other.get(key),
                                      f'{where}.{key}' if where else key)
            if found:
                return found
        return ''
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (a, b) in enumerate(zip(one, other)):
            found = _first_difference(a, b, f'{where}[{index}]')
            if found:
                return found
        return ''
    return '' if one == other else f'{where} is {_short(other)} and was {_short(one)}'


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
