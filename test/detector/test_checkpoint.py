# SPDX-License-Identifier: Apache-2.0
"""Write and read checkpoints; check the errors of damaged ones."""

from dataclasses import fields, replace
import hashlib
import os
import pickle
import shutil

from forecast_detector_ros import files
from forecast_detector_ros.detector.checkpoint import (
    Card,
    card_path,
    CheckpointError,
    default_checkpoint,
    FORMAT,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    SHIPPED,
    shipped_checkpoint,
)
from forecast_detector_ros.detector.policy import ThresholdPolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.files import write_atomically
import pytest
from safetensors.torch import load_file, save_file
import torch
import yaml

CLASSES = ('cat', 'dog', 'train')


@pytest.fixture
def path(checkpoint, tmp_path):
    """Return a copy of the checkpoint that a test may damage."""
    for source in (checkpoint, card_path(checkpoint)):
        shutil.copy(source, tmp_path)
    return tmp_path / checkpoint.name


def edit(path, change):
    """Change the values of a checkpoint's card in place."""
    values = yaml.safe_load(card_path(path).read_text())
    change(values)
    # The dumper in C is used if present: 100,000 classes take seconds in Python.
    dumper = getattr(yaml, 'CSafeDumper', yaml.SafeDumper)
    card_path(path).write_text(yaml.dump(values, Dumper=dumper))


def failure(path):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert '\n' not in message and len(message) < 700
    return message


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_round_trip(dtype, network, tmp_path):
    card = Card(
        'small', CLASSES, network.config, preset='custom', licence='Apache-2.0',
        description='Größe: small', score_threshold=0.25, nms_threshold=0.5, vote_threshold=0.65,
        score_memory=0.5, threshold=0.75, provenance={'data': ['a', 'b'], 'seed': 3},
        metrics={'AP50': 0.125}, known_failures=('night', 'rain'))
    path = tmp_path / 'deep' / 'er' / 'small.safetensors'
    written = save_checkpoint(path, network, card, dtype)
    loaded, read = load_checkpoint(str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read == written == replace(card, weights_sha256=digest)
    assert read.input_size == (64, 96)
    assert not loaded.training and loaded.config == network.config
    expected = network.state_dict()
    for key, value in loaded.state_dict().items():
        stored = expected[key].to(dtype) if value.is_floating_point() else expected[key]
        assert value.dtype == expected[key].dtype and torch.equal(value, stored.to(value.dtype))
    assert sorted(os.listdir(path.parent)) == ['small.safetensors', 'small.yaml']


def test_card_recommends_settings(network):
    card = Card('small', CLASSES, network.config, score_threshold=0.25, nms_threshold=0.5,
                vote_threshold=0.75, score_memory=0.25, threshold=1)
    assert card.settings() == DetectorSettings(ThresholdPolicy(1.0), 0.25, 0.5, 0.75, 0.25)
    assert str(card.settings().policy) == 'threshold(1.0)'


def test_network_replaces_the_cards_configuration(network, tmp_path):
    card = Card('small', CLASSES, replace(network.config, width=1.0))
    written = save_checkpoint(tmp_path / 'a.safetensors', network, card)
    assert written.network == network.config


def test_saving_does_not_change_the_network(network, tmp_path):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    save_checkpoint(tmp_path / 'a.safetensors', network, Card('a', CLASSES, network.config))
    for key, value in network.state_dict().items():
        assert value.dtype == before[key].dtype and torch.equal(value, before[key])


def test_missing_weights(path):
    path.unlink()
    assert failure(path) == f'{path}: no such checkpoint'


def test_missing_card(path):
    card_path(path).unlink()
    message = failure(path)
    assert message.startswith(f'{card_path(path)}: no such file') and 'card' in message


def test_directory_in_place_of_a_file(path):
    card_path(path).unlink()
    card_path(path).mkdir()
    assert failure(path).startswith(f'{card_path(path)}: cannot be read')
    path.unlink()
    path.mkdir()
    assert failure(path) == f'{path}: cannot be read: Is a directory'


def test_other_suffix(path):
    other = path.with_suffix('.pt')
    path.rename(other)
    message = failure(other)
    assert message.startswith(f'{other}: ') and '.safetensors' in message
    assert failure(path.with_name(300 * 'x')).endswith(': cannot be read: File name too long')


@pytest.mark.parametrize('keep', [0, 7, 8, 100, 5000, -1])
def test_truncated_weights(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    message = failure(path)
    assert message.startswith(f'{path}: ') and 'weights_sha256' in message
    edit(path, lambda values: values.pop('weights_sha256'))
    message = failure(path)
    assert message.startswith(f'{path}: not a safetensors file, or truncated')


def test_pickle_with_the_suffix_of_weights(path):
    class Trap:

        def __reduce__(self):
            return (os.mkdir, (str(path.parent / 'sprung'),))

    edit(path, lambda values: values.pop('weights_sha256'))
    path.write_bytes(pickle.dumps(Trap()))
    assert failure(path).startswith(f'{path}: not a safetensors file')
    torch.save({'weights': Trap()}, path)
    assert failure(path).startswith(f'{path}: not a safetensors file')
    assert not (path.parent / 'sprung').exists()


def test_foreign_safetensors(path):
    edit(path, lambda values: values.pop('weights_sha256'))
    save_file({'layer.weight': torch.zeros(3)}, path)
    assert failure(path).startswith(f'{path}: weights do not fit the network in the card')


def test_tensor_of_another_shape(path):
    tensors = load_file(path)
    tensors['scheduler.fc.weight'] = torch.zeros(2, 5)
    save_file(tensors, path)
    edit(path, lambda values: values.pop('weights_sha256'))
    message = failure(path)
    assert message.startswith(f'{path}: weights do not fit') and 'scheduler.fc.weight' in message


def test_tensor_of_unknown_type(path):
    header = b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    path.write_bytes(len(header).to_bytes(8, 'little') + header + b'\0')
    edit(path, lambda values: values.pop('weights_sha256'))
    message = failure(path)
    assert message.startswith(f'{path}: holds a tensor of type') and 'F4' in message


@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
def test_weights_that_are_not_finite(value, path):
    tensors = load_file(path)
    key = next(name for name in sorted(tensors) if name.startswith('head.'))
    tensors[key].view(-1)[-1] = value
    save_file(tensors, path)
    edit(path, lambda values: values.update(weights_sha256=''))
    message = failure(path)
    assert str(path) in message and key in message and 'infinite or no numbers' in message
    # The back-ends of exported steps read the weights in this way.
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path).arrays()
    assert str(error.value) == message


def test_weights_that_the_type_cannot_hold_are_not_written(network, tmp_path):
    card = Card('small', CLASSES, network.config)
    with torch.no_grad():
        # The largest number in half precision is 65504.
        network.extractor.stem[0][1].running_var[0] = 1e5
    with pytest.raises(CheckpointError, match='not written: extractor.stem.0.1.running_var'):
        save_checkpoint(tmp_path / 'large.safetensors', network, card)
    assert not list(tmp_path.iterdir())
    save_checkpoint(tmp_path / 'large.safetensors', network, card, torch.float32)


def test_unreadable_card_is_not_written_and_files_stay_unchanged(path, network):
    before = path.read_bytes(), card_path(path).read_text()
    for card, words in ((Card('small', CLASSES[:2], network.config), '2 names in classes'),
                        (Card('x' * 300, CLASSES, network.config), 'longer than 256 characters')):
        with pytest.raises(CheckpointError, match=f'small.safetensors: not written: .*{words}'):
            save_checkpoint(path, network, card)
        assert (path.read_bytes(), card_path(path).read_text()) == before


def test_snapshot_of_a_run_is_not_a_checkpoint(path):
    snapshot = path.with_name('last.snapshot.safetensors')
    snapshot.write_bytes(path.read_bytes())
    assert failure(snapshot) == (f'{snapshot}: is the snapshot of a run; use a '
                                 'STAGE.safetensors of it')


def test_wrong_digest(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    message = failure(path)
    assert message.startswith(f'{path}: ') and 'weights_sha256' in message


def test_other_weights_beside_the_card(path, network, tmp_path):
    other = tmp_path / 'other.safetensors'
    with torch.no_grad():
        network.scheduler.fc.bias += 1
    save_checkpoint(other, network, Card('other', CLASSES, network.config), torch.float32)
    os.replace(other, path)
    assert 'weights_sha256' in failure(path)


@pytest.mark.parametrize('change, words', [
    (lambda v: v.update(colour='red'), ('unknown key colour',)),
    (lambda v: v.update({5: 'red'}), ('unknown key 5',)),
    (lambda v: v.pop('name'), ('name is missing',)),
    (lambda v: v.pop('classes'), ('classes is missing',)),
    (lambda v: v.pop('network'), ('network is missing',)),
    (lambda v: v.pop('format'), ('not a card', FORMAT)),
    (lambda v: v.update(format='forecast_detector_ros/2'), ('not a card', FORMAT)),
    (lambda v: v.update(classes='cat'), ("classes is 'cat', must be a list",)),
    (lambda v: v.update(classes=['cat', 1]), ('classes[1] is 1, must be a text',)),
    (lambda v: v.update(classes=['cat', 'dog']), ('2 names', '3 classes')),
    (lambda v: v.update(classes=['cat', 'dog', 'cat']), ('twice', 'classes')),
    (lambda v: v.update(network=[1]), ('network is [1], must be a mapping',)),
    (lambda v: v.update(metrics=[1]), ('metrics is [1], must be a mapping',)),
    (lambda v: v.update(provenance='web'), ("provenance is 'web', must be a mapping",)),
    (lambda v: v.update(known_failures='night'), ("known_failures is 'night', must be a list",)),
    (lambda v: v.update(threshold=1.5), ('threshold is 1.5', '[0, 1]')),
    (lambda v: v.update(score_threshold='high'), ("score_threshold is 'high'", 'a number')),
    (lambda v: v.update(nms_threshold=True), ('nms_threshold is True', 'a number')),
    (lambda v: v.update(vote_threshold=-1), ('vote_threshold is -1', '[0, 1]')),
    (lambda v: v.update(score_memory=1), ('score_memory is 1', '[0, 1)')),
    (lambda v: v.update(preprocessing='rgb8'), ("preprocessing is 'rgb8'",)),
    (lambda v: v['network'].update(alpha=1), ("unknown key 'alpha'",)),
    (lambda v: v['network'].update(width=0.9), ('width is 0.9',)),
    (lambda v: v['network'].update(classes=2.5), ('classes is 2.5',)),
    (lambda v: v['network'].update(lstm_channels=[8, 12]), ('do not fit',)),
    (lambda v: v.update(weights_sha256=12), ('weights_sha256',)),
    (lambda v: v.update(name=5), ('name is 5', 'text')),
    (lambda v: v.update(name='x' * 10_000), ('the name', '10000 characters')),
    (lambda v: v.update(classes=['x' * 10_000, 'b', 'c']), ('the name', '10000 characters')),
    (lambda v: v.update({'k' * 10_000: 1}), ('unknown key', '10000 characters')),
    (lambda v: v['network'].update({'k' * 10_000: 1}), ('unknown key', '10002 characters')),
    (lambda v: v['network'].update(input_size=[10 ** 6, 10 ** 6]), ('input_size', '4096')),
    (lambda v: v['network'].update(input_size=[4096, 4096], classes=10_000),
     ('too many', 'input_size')),
    (lambda v: v['network'].update(classes=10 ** 6), ('classes is 1000000', '10000')),
    (lambda v: v['network'].update(lstm_channels=[10 ** 5, 8]), ('lstm_channels', '4096')),
    (lambda v: v['network'].update(extra_channels=[8] * 1000), ('extra_channels', '16')),
    (lambda v: v['network'].update(scheduler_channels=10 ** 9), ('scheduler_channels', '4096')),
    (lambda v: v.update(classes=[f'class {number}' for number in range(10 ** 5)]),
     ('larger than', 'bytes'))])
def test_broken_card(change, words, path):
    edit(path, change)
    message = failure(path)
    assert message.startswith((f'{card_path(path)}: ', f'{path}: '))
    assert all(word in message for word in words), message


def test_every_key_of_the_card_is_read(path):
    assert set(yaml.safe_load(card_path(path).read_text())) == {
        'format', *(field.name for field in fields(Card))}


@pytest.mark.parametrize('text, words', [
    (b'classes: [', ('cannot be read as YAML',)), (b'\xff\xfe\x00', ('cannot be read as YAML',)),
    (b'[' * 1500, ('cannot be read as YAML',)), (b'', ('not a card',)),
    (b'- 1', ('not a card',)), (b'just words', ('not a card',)),
    (b'a: &a [1]\nb: [*a, *a]', ('cannot be read as YAML', 'alias')),
    (b'a: 0x' + b'f' * 20_000, ('an integer of 80000 bits',)),
    (b'a: 2020-99-99', ('cannot be read as YAML',)),
    (b'a: ' + b'9' * 5000, ('cannot be read as YAML',)),
    (b'a: ' + b'59:' * 50_000 + b'59.9', ('cannot be read as YAML',)),
    (b'!!python/object/apply:os.getcwd []', ('cannot be read as YAML',))])
def test_file_that_is_not_a_card(text, words, path):
    card_path(path).write_bytes(text)
    message = failure(path)
    assert message.startswith(f'{card_path(path)}: ')
    assert all(word in message for word in words), message


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'file'
    write_atomically(path, b'old')

    def fail(source, target):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(files.os, 'replace', fail)
    with pytest.raises(OSError, match='No space'):
        write_atomically(path, b'new')
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['file']


def test_failed_save_names_the_file_and_keeps_the_old_pair(path, network, monkeypatch):
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    card = Card('new', CLASSES, network.config)

    def fail(source, target):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(files.os, 'replace', fail)
        with pytest.raises(CheckpointError, match=f'^{path}: cannot be written: No space'):
            save_checkpoint(path, network, card)
    with pytest.raises(CheckpointError, match=f'^{path}: the card holds something'):
        save_checkpoint(path, network, replace(card, metrics={'AP50': object()}))
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_save_where_nothing_can_be_written(path, network):
    card = Card('new', CLASSES, network.config)
    below_a_file = path / 'new.safetensors'
    with pytest.raises(CheckpointError, match=f'^{below_a_file}: cannot be written'):
        save_checkpoint(below_a_file, network, card)
    with pytest.raises(CheckpointError, match='must end in .safetensors'):
        save_checkpoint(path.with_suffix('.pt'), network, card)


def test_default_checkpoint_is_searched_in_the_prefixes(tmp_path, monkeypatch):
    source = tmp_path / 'source'
    monkeypatch.setattr(files, '__file__', str(source / 'package' / 'file.py'))
    monkeypatch.setattr(files.sys, 'prefix', str(tmp_path / 'python'))
    overlay, underlay = tmp_path / 'overlay', tmp_path / 'underlay'
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{overlay}:{underlay}')
    with pytest.raises(CheckpointError) as error:
        default_checkpoint()
    assert '\n' not in str(error.value) and str(underlay) in str(error.value)
    share = 'share/forecast_detector_ros/checkpoints/default.safetensors'
    found = []
    # From the last place to the first: an earlier place has priority.
    for place in (tmp_path / 'python' / share, underlay / share, overlay / share,
                  source / 'checkpoints' / 'default.safetensors'):
        place.parent.mkdir(parents=True)
        place.write_bytes(b'')
        found.append(default_checkpoint() == place)
    assert found == [True] * 4


def test_a_name_of_the_package_is_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in SHIPPED:
        checkpoint = read_checkpoint(name)
        assert (checkpoint.path, checkpoint.card.name) == (shipped_checkpoint(name), name)
    # A folder of the user has priority.
    (tmp_path / 'default').mkdir()
    with pytest.raises(CheckpointError, match='^default: must have one checkpoint, has none;'):
        read_checkpoint('default')
    with pytest.raises(CheckpointError, match='^huge: .*or one of small, default, large$'):
        read_checkpoint('huge')


def test_card_of_aliases_is_refused_before_they_are_followed(path):
    # Nine levels of nine aliases each expand to about 400 million values.
    lines = ['a0: &a0 [lol]']
    lines += [f'a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 9)}]' for n in range(1, 10)]
    card_path(path).write_text('\n'.join(lines))
    assert 'alias' in failure(path)


def test_a_folder_with_one_checkpoint_is_that_checkpoint(tmp_path):
    shipped = shipped_checkpoint('small')
    for file in (shipped, card_path(shipped)):
        shutil.copy(file, tmp_path / file.name)
    (tmp_path / 'last.snapshot.safetensors').write_bytes(b'')
    assert read_checkpoint(tmp_path).path == tmp_path / 'small.safetensors'
    shutil.copy(shipped, tmp_path / 'other.safetensors')
    with pytest.raises(CheckpointError, match='has other.safetensors, small.safetensors; name'):
        read_checkpoint(tmp_path)
