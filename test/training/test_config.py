# SPDX-License-Identifier: Apache-2.0
"""Recipes: the shipped ones load, a wrong one is named in one line."""

from pathlib import Path

from forecast_detector_ros.training.config import load_recipe, RecipeError
import pytest
import yaml

RECIPES = sorted((Path(__file__).parents[2] / 'config' / 'training').glob('*.yaml'))

MINIMAL = {
    'name': 'tiny', 'classes': ['a', 'b'], 'preset': 'default',
    'sources': [{'annotations': 'a.json', 'images': '.'}],
    'stages': [{'name': 's', 'epochs': 1, 'clips_per_epoch': 4, 'batch': 2,
                'groups': {'head': {'lr': 1}}}]}


def write(tmp_path, values):
    path = tmp_path / 'recipe.yaml'
    path.write_text(yaml.safe_dump(values))
    return path


def changed(**stage):
    values = {**MINIMAL, 'stages': [{**MINIMAL['stages'][0], **stage}]}
    return values


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_shipped_recipe(path):
    recipe = load_recipe(path)
    assert recipe.network_config().classes == len(recipe.classes)


def test_minimal_recipe_has_the_papers_numbers(tmp_path):
    recipe = load_recipe(write(tmp_path, MINIMAL))
    stage = recipe.stages[0]
    assert (stage.clip_length, stage.thinning, stage.plain_epochs) == (10, 25, 2)
    loss = stage.loss
    assert (loss.alpha, loss.beta, loss.gamma, loss.lambda_) == (1.0, 1.0, 1.0, 0.7)
    assert stage.groups['head'].lr == 1.0


@pytest.mark.parametrize('values, words', [
    ({**MINIMAL, 'speed': 1}, ['unknown key speed']),
    ({key: value for key, value in MINIMAL.items() if key != 'name'}, ['recipe lacks', 'name']),
    ({**MINIMAL, 'seed': 'one'}, ['seed', "'one'", 'int']),
    ({**MINIMAL, 'preset': 'huge'}, ['preset', 'huge']),
    ({**MINIMAL, 'network': {'levels': [8]}}, ['levels']),
    ({**MINIMAL, 'stages': []}, ['stages is empty']),
    ({**MINIMAL, 'sources': []}, ['sources is empty']),
    ({**MINIMAL, 'amp': 'fp8'}, ['amp', 'fp8']),
    ({**MINIMAL, 'cache': 'disk'}, ['cache', "'disk'", 'memory or none']),
    ({**MINIMAL, 'sources': [{'annotations': 'a', 'images': '.', 'format': 'voc'}]},
     ['format', "'voc'", 'imagenet_vid']),
    ({**MINIMAL, 'sources': [{'annotations': 'a', 'images': '.', 'list': 'b'}]},
     ['unknown key sources[0].list']),
    ({**MINIMAL, 'balance': 2.0}, ['balance']),
    (changed(batch=3), ['clips_per_epoch', 'batch']),
    (changed(reuse=0), ['reuse must be at least 1']),
    (changed(reuse=2, groups={'projection': {'lr': 1.0}}),
     ['stage s', 'reuse is 2', 'extractor is frozen', 'set reuse to 1']),
    (changed(loss={'forecast_scale': 'mean'}), ['forecast_scale', "'mean'", 'persistence']),
    (changed(batch=True), ['batch', 'int']),
    (changed(groups={'neck': {'lr': 1.0}}), ['neck']),
    (changed(groups={'head': {}}), ['stages[0].groups.head', 'lr']),
    (changed(optimizer='adam'), ['optimizer', 'adam']),
    (changed(scheduler_from=0, extra_frame=False), ['extra_frame']),
    (changed(scheduler_from=0, clip_length=1), ['clip_length is 1', 'at least 2', 'expected']),
    (changed(groups={'scheduler': {'lr': 1.0}}, scheduler_from=1), ['scheduler_from']),
    (changed(loss={'combination': [1.0, 1.0, 0.0]}), ['combination']),
    (changed(loss={'combination': [1.0]}), ['combination', '3']),
    (changed(loss={'reliable_against': 'hope'}), ['reliable_against', 'truth', 'read']),
    (changed(augment={'hue': 999.0}), ['hue']),
    ({**MINIMAL, 'card': {'colour': 'red'}}, ['card.colour']),
    ({**MINIMAL, 'card': {'known_failures': [{'a': 'b'}]}}, ['known_failures']),
    ({**MINIMAL, 'card': {'provenance': 'x'}}, ['provenance']),
    ([1, 2], ['mapping']),
])
def test_a_wrong_recipe_is_one_line(tmp_path, values, words):
    path = write(tmp_path, values)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert '\n' not in message
    assert str(path) in message
    for word in words:
        assert word in message


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(RecipeError, match='no such file'):
        load_recipe(tmp_path / 'none.yaml')
    path = tmp_path / 'broken.yaml'
    path.write_text('a: [1')
    with pytest.raises(RecipeError, match='YAML'):
        load_recipe(path)
