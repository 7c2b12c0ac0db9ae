# SPDX-License-Identifier: Apache-2.0
"""Recipes: shipped recipes load, recipes extend others, mistakes are named in one line."""

from dataclasses import replace
from pathlib import Path

from forecast_detector_ros.training.config import (
    GroupConfig,
    load_recipe,
    read_recipe,
    RecipeError,
)
from forecast_detector_ros.training.schedule import group_parameters
from forecast_detector_ros.training.stage_run import build_network
import pytest
import yaml

RECIPES = sorted((Path(__file__).parents[2] / 'config' / 'training').glob('*.yaml'))

MINIMAL = {
    'name': 'tiny', 'classes': ['a', 'b'], 'preset': 'features',
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


def motion(**keys):
    """Return a recipe of one stage for a forecast of motion."""
    return {**changed(**{'groups': {'encoder': {'lr': 1.0}}, 'clip_length': 3, 'gaps': [1],
                         'horizons': [1], **keys}), 'preset': 'default', 'cache': 'device'}


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
    ({key: value for key, value in MINIMAL.items() if key != 'name'}, ['name is missing']),
    ({**MINIMAL, 'seed': 'one'}, ['seed', "'one'", 'int']),
    ({**MINIMAL, 'preset': 'huge'}, ['preset', 'huge']),
    ({**MINIMAL, 'network': {'levels': [8]}}, ['levels']),
    ({**MINIMAL, 'stages': []}, ['stages is empty']),
    ({**MINIMAL, 'sources': []}, ['sources is empty']),
    ({**MINIMAL, 'amp': 'fp8'}, ['amp', 'fp8']),
    ({**MINIMAL, 'cache': 'disk'}, ['cache', "'disk'", 'memory or device or none']),
    ({**MINIMAL, 'sources': [{'annotations': 'a', 'images': '.', 'format': 'voc'}]},
     ['format', "'voc'", 'imagenet_vid']),
    ({**MINIMAL, 'sources': [{'annotations': 'a', 'images': '.', 'list': 'b'}]},
     ['unknown key sources[0].list']),
    ({**MINIMAL, 'balance': 2.0}, ['balance']),
    ({**MINIMAL, 'seed': -1}, ['seed is -1, must be from 0 to']),
    ({**MINIMAL, 'workers': -1}, ['workers is -1, must be from 0 to']),
    ({**MINIMAL, 'threads': 0}, ['threads is 0, must be from 1 to']),
    (changed(name=''), ['stages: a name is empty']),
    (changed(groups={}), ['stage s: groups must have one of backbone', 'the variant complete']),
    (changed(groups={'encoder': {'lr': 1.0}}, variant='baseline'),
     ['stage s: groups must have one of backbone, projection, head:', 'the variant baseline']),
    (changed(groups={'scheduler': {'lr': 1.0}}, scheduler_from=0, variant='recurrent'),
     ['stage s: groups must have one of backbone, projection, encoder, head:']),
    (changed(batch=3), ['clips_per_epoch', 'batch']),
    (changed(reuse=0), ['reuse must be at least 1']),
    (changed(reuse=2, groups={'projection': {'lr': 1.0}}),
     ['stage s', 'reuse is 2', 'extractor is frozen', 'set reuse to 1']),
    (changed(loss={'forecast_scale': 'mean'}), ['forecast_scale', "'mean'", 'persistence']),
    (changed(batch=True), ['batch', 'int']),
    (changed(groups={'neck': {'lr': 1.0}}), ['neck']),
    (changed(epochs=-1), ['stage s: epochs is -1']),
    (changed(mean_of={'s': 1.0}), ["stage s: mean_of has 's'", 'must be one of start']),
    (changed(mean_of={'start': 0.0}), ['stage s: mean_of.start is 0.0, must be in (0, 1000]']),
    (changed(mean_of={'start': float('nan')}), ['mean_of.start is nan']),
    (changed(name='start'), ['stage start: a stage must not be named start']),
    (changed(input_size=[64]), ['stage s: input_size is [64]', 'a height and a width']),
    (changed(input_size=[64, 8]), ['stage s: input_size is', 'from 64 to']),
    (changed(groups={'head': {}}), ['stages[0].groups.head', 'lr']),
    (changed(optimizer='adam'), ['optimizer', 'adam']),
    (changed(scheduler_from=0, extra_frame=False), ['extra_frame']),
    (changed(scheduler_from=0, clip_length=1), ['clip_length is 1', 'at least 2', 'expected']),
    (changed(groups={'scheduler': {'lr': 1.0}}, scheduler_from=1), ['scheduler_from']),
    (changed(loss={'combination': [1.0, 1.0, 0.0]}), ['combination']),
    (changed(loss={'combination': [1.0]}), ['combination', '3']),
    (changed(loss={'reliable_against': 'hope'}), ['reliable_against', 'truth', 'read']),
    (changed(loss={'combination': [1.5, -0.5, 0.0]}), ['loss', 'combination', '[0, 1]']),
    (changed(loss={'gamma': float('nan')}), ['stages[0].loss.gamma is nan', 'a number']),
    (changed(loss={'alpha': float('inf')}), ['stages[0].loss.alpha is inf']),
    (changed(loss={'beta': -1.0}), ['stages[0].loss: beta is -1']),
    (changed(loss={'lambda_': -0.1}), ['stages[0].loss: lambda_ is -0.1']),
    (changed(loss={'min_negatives': -1}), ['stages[0].loss: min_negatives is -1']),
    (changed(loss={'rollout': 1.5}), ['stages[0].loss: rollout is 1.5, must be in [0, 1]']),
    (changed(loss={'reliable_iou': 70.0}), ['stages[0].loss: reliable_iou is 70']),
    (changed(loss={'reliable_score': -0.3}), ['stages[0].loss: reliable_score is -0.3']),
    (changed(loss={'reliable_margin': 2.0}), ['stages[0].loss: reliable_margin is 2']),
    (changed(loss={'reliable_score': 0.8, 'reliable_margin': 0.4}), ['0.8 and 0.4', 'at most 1']),
    (changed(loss={'decision_weights': [0.0, 1.0]}), ['stages[0].loss: decision_weights']),
    (changed(frozen_blocks=15), ['stage s: frozen_blocks is 15, must be in [0, 14]']),
    ({**changed(frozen_blocks=8), 'network': {
        'levels': [8, 16, 32], 'feature_channels': [8, 8, 8], 'lstm_channels': [8, 8, 8]}},
     ['stage s: frozen_blocks is 8, must be in [0, 7]']),
    (changed(frozen_blocks=-1), ['stage s: frozen_blocks is -1']),
    (changed(thinning=-1), ['stage s: thinning is -1']),
    (changed(plain_epochs=-1), ['stage s: plain_epochs is -1']),
    (changed(still_fraction=1.5), ['stage s: still_fraction is 1.5, must be in [0, 1]']),
    (changed(warmup=-1), ['stage s: warmup is -1']),
    (changed(clip_norm=-1.0), ['stage s: clip_norm is -1']),
    (changed(weight_decay=float('nan')), ['stages[0].weight_decay is nan']),
    (changed(groups={'head': {'lr': float('nan')}}), ['stages[0].groups.head.lr is nan']),
    (changed(groups={'head': {'lr': 1.0, 'decay': -1.0}}), ['stage s: groups.head.decay is -1']),
    (changed(augment={'hue': 999.0}), ['hue']),
    (motion(groups={'head': {'lr': 1.0}}), ['stage s: groups has head', 'encoder and scheduler']),
    (motion(reuse=2, extra_frame=True), ['stage s: reuse is 2', 'forecast of motion', 'keep']),
    (motion(pauses=0.5, clip_length=6), ['stage s: clip_length is 6', 'below 6']),
    (motion(keep=1, variant='recurrent'), ['stage s: keep is for a forecast of motion']),
    ({**MINIMAL, 'card': {'colour': 'red'}}, ['card.colour']),
    ({**MINIMAL, 'card': {'known_failures': [{'a': 'b'}]}}, ['known_failures']),
    ({**MINIMAL, 'card': {'provenance': 'x'}}, ['provenance']),
    ({**MINIMAL, 'card': {'score_threshold': 40}}, ['card: score_threshold is 40', '[0, 1]']),
    ({**MINIMAL, 'card': {'score_threshold': '0.4'}}, ['card: score_threshold']),
    ({**MINIMAL, 'card': {'licence': None}}, ['card: licence']),
    ({**MINIMAL, 'classes': ['cat', 'cat']}, ['classes has a name twice']),
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


def test_the_last_block_that_can_be_frozen_is_the_last_one_of_the_stem(tmp_path):
    stage = load_recipe(write(tmp_path, changed(frozen_blocks=14))).stages[0]
    network = build_network(load_recipe(write(tmp_path, MINIMAL)).network_config(), 0)
    group_parameters(network, replace(stage, groups={'backbone': GroupConfig(1.0)}))
    frozen = {name.split('.')[2] for name, parameter in network.named_parameters()
              if name.startswith('extractor.stem') and not parameter.requires_grad}
    assert frozen == {str(number) for number in range(14)}
    assert list(network.extractor.stem._modules)[14:] == ['expand']


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(RecipeError, match='no such file'):
        load_recipe(tmp_path / 'none.yaml')
    path = tmp_path / 'broken.yaml'
    for text in ('a: [1', '[' * 1000, 'seed: 2020-99-99', f'seed: {"9" * 5000}', '&a [*a]'):
        path.write_text(text)
        with pytest.raises(RecipeError) as caught:
            load_recipe(path)
        assert str(caught.value).startswith(f'{path}: cannot be read as YAML: ')
        assert '\n' not in str(caught.value) and len(str(caught.value)) < 400


BASE = {'name': 'base', 'classes': ['cat', 'dog'], 'network': {'width': 0.5, 'levels': [16, 32]},
        'stages': [{'name': 'first', 'epochs': 2, 'groups': {'head': {'lr': 0.1, 'decay': 0.5}}},
                   {'name': 'second', 'epochs': 3}]}


@pytest.fixture
def read(tmp_path):
    """Return a function that writes recipes by their names and reads the last one."""
    def write(**recipes):
        for name, values in recipes.items():
            (tmp_path / f'{name}.yaml').write_text(yaml.safe_dump(values))
        return read_recipe(tmp_path / f'{name}.yaml')
    return write


def test_a_recipe_without_extends_is_the_file(read):
    assert read(base=BASE) == BASE


def test_mappings_are_merged_and_lists_replaced(read):
    found = read(base=BASE, more={'extends': 'base.yaml', 'name': 'more', 'classes': ['cow'],
                                  'network': {'width': 1.0}})
    assert found == {**BASE, 'name': 'more', 'classes': ['cow'],
                     'network': {'width': 1.0, 'levels': [16, 32]}}


def test_null_removes_a_key(read):
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


def test_null_in_a_new_stage_is_a_value(read):
    """Without this rule, a new stage could not turn augmentation off."""
    new = {'name': 'third', 'epochs': 1, 'augment': None}
    assert read(base=BASE, more={'extends': 'base.yaml', 'stages': [new]})['stages'][2] == new


def test_a_chain_of_recipes_in_other_folders(read, tmp_path):
    (tmp_path / 'inner').mkdir()
    (tmp_path / 'base.yaml').write_text(yaml.safe_dump(BASE))
    (tmp_path / 'inner/middle.yaml').write_text('extends: ../base.yaml\nseed: 3\n')
    found = read(outer={'extends': 'inner/middle.yaml', 'name': 'outer'})
    assert found == {**BASE, 'seed': 3, 'name': 'outer'}


@pytest.mark.parametrize(('values', 'words'), [
    ({'extends': 'none.yaml'}, 'none.yaml: no such file'),
    ({'extends': 3}, 'extends is 3, must be the name of a file'),
    ({'extends': 'a\0b'}, r"extends is 'a\\x00b', must be the name of a file"),
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
