# SPDX-License-Identifier: Apache-2.0
"""Recipes that say how they differ from another one."""

from forecast_detector_ros.training.recipe_file import read_recipe, RecipeError
import pytest
import yaml

BASE = {'name': 'base', 'classes': ['cat', 'dog'], 'network': {'width': 0.5, 'levels': [16, 32]},
        'stages': [{'name': 'first', 'epochs': 2, 'groups': {'head': {'lr': 0.1, 'decay': 0.5}}},
                   {'name': 'second', 'epochs': 3}]}


@pytest.fixture
def read(tmp_path):
    """Give a function that writes recipes by their names and reads the last one."""
    def write(**recipes):
        for name, values in recipes.items():
            (tmp_path / f'{name}.yaml').write_text(yaml.safe_dump(values))
        return read_recipe(tmp_path / f'{name}.yaml')
    return write


def test_without_extends_it_is_the_file(read):
    assert read(base=BASE) == BASE


def test_mappings_are_merged_and_lists_replaced(read):
    found = read(base=BASE, more={'extends': 'base.yaml', 'name': 'more', 'classes': ['cow'],
                                  'network': {'width': 1.0}})
    assert found == {**BASE, 'name': 'more', 'classes': ['cow'],
                     'network': {'width': 1.0, 'levels': [16, 32]}}


def test_null_takes_a_key_away(read):
    found = read(base=BASE, more={'extends': 'base.yaml', 'network': None, 'seed': None})
    assert found == {key: value for key, value in BASE.items() if key != 'network'}


def test_stages_are_merged_by_name(read):
    found = read(base=BASE, more={'extends': 'base.yaml', 'stages': [
        {'name': 'third', 'epochs': 1},
        {'name': 'first', 'groups': {'head': {'lr': 0.2}, 'encoder': {'lr': 0.3}}},
        {'name': 'second', 'drop': True}]})
    assert found['stages'] == [
        {'name': 'first', 'epochs': 2,
         'groups': {'head': {'lr': 0.2, 'decay': 0.5}, 'encoder': {'lr': 0.3}}},
        {'name': 'third', 'epochs': 1}]


def test_a_chain_of_recipes_in_other_folders(read, tmp_path):
    (tmp_path / 'inner').mkdir()
    (tmp_path / 'base.yaml').write_text(yaml.safe_dump(BASE))
    (tmp_path / 'inner/middle.yaml').write_text('extends: ../base.yaml\nseed: 3\n')
    found = read(outer={'extends': 'inner/middle.yaml', 'name': 'outer'})
    assert found == {**BASE, 'seed': 3, 'name': 'outer'}


@pytest.mark.parametrize(('values', 'words'), [
    ({'extends': 'none.yaml'}, 'none.yaml: no such file'),
    ({'extends': 3}, 'extends is 3, must be the name of a file'),
    ({'extends': 'more.yaml'}, "extends is 'more.yaml', which extends this file"),
    ({'extends': 'list.yaml'}, 'list.yaml: must be a mapping'),
    ({'extends': 'base.yaml', 'stages': [{'epochs': 1}]}, 'each with its name'),
    ({'extends': 'base.yaml', 'stages': [{'name': 'last', 'drop': True}]},
     "stage 'last' is dropped, but there is none"),
])
def test_mistakes_are_named(values, words, read):
    with pytest.raises(RecipeError, match=words):
        read(base=BASE, list=[1], more=values)


def test_two_files_that_extend_each_other(read):
    with pytest.raises(RecipeError, match='which extends this file'):
        read(one={'extends': 'two.yaml'}, two={'extends': 'one.yaml'})
