# SPDX-License-Identifier: Apache-2.0
"""What of a recipe decides the weights: its digest, and how two recipes differ."""

from dataclasses import asdict
import hashlib
import json
from pathlib import Path
from typing import Any

from .config import build_recipe, Recipe, RecipeError

#: Keys that say how a machine does the work: a run may go on with other ones.
MACHINE_KEYS = ('workers', 'threads', 'device', 'amp', 'deterministic')


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Give a recipe as plain JSON values, without `MACHINE_KEYS` and the card."""
    values = json.loads(json.dumps(asdict(recipe)))
    return {key: value for key, value in values.items() if key not in (*MACHINE_KEYS, 'card')}


def recipe_digest(recipe: Recipe) -> str:
    """Give the SHA-256 of `recipe_values`, hexadecimal."""
    text = json.dumps(recipe_values(recipe), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_recipe(path: Path, stored: dict[str, Any], recipe: Recipe) -> None:
    """
    Refuse to go on from a snapshot of another recipe.

    :param stored: the `recipe_values` in it, of this version of the package or of an older one,
        which did not have all keys: what is missing has its default
    :raises RecipeError: with the first key that differs
    """
    try:
        before = recipe_values(build_recipe(stored))
    except (RecipeError, ValueError) as error:
        raise RecipeError(f'{path}: its recipe is not one of this version ({error}); name another '
                          '--output, or begin anew with --fresh') from None
    difference = _first_difference(before, recipe_values(recipe))
    if difference:
        raise RecipeError(f'{path}: belongs to a run of another recipe: {difference}; name '
                          'another --output, or begin anew with --fresh')


def _first_difference(one: Any, other: Any, where: str = '') -> str:
    """Name the first key in which plain values differ, and both values; empty for none."""
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
