# SPDX-License-Identifier: Apache-2.0
"""
Bottleneck LSTM (Liu & Zhu, CVPR 2018, section 3.2: https://arxiv.org/abs/1711.06368).

With x the input and h, c the state that is passed in::

    b = relu6(sepconv([x, h]))
    i, f, o, j = sepconv(b)
    c' = clip(sigmoid(f) * c + sigmoid(i) * relu6(j), 0, 6)
    h' = sigmoid(o) * relu6(c')

sepconv is a 3x3 depthwise convolution followed by a 1x1 convolution with bias.  The four gates
share one depthwise convolution, as in the authors' published implementation.
"""

from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional

CELL_LIMIT = 6.0
"""Upper limit of the cell, the one of ReLU6; keeps the cell in the range of the features."""


class LSTMState(NamedTuple):
    """State of a bottleneck LSTM: `hidden` and `cell`, both ``(B, hidden, h, w)`` in [0, 6]."""

    hidden: Tensor
    cell: Tensor


def separable_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Build a 3x3 depthwise convolution and a 1x1 convolution with bias, nothing between."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1))


class BottleneckLSTM(nn.Module):
    """
    Convolutional LSTM whose gates are computed from a bottleneck of input and state.

    Parameters
    ----------
    channels:
        Channels of the input.
    hidden:
        Channels of the bottleneck, the cell and the output.

    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.bottleneck = separable_conv(channels + hidden, hidden)
        self.gates = separable_conv(hidden, 4 * hidden)
        bias = self.gates[1].get_parameter('bias')
        with torch.no_grad():
            bias.zero_()
            # Forget bias +1 (Jozefowicz et al. 2015): at the start of training the cell
            # remembers.
            bias[hidden:2 * hidden] = 1.0

    def initial_state(self, batch: int, size: tuple[int, int], like: Tensor) -> LSTMState:
        """Give the zero state for maps of ``(height, width)``, on the device of `like`."""
        zeros = like.new_zeros((batch, self.hidden, *size))
        return LSTMState(zeros, zeros)

    def forward(self, x: Tensor, state: LSTMState) -> LSTMState:
        """
        Advance by one time step.

        Parameters
        ----------
        x:
            ``(B, channels, h, w)`` float.
        state:
            State of the step before; it is not changed.

        Returns
        -------
        LSTMState
            The new state; its `hidden`, in [0, 6], is the output.

        """
        b = functional.relu6(self.bottleneck(torch.cat((x, state.hidden), 1)))
        i, f, o, j = self.gates(b).chunk(4, 1)
        cell = torch.sigmoid(f) * state.cell + torch.sigmoid(i) * functional.relu6(j)
        cell = cell.clamp(0.0, CELL_LIMIT)
        return LSTMState(torch.sigmoid(o) * functional.relu6(cell), cell)
