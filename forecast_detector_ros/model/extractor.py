# SPDX-License-Identifier: Apache-2.0
"""
Feature extractor: the levels of torchvision's MobileNetV2.

F_t of the paper is "the feature map before its average pool layer" of MobileNetV2 (section 4.2):
1280 channels at stride 32. Here the number of channels is configurable, because it determines the
cost of a forecast frame.
"""
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise

import torch
from torch import nn, Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import mobilenet_v2
from torchvision.ops import Conv2dNormActivation

from .config import EXPANSIONS, IMAGENET_MEAN, IMAGENET_STD, LEVELS, LITERAL_CHANNELS, WIDTHS
from .pruning import drop_constant, Expansion, MULTIPLE, narrow, used_channels

# torchvision numbers the stem 0, so the paper's inverted-residual block 13 is number 14. It has
# stride 2, and its expansion is the last map at stride 16 (ssdlite's C4).
_BLOCK_13 = 14

# torchvision's block 7 goes to stride 16; the seven blocks before it end at stride 8.
_STRIDE_8 = 7


class Extractor(nn.Module):
    """
    Map images to one feature map per level, shallow level first.

    :param width: MobileNetV2's alpha, one of `WIDTHS`
    :param levels: strides of the levels, one of `LEVELS`
    :param feature_channels: channels of each level. If the backbone's map has another number of
        channels, a 1x1 convolution, BN and ReLU6 follow. A linear map would have negative values,
        which the output of an LSTM cannot forecast.
    :param tail: whether the backbone ends with MobileNetV2's convolution to 1280 channels, or
        before it with 320
    :param expansion_channels: inner channels of the blocks, as in `NetworkConfig`; None for those
        of MobileNetV2
    :raises ValueError: if an argument is not one of these values
    """

    def __init__(self, width: float = 1.0, levels: tuple[int, ...] = (32,),
                 feature_channels: tuple[int, ...] = (LITERAL_CHANNELS,), tail: bool = True,
                 expansion_channels: tuple[int, ...] | None = None) -> None:
        super().__init__()
        if width not in WIDTHS:
            raise ValueError(f'width is {width}, must be one of {WIDTHS}')
        if levels not in LEVELS:
            raise ValueError(f'levels is {levels}, must be one of {LEVELS}')
        if len(feature_channels) != len(levels):
            raise ValueError(
                f'feature_channels is {feature_channels}, must have one number for each of the '
                f'levels {levels}')
        features = mobilenet_v2(weights=None, width_mult=width).features
        if not tail:
            features = features[:-1]
        block_13 = features[_BLOCK_13].conv
        self.levels = levels
        self.feature_channels = feature_channels
        # The backbone is divided at the output of stride 16: `stem` ends with block 13's
        # expansion, `trunk` is the rest of block 13 and all later blocks.
        self.stem = nn.Sequential(OrderedDict(
            [(str(i), features[i]) for i in range(_BLOCK_13)] + [('expand', block_13[0])]))
        self.trunk = nn.Sequential(OrderedDict(
            [('project', block_13[1:])]
            + [(str(i), features[i]) for i in range(_BLOCK_13 + 1, len(features))]))
        self.projections = nn.ModuleList()
        if expansion_channels is not None:
            self._narrow(expansion_channels)
        backbone_channels = {8: features[_STRIDE_8 - 1].out_channels,
                             16: block_13[0][0].out_channels,
                             32: features[-1].out_channels}
        self.projections.extend(
            nn.Identity() if backbone_channels[stride] == channels
            else Conv2dNormActivation(backbone_channels[stride], channels, kernel_size=1,
                                      activation_layer=nn.ReLU6)
            for stride, channels in zip(levels, feature_channels))

    def _narrow(self, channels: tuple[int, ...]) -> None:
        blocks = self.expansions()
        most = tuple(block.channels for block in blocks)
        if len(channels) != len(most) or not all(
                1 <= count <= limit for count, limit in zip(channels, most)):
            raise ValueError(f'expansion_channels is {channels}, must be {len(most)} numbers from '
                             f'1 to {most}')
        for block, count in zip(blocks, channels):
            narrow(block, torch.arange(count))

    def expansions(self) -> list[Expansion]:
        """Return the inner layers of each block; the first convolution belongs to block 1."""
        readers = tuple(part for stride, part in zip(self.levels, self.projections)
                        if stride == 16 and not isinstance(part, nn.Identity))
        # Block 1 has no expansion; its input is that of the first convolution.
        layers = [[self.stem[0], *_layers(self.stem[1])],
                  *(_layers(block) for block in self.stem[2:_BLOCK_13]),
                  [self.stem.get_submodule('expand'), *self.trunk[0].children()],
                  *(_layers(block) for block in self.trunk[1:] if hasattr(block, 'conv'))]
        return [Expansion._make([*parts, readers if place == _BLOCK_13 - 1 else ()])
                for place, parts in enumerate(layers)]

    def drop_constant(self) -> None:
        """
        Drop inner channels that are constant for all images, without changing the features.

        The numbers of kept channels are the smallest possible multiples of `MULTIPLE`.
        """
        for place, block in enumerate(self.expansions()):
            if place == _BLOCK_13 - 1 and 16 in self.levels and not block.readers:
                continue  # These channels are the features of a level.
            used = max(used_channels(block), 1)
            drop_constant(block, min(block.channels, -(-used // MULTIPLE) * MULTIPLE))

    def forward(self, image: Tensor, skip: int = 0) -> tuple[Tensor, ...]:
        """
        Extract the features of a batch of images.

        :param image: ``(B, 3, H, W)`` float, RGB, ImageNet-normalised
        :param skip: number of blocks of `stem` that were run already; `image` is the output of the
            last one. At most 7 if stride 8 is among the levels.
        :returns: a ``(B, C, ceil(H / stride), ceil(W / stride))`` map per level, values in [0, 6]
        """
        taps = {}
        if 8 in self.levels:
            # Later blocks cannot be skipped, because their input is a level's map.
            taps[8] = image = self.stem[skip:_STRIDE_8](image)
            skip = _STRIDE_8
        taps[16] = self.stem[skip:](image) if skip else self.stem(image)
        taps[32] = self.trunk(taps[16])
        return tuple(projection(taps[stride])
                     for stride, projection in zip(self.levels, self.projections))

    def load_imagenet(self, state_dict: dict[str, Tensor]) -> None:
        """
        Load ImageNet weights with torchvision's names into the backbone.

        :param state_dict: state of ``torchvision.models.mobilenet_v2`` of the same width; the
            entries of the classifier are not used
        :raises ValueError: if an entry of the backbone is missing or has another shape
        """
        own = {}
        for key in self.state_dict():
            part, _, rest = key.partition('.')
            if part == 'projections':
                continue
            index, _, tail = rest.partition('.')
            if index == 'expand':
                source = f'features.{_BLOCK_13}.conv.0.{tail}'
            elif index == 'project':
                source = f'features.{_BLOCK_13}.conv.{tail}'
            else:
                source = f'features.{index}.{tail}'
            if source not in state_dict:
                raise ValueError(f'ImageNet weights lack {source}')
            own[key] = state_dict[source]
        try:
            self.load_state_dict(own, strict=False)
        except RuntimeError as error:
            raise ValueError(f'ImageNet weights do not fit this width: {error}') from None

    @torch.no_grad()
    def expect_normalised(self) -> None:
        """
        Adapt weights that were trained on RGB in [-1, 1] to ImageNet-normalised pictures.

        Scale and shift are folded into the first convolution and the mean of its BatchNorm. Only
        the values at the edges change, because padding then stands for another colour.
        """
        convolution, norm = self.stem.get_submodule('0.0'), self.stem.get_submodule('0.1')
        weight = convolution.get_parameter('weight')
        # A colour x in [0, 1] was (x - 0.5) / 0.5 in training, and is (x - mean) / std here.
        shift = torch.tensor([(mean - 0.5) / 0.5 for mean in IMAGENET_MEAN])
        norm.get_buffer('running_mean').sub_((weight.sum((2, 3)) * shift).sum(1))
        weight.mul_((torch.tensor(IMAGENET_STD) / 0.5).view(1, 3, 1, 1))


def _layers(block: nn.Module) -> list[nn.Module]:
    return list(block.get_submodule('conv').children())


def expansion_channels(weights: Mapping[str, Tensor]) -> tuple[int, ...] | None:
    """
    Return the `NetworkConfig.expansion_channels` of a network's weights.

    :param weights: state of a network, with the keys of its ``extractor.``
    :raises KeyError: if the weights of a block are missing
    """
    first = ['stem.0.0', *(f'stem.{block}.conv.0.0' for block in range(2, _BLOCK_13)),
             'stem.expand.0']
    first += [f'trunk.{block}.conv.0.0' for block in range(_BLOCK_13 + 1, len(EXPANSIONS) + 1)]
    found = tuple(len(weights[f'extractor.{name}.weight']) for name in first)
    return None if found == EXPANSIONS else found


def first_blocks(levels: tuple[int, ...]) -> int:
    """Return how many blocks of `Extractor.stem` come before its first level."""
    return _STRIDE_8 if 8 in levels else _BLOCK_13


def feature_sizes(input_size: tuple[int, int], levels: tuple[int, ...]
                  ) -> tuple[tuple[int, int], ...]:
    """
    Return the (height, width) of each level's map for an input of (height, width) pixels.

    MobileNetV2 halves sizes with 3x3 convolutions of padding 1, which round up.
    """
    height, width = input_size
    return tuple((-(-height // stride), -(-width // stride)) for stride in levels)


def freeze_batch_norm(module: nn.Module) -> None:
    """Put every BatchNorm of a module into evaluation mode, which keeps its statistics."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


@contextmanager
def kept_statistics(module: nn.Module) -> Iterator[None]:
    """Normalise with the running statistics inside the context, and do not update them."""
    norms = [part for part in module.modules()
             if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def parameter_count(module: nn.Module) -> int:
    """Count the elements of all parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """
    Return a copy of a module in evaluation mode, with BatchNorm folded into convolutions.

    A BatchNorm is folded if it directly follows a convolution in a `Sequential`, or is named
    ``norm`` beside a ``conv``. An identity replaces it, so that children keep their names. The
    copy has its own weights.

    :param module: any module; it is not changed
    """
    folded = deepcopy(module).eval()
    for part in list(folded.modules()):
        children = list(part.named_children())
        if not isinstance(part, nn.Sequential):
            children = [child for child in children if child[0] in ('conv', 'norm')]
        for (name, first), (next_name, second) in pairwise(children):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(part, name, fuse_conv_bn_eval(first, second))
                setattr(part, next_name, nn.Identity())
    return folded
