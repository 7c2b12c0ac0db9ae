# SPDX-License-Identifier: Apache-2.0
"""
Remove constant channels from MobileNetV2's blocks.

After training with weight decay, all weights of some filters are zero. Such a channel adds a
constant to the next layer, which is folded into that layer's BatchNorm. The function is the same.
"""

from typing import NamedTuple

import torch
from torch import nn, Tensor

#: Largest change of a constant channel by any input. Activations are in [0, 6].
NEGLIGIBLE = 1e-3

#: Counts of channels are multiples of it, which is the number of float32 in AVX-512.
MULTIPLE = 16

_MOST = 6.0  #: Largest output of ReLU6


class Expansion(NamedTuple):
    """A block's inner layers; the channels between `expand` and `project` can be dropped."""

    expand: nn.Module  #: 1x1 or first convolution, BatchNorm, ReLU6
    depthwise: nn.Module  #: Depthwise convolution, BatchNorm, ReLU6
    project: nn.Conv2d  #: 1x1 convolution
    norm: nn.BatchNorm2d  #: BatchNorm after `project`

    #: Other layers that read the output of `expand`: 1x1 convolution and BatchNorm.
    readers: tuple[nn.Module, ...] = ()

    @property
    def channels(self) -> int:
        """Return the number of inner channels."""
        return self.project.weight.shape[1]


@torch.no_grad()
def narrow(block: Expansion, kept: Tensor) -> None:
    """Keep only the inner channels with the indices `kept`, in place."""
    for convolution, norm in map(_parts, (block.expand, block.depthwise)):
        _replace(convolution, 'weight', convolution.weight[kept])
        convolution.out_channels = norm.num_features = len(kept)
        if convolution.groups > 1:
            convolution.groups = convolution.in_channels = len(kept)
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            _replace(norm, name, getattr(norm, name)[kept])
    for reader, _ in _readers(block):
        _replace(reader, 'weight', reader.weight[:, kept])
        reader.in_channels = len(kept)


@torch.no_grad()
def used_channels(block: Expansion) -> int:
    """Return the number of inner channels that are not constant."""
    return int((_reach(block) >= NEGLIGIBLE).sum())


@torch.no_grad()
def drop_constant(block: Expansion, channels: int) -> None:
    """
    Drop constant channels in place, and fold their constants into the following BatchNorms.

    :param channels: number of kept channels, at least `used_channels`
    """
    # Keep those that change most, so that related weights keep the same channels.
    kept = _reach(block).argsort(descending=True, stable=True)[:channels].sort().values
    gone = torch.ones(block.channels, dtype=torch.bool)
    gone[kept] = False
    inner, outer = (_folded(layer)[1].clamp(0.0, _MOST)
                    for layer in (block.expand, block.depthwise))
    for (reader, norm), value in zip(_readers(block), (outer, *[inner] * len(block.readers))):
        added = reader.weight[:, gone, 0, 0].double() @ value[gone]
        norm.get_buffer('running_mean').sub_(added)
    narrow(block, kept)


def _reach(block: Expansion) -> Tensor:
    """Return a bound of the change of each inner channel, ``(channels,)`` in [0, 6]."""
    weight, bias = _folded(block.expand)
    inner = weight.abs().sum(1)
    # Padding is zero, so only a channel that is zero is also constant at the edges.
    silent = (inner < NEGLIGIBLE) & (bias <= 0.0)
    weight, bias = _folded(block.depthwise)
    low = bias + _MOST * weight.clamp(max=0.0).sum(1)
    high = bias + _MOST * weight.clamp(min=0.0).sum(1)
    reach = high.clamp(0.0, _MOST) - low.clamp(0.0, _MOST)
    reach[silent] = 0.0
    return torch.maximum(reach, inner) if block.readers else reach


def _folded(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weights ``(channels, inputs)`` and biases of a convolution with folded BatchNorm."""
    convolution, norm = _parts(layer)
    factor = norm.weight.double() / (
        norm.get_buffer('running_var').double() + norm.eps).sqrt()
    bias = norm.bias - norm.get_buffer('running_mean') * factor
    return convolution.weight.flatten(1).double() * factor[:, None], bias


def _parts(layer: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution, norm = layer.get_submodule('0'), layer.get_submodule('1')
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return convolution, norm


def _readers(block: Expansion) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return the convolutions that read inner channels, `project` first, and their norms."""
    return [(block.project, block.norm), *map(_parts, block.readers)]


def _replace(module: nn.Module, name: str, value: Tensor) -> None:
    old = getattr(module, name)
    value = value.clone(memory_format=torch.contiguous_format)
    setattr(module, name, nn.Parameter(value, old.requires_grad)
            if isinstance(old, nn.Parameter) else value)
