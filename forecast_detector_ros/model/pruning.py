# SPDX-License-Identifier: Apache-2.0
"""
Channels inside MobileNetV2's blocks that have one value for every image, and blocks without them.

Training with weight decay leaves such channels: all weights of a filter are zero. What they add to
the next layer is a constant, which goes into the BatchNorm behind it. The function stays the same.
"""

from typing import NamedTuple

import torch
from torch import nn, Tensor

#: A channel is constant if no input changes it by more. Activations are from 0 to 6.
NEGLIGIBLE = 1e-3

#: Counts of channels are multiples of it: AVX-512 computes with as many numbers at once.
MULTIPLE = 16

_MOST = 6.0  #: Of ReLU6


class Expansion(NamedTuple):
    """A block's inner layers: between `expand` and `project` are the channels that can go."""

    expand: nn.Module  #: Convolution, BatchNorm, ReLU6; 1x1, or the first convolution of all
    depthwise: nn.Module  #: The same three
    project: nn.Conv2d  #: 1x1
    norm: nn.BatchNorm2d  #: The BatchNorm behind it

    #: Other layers that read what `expand` gives: 1x1 convolution and BatchNorm.
    readers: tuple[nn.Module, ...] = ()

    @property
    def channels(self) -> int:
        """Count the inner channels."""
        return self.project.weight.shape[1]


@torch.no_grad()
def narrow(block: Expansion, kept: Tensor) -> None:
    """Keep the inner channels with the indices `kept` and drop the others."""
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
    """Count the inner channels that are not constant."""
    return int((_reach(block) >= NEGLIGIBLE).sum())


@torch.no_grad()
def drop_constant(block: Expansion, channels: int) -> None:
    """
    Drop constant channels and give what they add to the BatchNorms behind them.

    :param channels: number of channels that stay, at least `used_channels`
    """
    # Those that change the most stay, so that related weights keep the same channels.
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
    """Bound how much images can change each inner channel; ``(channels,)`` from 0 to 6."""
    weight, bias = _folded(block.expand)
    inner = weight.abs().sum(1)
    # Padding is zero: a channel that is zero everywhere has no border.
    silent = (inner < NEGLIGIBLE) & (bias <= 0.0)
    weight, bias = _folded(block.depthwise)
    low = bias + _MOST * weight.clamp(max=0.0).sum(1)
    high = bias + _MOST * weight.clamp(min=0.0).sum(1)
    reach = high.clamp(0.0, _MOST) - low.clamp(0.0, _MOST)
    reach[silent] = 0.0
    return torch.maximum(reach, inner) if block.readers else reach


def _folded(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Give weights ``(channels, inputs)`` and biases of a convolution with its BatchNorm."""
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
    """Give the convolutions that read inner channels, the block's own first, and their norms."""
    return [(block.project, block.norm), *map(_parts, block.readers)]


def _replace(module: nn.Module, name: str, value: Tensor) -> None:
    """Put a tensor of another shape in the place of a parameter or buffer."""
    old = getattr(module, name)
    value = value.clone(memory_format=torch.contiguous_format)
    setattr(module, name, nn.Parameter(value, old.requires_grad)
            if isinstance(old, nn.Parameter) else value)
