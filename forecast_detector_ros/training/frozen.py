# SPDX-License-Identifier: Apache-2.0
"""
Features without gradients: the blocks of the backbone that a stage does not train, made fast.

What is frozen gives no gradients and keeps its BatchNorm statistics, so BatchNorm can be folded
into the convolutions, the weights can have the type that the images are computed in, and a few
images at a time stay in the processor's cache.
"""

import torch
from torch import nn, Tensor

from ..model.folding import fold_batch_norm
from ..model.network import ForecastDetector

# Images that are computed together on a CPU: measured, 4 and 8 were the fastest for 320x320.
_CHUNK = 4


class FrozenFeatures:
    """
    Extract features with a copy of the frozen part of a network's backbone.

    :param network: its normalisation, and the blocks that are trained, are used as they are at
        each call
    :param blocks: number of blocks of `extractor.stem` that are frozen; None if all of the
        extractor is
    :param dtype: type that the frozen part computes in; it stays on the device that the network is
        on
    """

    def __init__(self, network: ForecastDetector, blocks: int | None,
                 dtype: torch.dtype = torch.float32) -> None:
        self._network = network
        self._skip = blocks
        extractor = network.extractor
        part: nn.Module = extractor if blocks is None else extractor.stem[:blocks]
        self._part = fold_batch_norm(part).to(dtype).to(memory_format=torch.channels_last)
        self._part.requires_grad_(False)
        self._dtype = dtype

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """
        Extract `feature` from 8-bit RGB images.

        :param images: ``(N, 3, H, W)`` uint8
        :returns: one map per level; with gradients for the blocks that are not frozen
        """
        with torch.no_grad():
            chunk_size = _CHUNK if images.device.type == 'cpu' else len(images)
            parts = [self._part(self._network.normalise(chunk).to(
                self._dtype, memory_format=torch.channels_last))
                for chunk in images.split(chunk_size)]
        if self._skip is None:
            return tuple(torch.cat(level) for level in zip(*parts))
        return self._network.extractor(torch.cat(parts), self._skip)
