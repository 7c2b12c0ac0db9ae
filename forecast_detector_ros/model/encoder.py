# SPDX-License-Identifier: Apache-2.0
"""
Encoder: spatial attention followed by a bottleneck LSTM (paper, section 3.1).

Two of them are stacked at every level: Encoder 1 makes `forecast` from `feature`, Encoder 2
makes `temporal` from `forecast`. The bottleneck LSTM (Liu & Zhu, CVPR 2018, section 3.2:
https://arxiv.org/abs/1711.06368) has the input x and the state h, c::

    b = relu6(sepconv([x, h]))
    i, f, o, j = sepconv(b)
    c' = clip(sigmoid(f) * c + sigmoid(i) * relu6(j), 0, 6)
    h' = sigmoid(o) * relu6(c')

sepconv is a 3x3 depthwise convolution followed by a 1x1 convolution with bias. The four gates
share one depthwise convolution, as in the authors' implementation.
"""
from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional

from .config import FEATURE_MODES

#: Upper limit of the cell, as of ReLU6; it keeps the cell in the range of the features.
CELL_LIMIT = 6.0


class LSTMState(NamedTuple):
    """State of a bottleneck LSTM: `hidden` and `cell`, both ``(B, hidden, h, w)`` in [0, 6]."""

    hidden: Tensor
    cell: Tensor


def separable_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Build a 3x3 depthwise convolution followed by a 1x1 convolution with bias."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1))


class BottleneckLSTM(nn.Module):
    """
    Convolutional LSTM whose gates are computed from a bottleneck of input and state.

    :param channels: channels of the input
    :param hidden: channels of the bottleneck, the cell and the output
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.bottleneck = separable_conv(channels + hidden, hidden)
        self.gates = separable_conv(hidden, 4 * hidden)
        bias = self.gates[1].get_parameter('bias')
        with torch.no_grad():
            bias.zero_()
            # Forget bias +1 (Jozefowicz et al. 2015), so that an untrained cell keeps its value.
            bias[hidden:2 * hidden] = 1.0

    def forward(self, x: Tensor, state: LSTMState) -> LSTMState:
        """
        Advance by one time step.

        :param x: ``(B, channels, h, w)`` float
        :param state: previous state; it is not changed
        :returns: the new state; its `hidden`, in [0, 6], is the output
        """
        b = functional.relu6(self.bottleneck(torch.cat((x, state.hidden), 1)))
        i, f, o, j = self.gates(b).chunk(4, 1)
        cell = torch.sigmoid(f) * state.cell + torch.sigmoid(i) * functional.relu6(j)
        cell = cell.clamp(0.0, CELL_LIMIT)
        return LSTMState(torch.sigmoid(o) * functional.relu6(cell), cell)


ATTENTION_KERNEL = 7  #: Kernel size of the spatial attention (Woo et al., ECCV 2018, table 2)


class SpatialAttention(nn.Module):
    """
    Spatial attention of CBAM (Woo et al., ECCV 2018, section 3, equation 3).

    The maximum and the mean over channels go through a 7x7 convolution without bias, BN and a
    sigmoid; the input is multiplied by the result.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, ATTENTION_KERNEL, padding=ATTENTION_KERNEL // 2, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply each position of ``(B, C, h, w)`` by a factor in (0, 1); same shape."""
        pooled = torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), 1)
        return x * torch.sigmoid(self.norm(self.conv(pooled)))


class Encoder(nn.Module):
    """
    Spatial attention, bottleneck LSTM, and a projection to the level's channels.

    :param channels: channels of input and output
    :param hidden: channels of the LSTM
    :param mode: ``direct``, as in the paper: the output is the LSTM's, after a 1x1 convolution and
        ReLU6 if `hidden` differs from `channels`. ``residual``: the output is relu6(input +
        delta), where delta is a 1x1 convolution of the LSTM's output, initially zero, so that an
        untrained encoder returns its input.
    :param attention: whether spatial attention precedes the LSTM
    :raises ValueError: if `mode` is not one of `FEATURE_MODES`
    """

    def __init__(self, channels: int, hidden: int, mode: str = 'direct',
                 attention: bool = True) -> None:
        super().__init__()
        if mode not in FEATURE_MODES:
            raise ValueError(f'forecast_mode is {mode!r}, must be one of {FEATURE_MODES}')
        self.mode = mode
        self.attention = SpatialAttention() if attention else nn.Identity()
        self.lstm = BottleneckLSTM(channels, hidden)
        self.expand: nn.Module = nn.Identity()
        if mode == 'residual':
            delta = nn.Conv2d(hidden, channels, 1)
            nn.init.zeros_(delta.weight)
            assert delta.bias is not None
            nn.init.zeros_(delta.bias)
            self.expand = delta
        elif hidden != channels:
            self.expand = nn.Sequential(nn.Conv2d(hidden, channels, 1), nn.ReLU6())

    def forward(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """
        Encode one time step.

        :param x: ``(B, channels, h, w)`` float, in [0, 6]
        :param state: previous state of the LSTM
        :returns: the output, ``(B, channels, h, w)`` in [0, 6], and the LSTM's new state
        """
        state = self.lstm(self.attention(x), state)
        out = self.expand(state.hidden)
        if self.mode == 'residual':
            out = functional.relu6(x + out)
        return out, state
