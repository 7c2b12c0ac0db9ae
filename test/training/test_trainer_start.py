# SPDX-License-Identifier: Apache-2.0
"""Start weights of a training, and those that are refused in one line."""

from dataclasses import replace
import io
import zipfile

from forecast_detector_ros.detector.checkpoint import (
    Card,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from forecast_detector_ros.model.config import EXPANSIONS
from forecast_detector_ros.training.config import load_recipe
from forecast_detector_ros.training.loader import load_sources
from forecast_detector_ros.training.recipe_file import RecipeError
from forecast_detector_ros.training.stage_run import build_network
from forecast_detector_ros.training.trainer import (
    _rename,
    BackboneError,
    load_backbone,
    load_start,
    MEMBER,
    SNAPSHOT,
    Trainer,
)
import pytest
from safetensors.torch import save_file
import torch
from torchvision.models import mobilenet_v2


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file)


@pytest.fixture
def write(recipe, tmp_path):
    """Return a function that writes a checkpoint of the recipe's network, or of a changed one."""
    def checkpoint(variant='complete', classes=('yellow', 'blue'), more=0.0, **shape):
        changed = replace(recipe, classes=classes, network={**recipe.network, **shape})
        network = build_network(replace(changed.network_config(), variant=variant), 0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(more)
        path = tmp_path / 'start.safetensors'
        save_checkpoint(path, network, Card('start', classes, network.config), torch.float32)
        return path, network.state_dict()
    return checkpoint


def refused(path, recipe):
    with pytest.raises((RecipeError, CheckpointError)) as caught:
        load_start(path, recipe)
    message = str(caught.value)
    assert '\n' not in message and str(path.parent) in message
    return message


@pytest.mark.parametrize('variant', ['complete', 'baseline', 'recurrent'])
def test_weights_of_the_same_shape_are_taken(write, recipe, variant):
    path, weights = write(variant)
    found = load_start(path, recipe)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], value) for key, value in weights.items())


def test_a_part_that_no_stage_has_is_named(write, recipe, caplog):
    assert recipe.stages[0].variant == 'baseline'
    load_start(write()[0], replace(recipe, stages=recipe.stages[:1]))
    for part in ('encoder1', 'encoder2', 'scheduler'):
        assert f'{part} is not used: no stage has a variant with it' in caplog.text
    caplog.clear()
    load_start(write()[0], recipe)
    assert not caplog.records


def logits(recipe, weights):
    """Return the head's logits for random maps, ``(A, 1 + classes)``."""
    network = build_network(replace(recipe.network_config(), variant='baseline'), 0,
                            weights).eval()
    maps = [torch.rand(1, channels, 4 >> level, 4 >> level,
                       generator=torch.Generator().manual_seed(level))
            for level, channels in enumerate(network.config.feature_channels)]
    with torch.no_grad():
        return network.head(maps).logits[0]


def test_class_outputs_are_matched_by_name(write, recipe, caplog):
    path, weights = write('baseline', classes=('red', 'blue', 'yellow'))
    three = logits(replace(recipe, classes=('red', 'blue', 'yellow')), weights)
    assert recipe.classes == ('yellow', 'blue')
    two = logits(recipe, load_start(path, recipe))
    assert torch.allclose(two, three[:, [0, 3, 2]], atol=1e-6)
    assert f'{path}: classes left out: red' in caplog.text


def test_new_classes_start_with_random_outputs(write, recipe, caplog):
    path, weights = write('baseline')
    more = replace(recipe, classes=('green', 'blue', 'yellow'))
    found = logits(more, load_start(path, more))
    assert torch.allclose(found[:, [0, 3, 2]], logits(recipe, weights), atol=1e-6)
    assert found[:, 1].std() > 0
    assert 'so they start with random weights: green' in caplog.text
    # All processes of a run start with the same weights.
    assert torch.equal(found, logits(more, load_start(path, more)))


def weights_of(run, stage):
    """Return the weights of a finished stage."""
    return load_checkpoint(run / f'{stage}.safetensors')[0].state_dict()


def souped(recipe, **first):
    """Return a recipe of three short trainings and a stage that is only a weighted mean."""
    one, two, _ = recipe.stages
    one = replace(one, name='one', **first)
    return replace(recipe, stages=(
        one, replace(one, name='again', mean_of={'one': 1.0}), replace(one, name='other'),
        replace(two, name='mean', epochs=0, mean_of={'again': 1.0, 'start': 2.0, 'other': 5.0})))


def test_a_stage_starts_from_the_mean_of_others(recipe, write, data_root, tmp_path):
    recipe = souped(recipe)
    start = load_start(write()[0], recipe)
    run = tmp_path / 'run'
    sources = load_sources(recipe, data_root)
    assert Trainer(recipe, sources, run, start=start).run()
    again, other, mean = (weights_of(run, name) for name in ('again', 'other', 'mean'))
    assert mean.keys() == start.keys()
    for key, value in mean.items():
        expected = start[key]
        if key.startswith(('extractor.', 'head.')) and value.is_floating_point():
            expected = (again[key] + 2 * start[key] + 5 * other[key]) / 8
            # Checkpoints have half precision.
            torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-3)
        elif not key.startswith(('extractor.', 'head.')):
            torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-3)
    # The three trainings draw different clips.
    one = weights_of(run, 'one')
    key = 'extractor.stem.0.0.weight'
    assert not any(torch.equal(left[key], right[key]) for left, right in (
        (one, again), (again, other), (one, other)))


def test_a_stage_starts_from_the_stage_that_it_names(recipe, data_root, tmp_path):
    """With learning rates of 0, the checkpoint of a stage has its start weights."""
    recipe = souped(recipe)
    one, again, other, _ = recipe.stages
    still = {name: replace(group, lr=0.0) for name, group in one.groups.items()}
    recipe = replace(recipe, stages=(one, again, replace(
        other, groups=still, freeze_bn='all', ema=0.0, mean_of={'one': 3.0})))
    run = tmp_path / 'run'
    assert Trainer(recipe, load_sources(recipe, data_root), run).run()
    found, wanted, before = (weights_of(run, name) for name in ('other', 'one', 'again'))
    key = 'head.classification.0.1.weight'
    torch.testing.assert_close(found[key], wanted[key], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(found[key], before[key], atol=1e-5)


def test_a_mean_is_the_same_after_a_resume(recipe, write, data_root, tmp_path):
    recipe = souped(recipe)
    start = load_start(write()[0], recipe)
    sources = load_sources(recipe, data_root)
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    assert Trainer(recipe, sources, whole, start=start).run()
    for _ in range(20):
        if Trainer(recipe, sources, parts, start=start).run(stop_after=0.0):
            break
    else:
        pytest.fail('does not come to its end')
    expected, found = weights_of(whole, 'mean'), weights_of(parts, 'mean')
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def test_a_mean_with_a_missing_start_is_refused(recipe, data_root, tmp_path):
    recipe = souped(recipe)
    with pytest.raises(RecipeError, match='stage mean: mean_of has start, so it needs'):
        Trainer(recipe, load_sources(recipe, data_root), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_stages_have_pictures_of_their_own_size(recipe, data_root, tmp_path):
    """Anchors keep their size in pixels, so relative to a larger picture they are smaller."""
    recipe = souped(recipe, input_size=(96, 64))
    recipe = replace(recipe, stages=recipe.stages[:2])
    one, again = recipe.stages
    recipe = replace(recipe, stages=(one, replace(again, input_size=())))
    run = tmp_path / 'run'
    assert Trainer(recipe, load_sources(recipe, data_root), run).run()
    tall, square = (load_checkpoint(run / f'{name}.safetensors')[1].network
                    for name in ('one', 'again'))
    assert (tall.input_size, square.input_size) == ((96, 64), (64, 64))
    sides = [scale * (height * width) ** 0.5 for network in (tall, square)
             for scale, (height, width) in ((network.anchor_scales[0], network.input_size),)]
    assert sides[0] == pytest.approx(sides[1], rel=1e-3)


@pytest.fixture
def narrow(recipe, write):
    """Return a recipe, and a checkpoint of its network whose first convolution was pruned."""
    wide = replace(recipe, network={**recipe.network, 'width': 1.0})
    return wide, *write(width=1.0, expansion_channels=(16, *EXPANSIONS[1:]))


def test_pruned_weights_are_a_start(narrow):
    recipe, path, weights = narrow
    found = load_start(path, recipe)
    assert all(torch.equal(found[key], value) for key, value in weights.items())
    network = build_network(recipe.network_config(), 0, found)
    assert network.config.expansion_channels == (16, *EXPANSIONS[1:])
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


def test_a_backbone_is_pruned_and_the_run_resumed(recipe, data_root, tmp_path):
    wide = replace(recipe, prune=True, network={**recipe.network, 'width': 1.0},
                   stages=recipe.stages[:1])
    backbone = mobilenet_v2(weights=None).state_dict()
    for key in ('0.0', '1.conv.0.0'):
        backbone[f'features.{key}.weight'][:16] = 0.0
    run, sources = tmp_path / 'run', load_sources(wide, data_root)
    assert not Trainer(wide, sources, run, backbone).run(stop_after=0.0)
    assert Trainer(wide, sources, run, backbone).run()
    _, card = load_checkpoint(run / f'{wide.stages[0].name}.safetensors')
    assert card.network.expansion_channels == (16, *EXPANSIONS[1:])


def test_no_common_class(write, recipe):
    assert 'has none of the classes of the recipe (yellow, blue); its classes are red' in refused(
        write(classes=('red',))[0], recipe)


def test_a_snapshot(recipe, data_root, tmp_path):
    run = tmp_path / 'run'
    assert not Trainer(recipe, load_sources(recipe, data_root), run).run(stop_after=0.0)
    assert 'snapshot of a run' in refused(run / SNAPSHOT, recipe)


def test_unknown_missing_and_misshapen_weights(write, recipe):
    more = {'extra_channels': [16, 16]}
    assert 'head.extra.1.0.0.weight has no place in the recipe' in refused(
        write(**more)[0], recipe)
    assert 'lacks head.extra.1.0.0.weight of the recipe' in refused(
        write()[0], replace(recipe, network={**recipe.network, **more}))
    assert 'head.classification' in refused(
        write('baseline', ('yellow', 'red'), aspect_ratios=[2, 3, 4])[0], recipe)
    path = write(lstm_channels=[8, 8])[0]
    assert 'encoder1.1' in refused(path, recipe) and 'must be' in refused(path, recipe)


def test_a_checkpoint_needs_its_card(write, recipe):
    path = write()[0]
    path.with_suffix('.yaml').unlink()
    assert 'needs its card' in refused(path, recipe)


@pytest.fixture(scope='module')
def network():
    """Return a network with random weights; tests must not change it."""
    return mobilenet_v2(weights=None)


def flat_state(network):
    """Return torchvision's random weights under the names of the published file."""
    state = {key: value for key, value in network.state_dict().items()
             if key.startswith('features.')}
    groups = {'0.0': '0', '0.1': '1', '1.0': '3', '1.1': '4', '2': '6', '3': '7'}
    first = {'0.0': '0', '0.1': '1', '1': '3', '2': '4'}
    result = {}
    for key, value in state.items():
        head, conv, tail = key.partition('.conv.')
        if conv:
            names = first if head == 'features.1' else groups
            stem, _, leaf = tail.rpartition('.')
            key = f'{head}.conv.{names[stem]}.{leaf}'
        result[key] = value
    return result, state


@pytest.mark.parametrize('packed', [False, True])
def test_names_become_torchvisions(network, tmp_path, packed):
    flat, wanted = flat_state(network)
    path = tmp_path / 'weights.pt'
    if packed:
        buffer = io.BytesIO()
        torch.save(flat, buffer)
        path = tmp_path / 'some.whl'
        with zipfile.ZipFile(path, 'w') as wheel:
            wheel.writestr(MEMBER, buffer.getvalue())
    else:
        torch.save(flat, path)
    found = load_backbone(path)
    assert set(found) == set(wanted)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize('suffix', ['.pt', '.safetensors'])
@pytest.mark.parametrize('classifier', [False, True])
def test_torchvisions_own_names(network, tmp_path, suffix, classifier):
    state = network.state_dict() if classifier else {
        f'features.{key}': value for key, value in network.features.state_dict().items()}
    path = tmp_path / f'weights{suffix}'
    if suffix == '.pt':
        torch.save(state, path)
    else:
        save_file(state, path)
    found = load_backbone(path)
    wanted = network.features.state_dict()
    assert set(found) == {f'features.{key}' for key in wanted}
    assert all(torch.equal(found[f'features.{key}'], value) for key, value in wanted.items())


def test_half_precision_becomes_float(network, tmp_path):
    state = {key: value.half() if value.is_floating_point() else value
             for key, value in network.state_dict().items()}
    save_file(state, tmp_path / 'half.safetensors')
    found = load_backbone(tmp_path / 'half.safetensors')
    assert found['features.0.0.weight'].dtype == torch.float32
    assert found['features.0.1.num_batches_tracked'].dtype == torch.int64


@pytest.mark.parametrize('name', ['weights.pt', 'weights.safetensors', 'weights.whl'])
@pytest.mark.parametrize('content', [b'', b'nothing of the kind'])
def test_a_file_of_another_format(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BackboneError, match=f'{name}: cannot be read: .') as caught:
        load_backbone(tmp_path / name)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('change', [
    lambda data: data[:-200],
    # A name that is no text, and a tensor that is missing
    lambda data: data.replace(b'features', b'\xffeatures'),
    lambda data: data[:120] + data[140:]])
@pytest.mark.parametrize('zipped', [True, False])
def test_a_damaged_file(tmp_path, change, zipped):
    path = tmp_path / 'weights.pt'
    torch.save({'features.0.0.weight': torch.zeros(32, 3, 3, 3)}, path,
               _use_new_zipfile_serialization=zipped)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BackboneError, match='weights.pt: cannot be read: .') as caught:
        load_backbone(path)
    assert '\n' not in str(caught.value)


def test_a_file_without_named_weights(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / 'weights.pt')
    with pytest.raises(BackboneError, match='weights.pt: holds no weights by name'):
        load_backbone(tmp_path / 'weights.pt')


def test_weights_that_are_not_finite(network, tmp_path):
    state = {key: value.clone() for key, value in network.state_dict().items()}
    state['features.0.0.weight'][0, 0, 0, 0] = float('nan')
    torch.save(state, tmp_path / 'weights.pt')
    with pytest.raises(BackboneError, match='features.0.0.weight holds values that are infinite'):
        load_backbone(tmp_path / 'weights.pt')


def test_names_outside_blocks_stay():
    assert _rename('features.18.1.weight') == 'features.18.1.weight'


def test_missing_file(tmp_path):
    with pytest.raises(BackboneError, match='none.pt: no such file'):
        load_backbone(tmp_path / 'none.pt')


def test_wheel_without_the_weights(tmp_path):
    path = tmp_path / 'other.whl'
    with zipfile.ZipFile(path, 'w') as wheel:
        wheel.writestr('readme', 'nothing')
    with pytest.raises(BackboneError, match='other.whl'):
        load_backbone(path)


@pytest.mark.parametrize('change, words', [
    (lambda state: state.pop('features.0.0.weight'), 'features.0.0.weight is missing'),
    (lambda state: state.update({'extra': torch.zeros(1)}), 'extra is not part'),
    (lambda state: state.update({'features.0.0.weight': torch.zeros(1)}), 'another shape')])
def test_other_layers(network, tmp_path, change, words):
    flat, _ = flat_state(network)
    change(flat)
    torch.save(flat, tmp_path / 'weights.pt')
    with pytest.raises(BackboneError, match=words):
        load_backbone(tmp_path / 'weights.pt')


def test_a_file_with_objects_is_not_unpickled(tmp_path):
    torch.save({'a': Exception}, tmp_path / 'weights.pt')
    with pytest.raises(BackboneError):
        load_backbone(tmp_path / 'weights.pt')
