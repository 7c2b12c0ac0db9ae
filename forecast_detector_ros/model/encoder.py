# SPDX-License-Identifier: Apache-2.0
"""
Encoder: spatial attention followed by a bottleneck LSTM (paper, section 3.1).

Two of them are stacked at every level: Encoder 1 makes `forecast` from `feature`, Encoder 2
makes `temporal` from `forecast`.
"""

import torch
from torch import nn, Tensor
from torch.nn import functional

from .bottleneck_lstm import BottleneckLSTM, LSTMState
from .constants import FEATURE_MODES

ATTENTION_KERNEL = 7
"""Kernel size of the spatial attention (Woo et al., ECCV 2018, table 2)."""


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
        """Weight every position of ``(B, C, h, w)`` by a factor in (0, 1); same shape."""
        pooled = torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), 1)
        return x * torch.sigmoid(self.norm(self.conv(pooled)))


class Encoder(nn.Module):
    """
    Spatial attention, bottleneck LSTM, and the way back to the level's channels.

    Parameters
    ----------
    channels:
        Channels of input and output.
    hidden:
        Channels of the LSTM.
    mode:
        ``direct``: the output is the LSTM's, through a 1x1 convolution and ReLU6 where
        `hidden` differs from `channels` (the paper's form).  ``residual``: the output is
        relu6(input + delta), delta a 1x1 convolution of the LSTM's output that starts at zero,
        so that an untrained encoder hands its input on unchanged.
    attention:
        Whether spatial attention stands before the LSTM.

    Raises
    ------
    ValueError
        If `mode` is not one of `FEATURE_MODES`.

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

        Parameters
        ----------
        x:
            ``(B, channels, h, w)`` float, in [0, 6].
        state:
            State of the LSTM at the step before.

        Returns
        -------
        tuple
            The output, ``(B, channels, h, w)`` in [0, 6], and the LSTM's new state.

        """
        state = self.lstm(self.attention(x), state)
        out = self.expand(state.hidden)
        if self.mode == 'residual':
            out = functional.relu6(x + out)
        return out, state
