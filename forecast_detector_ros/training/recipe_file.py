# SPDX-License-Identifier: Apache-2.0
"""Recipes as YAML files, which may extend one another."""

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..plain_values import PlainYamlError, read_plain_yaml

#: Key that names the extended file, relative to this one; its values are the defaults of this one.
EXTENDS = 'extends'
DROP = 'drop'  #: Key of a stage; true removes the extended file's stage of this name


class RecipeError(InputError):
    """A recipe that cannot be used; the message names the file or key."""


def read_yaml(path: str | Path) -> Any:
    """Read plain values, which may have aliases; raises RecipeError, which names the file."""
    try:
        return read_plain_yaml(Path(path), aliases=True)
    except FileNotFoundError:
        raise RecipeError(f'{path}: no such file') from None
    except PlainYamlError as error:
        raise RecipeError(f'{path}: {error}') from None


def read_recipe(path: str | Path, above: tuple[Path, ...] = ()) -> Any:
    """
    Read the values of a recipe with those of the file that it extends.

    Mappings are merged key by key, and null removes a key. Stages are merged by their names; new
    ones come last. Any other value replaces that of the extended file.

    :param above: the files that extend this one, outermost first
    :raises RecipeError: if a file cannot be read, or extends itself
    """
    path = Path(path)
    values = read_yaml(path)
    if not isinstance(values, dict) or EXTENDS not in values:
        return values
    name = values.pop(EXTENDS)
    if not isinstance(name, str) or '\0' in name:
        raise RecipeError(f'{path}: {EXTENDS} is {name!r}, must be the name of a file')
    chain = (*above, path.resolve())
    other = path.parent / name
    if other.resolve() in chain:
        raise RecipeError(f'{path}: {EXTENDS} is {name!r}, which extends this file')
    base = read_recipe(other, chain)
    if not isinstance(base, dict):
        raise RecipeError(f'{other}: must be a mapping')
    changes = values.pop('stages', None)
    merged = _merge(base, values)
    if changes is not None:
        merged['stages'] = _merge_stages(path, base.get('stages'), changes)
    return merged


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        before = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(before, dict) and isinstance(value, dict):
            merged[key] = _merge(before, value)
        else:
            merged[key] = value
    return merged


def _merge_stages(path: Path, base: Any, changes: Any) -> list[Any]:
    for stages in (base, changes):
        if not isinstance(stages, list) or not all(
                isinstance(stage, dict) and isinstance(stage.get('name'), str)
                for stage in stages):
            raise RecipeError(f'{path}: stages must be a list of mappings, each with its name')
    merged = {stage['name']: stage for stage in base}
    for stage in changes:
        name = stage['name']
        if stage.pop(DROP, False):
            if merged.pop(name, None) is None:
                raise RecipeError(f'{path}: stage {name!r} is dropped, but there is none')
        else:
            # In a new stage null removes nothing: it is a value, such as that of `augment`.
            merged[name] = _merge(merged[name], stage) if name in merged else stage
    return list(merged.values())
