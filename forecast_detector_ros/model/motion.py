# SPDX-License-Identifier: Apache-2.0
"""
Forecast where, not what: the motion of boxes between frames that are read.

An object stays what it is for some frames, but moves. So this encoder compares the features of the
last two frames that were read, and gives every cell of the head's maps a motion. A forecast keeps
the head's scores of the last read and moves its boxes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional
from torchvision.ops import Conv2dNormActivation

from .encoder import Encoder, LSTMState
from .scheduler import Correlation, unit_vectors

TERMS = 2  #: Motions of a cell: one that goes on for ever, and one that comes to rest

_REACH = 2  #: Cells of stride 8 to each side in which a cell is looked for

_SHALLOW, _MIDDLE, _DEEP = 16, 32, 64  #: Channels that are compared at the strides 8, 16 and 32


class Keys(NamedTuple):
    """Unit vectors of each level's cells, to compare with the next frame."""

    maps: tuple[Tensor, ...]  #: ``(B, K, h, w)`` per level, strides 8, 16 and 32


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        Conv2dNormActivation(inputs, inputs, 3, stride=stride, groups=inputs,
                             activation_layer=nn.ReLU6),
        Conv2dNormActivation(inputs, outputs, 1, activation_layer=nn.ReLU6))


def shifted_cosines(a: Tensor, b: Tensor, reach: int = _REACH) -> Tensor:
    """
    Correlate unit vectors over a square neighbourhood, displacement by displacement.

    The same as `Correlation` for maps of many cells, of which all pairs would be too many.

    :param a, b: ``(B, C, h, w)`` float
    :param reach: cells to each side
    :returns: ``(B, (2 * reach + 1) ** 2, h, w)``, in [-1, 1]; (dy, dx) row by row from (-reach,
        -reach)
    """
    height, width = a.shape[2:]
    padded = functional.pad(b, (reach,) * 4)
    side = range(2 * reach + 1)
    return torch.stack([(a * padded[:, :, y:y + height, x:x + width]).sum(1)
                        for y in side for x in side], 1)


class Shift(nn.Module):
    """
    Read the likely motion off a correlation: the mean displacement under a softmax.

    :param reach: cells to each side that the correlation covers
    """

    places: Tensor

    def __init__(self, reach: int) -> None:
        super().__init__()
        side = torch.arange(-reach, reach + 1, dtype=torch.float32)
        dy, dx = torch.meshgrid(side, side, indexing='ij')
        # What is found at a displacement in the frame before has moved the other way.
        self.register_buffer('places', -torch.stack((dx.flatten(), dy.flatten())),
                             persistent=False)
        # Cosines differ by tenths; 20 lets the best one count for most.
        self.sharpness = nn.Parameter(torch.tensor(20.0))

    def forward(self, correlation: Tensor) -> Tensor:
        """Append (dx, dy), in cells, to ``(B, D, h, w)`` cosines: ``(B, D + 2, h, w)``."""
        weights = (correlation * self.sharpness).softmax(1)
        shift = torch.einsum('kd,bdhw->bkhw', self.places, weights)
        return torch.cat((correlation, shift), 1)


class MotionEncoder(nn.Module):
    """
    Encoder 1 for motion: from the features of two frames to the motion of every cell.

    :param channels: channels of the levels' features, strides 8, 16 and 32
    :param sizes: (height, width) of the levels' maps
    :param maps: number of maps that the head predicts from: the levels and the extra ones
    :param hidden: channels of the LSTM at stride 16 and of all maps behind it
    """

    def __init__(self, channels: Sequence[int], sizes: Sequence[tuple[int, int]], maps: int,
                 hidden: int = 64) -> None:
        super().__init__()
        self.key_channels = (_SHALLOW, _MIDDLE, _DEEP)
        self.outputs = 4 * TERMS
        self.keys = nn.ModuleList(nn.Conv2d(c, k, 1, bias=False)
                                  for c, k in zip(channels, self.key_channels))
        self.middle = Correlation(sizes[1])
        self.deep = Correlation(sizes[2])
        self.shifts = nn.ModuleList((Shift(_REACH), Shift(3), Shift(3)))
        near = (2 * _REACH + 1) ** 2 + 2
        self.fine = _separable(near + 2 * _SHALLOW, hidden // 2)
        self.down = _separable(hidden // 2, hidden // 2, stride=2)
        self.mix = Conv2dNormActivation(
            hidden // 2 + self.middle.channels + 2 + 2 * _MIDDLE, hidden, 1,
            activation_layer=nn.ReLU6)
        self.encoder = Encoder(hidden, hidden, 'direct')
        self.far = Conv2dNormActivation(hidden + self.deep.channels + 2, hidden, 1,
                                        activation_layer=nn.ReLU6)
        self.coarser = nn.ModuleList(_separable(hidden, hidden, stride=2)
                                     for _ in range(maps - 2))
        self.up = nn.Conv2d(hidden, hidden // 2, 1)
        widths = (hidden, *(hidden for _ in range(maps - 1)))
        self.predictors = nn.ModuleList(nn.Sequential(
            nn.Conv2d(w, w, 3, padding=1, groups=w), nn.ReLU6(), nn.Conv2d(w, 4 * TERMS, 1))
            for w in widths)
        for predictor in self.predictors:
            # Untrained, nothing moves: a forecast starts as good as the last read.
            last = predictor.get_submodule('2')
            nn.init.zeros_(last.get_parameter('weight'))
            nn.init.zeros_(last.get_parameter('bias'))

    def look(self, feature: Sequence[Tensor]) -> Keys:
        """Give what is compared of a frame, from its features."""
        return Keys(tuple(unit_vectors(key(x))
                          for key, x in zip(self.keys, feature)))

    def forward(self, now: Keys, before: Keys, state: LSTMState
                ) -> tuple[Tensor, Tensor, LSTMState]:
        """
        Compare two frames that were read.

        :param now, before: keys of the frame and of the one read before it; zeros where there is
            none
        :param state: of the LSTM, ``(B, hidden, h, w)`` at stride 16
        :returns: the motion ``(B, cells, 4 * TERMS)`` of the cells of all maps, in order; the map
            of stride 32 ``(B, hidden, h, w)`` for the scheduler; the LSTM's new state
        """
        a8, a16, a32 = now.maps
        b8, b16, b32 = before.maps
        fine = self.fine(torch.cat((self.shifts[0](shifted_cosines(a8, b8)), a8, a8 - b8), 1))
        middle = self.mix(torch.cat(
            (self.down(fine), self.shifts[1](self.middle(a16, b16)), a16, a16 - b16), 1))
        middle, state = self.encoder(middle, state)
        maps = [torch.cat((fine, functional.interpolate(
            self.up(middle), size=fine.shape[2:], mode='nearest')), 1), middle]
        deep = middle
        for number, layer in enumerate(self.coarser):
            deep = layer(deep)
            if number == 0:
                deep = self.far(torch.cat((deep, self.shifts[2](self.deep(a32, b32))), 1))
            maps.append(deep)
        motion = torch.cat([predictor(x).flatten(2).transpose(1, 2)
                            for predictor, x in zip(self.predictors, maps)], 1)
        return motion, maps[2], state


def displacement(motion: Tensor, ahead: Tensor) -> Tensor:
    """
    Give how far boxes have moved.

    :param motion: ``(B, N, 4 * TERMS)``
    :param ahead: ``(B, 1)``: time since the last read over the time between the last two
    :returns: ``(B, N, 4)``: (dx, dy) in cells of the box's map, (dw, dh) as logarithms
    """
    lasting, passing = motion.chunk(TERMS, 2)
    x = ahead[:, :, None]
    return lasting * x + passing * (x / (1.0 + x))
