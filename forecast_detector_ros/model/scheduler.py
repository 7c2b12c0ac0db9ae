# SPDX-License-Identifier: Apache-2.0
"""
Scheduler: decide whether the next frame is read or forecast (paper, section 3.2 and Fig. 3).

A correlation layer compares `forecast` with a reference map. Two convolutions, pooling and a
fully connected layer compute two scores from it, as in Luo et al. 2018
(https://arxiv.org/abs/1811.05340).
"""

import torch
from torch import nn, Tensor
from torch.nn import functional

READ_INDEX = 0  #: Index of the *read* score

#: Index of the *forecast* score; 1 is "exploit the forecast feature map" in section 3.2.
FORECAST_INDEX = 1


def unit_vectors(x: Tensor) -> Tensor:
    """Divide each cell of ``(B, C, h, w)`` by its L2 norm; zero cells stay zero."""
    # PyTorch's default eps, 1e-12, is zero in fp16, and a zero cell would become NaN.
    return functional.normalize(x, dim=1, eps=max(1e-12, torch.finfo(x.dtype).tiny))


class Correlation(nn.Module):
    """
    Correlate two maps over a square neighbourhood, with L2-normalised channels.

    :param size: (height, width) of the maps
    :param displacement: largest displacement d, in cells; 3 gives 49 channels
    """

    index: Tensor
    inside: Tensor

    def __init__(self, size: tuple[int, int], displacement: int = 3) -> None:
        super().__init__()
        self.channels = (2 * displacement + 1) ** 2
        height, width = size
        side = torch.arange(-displacement, displacement + 1)
        dy, dx = torch.meshgrid(side, side, indexing='ij')
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
        rows = y.reshape(1, -1) + dy.reshape(-1, 1)
        columns = x.reshape(1, -1) + dx.reshape(-1, 1)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
        # Buffers and not a cache: a tensor that was created in inference mode or during an export
        # cannot be used in training.
        self.register_buffer('index', index.unsqueeze(0), persistent=False)
        self.register_buffer('inside', inside.unsqueeze(0), persistent=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """
        Correlate two maps.

        Channel k of the result at (y, x) is the cosine of ``a[:, y, x]`` and ``b[:, y + dy, x +
        dx]``. k counts (dy, dx) row by row from (-d, -d) to (d, d). Outside the map it is 0.

        :param a, b: ``(B, C, h, w)`` float
        :returns: ``(B, (2 * d + 1) ** 2, h, w)``, in [-1, 1]
        """
        batch, _, height, width = a.shape
        a, b = unit_vectors(a).flatten(2), unit_vectors(b).flatten(2)
        # The maps have few cells and many channels, so one matrix product of all pairs is faster
        # than a pass over the channels for each displacement.
        pairs = torch.bmm(b.transpose(1, 2), a)
        near = pairs.gather(1, self.index.expand(batch, -1, -1)) * self.inside
        return near.view(batch, -1, height, width)


class Scheduler(nn.Module):
    """
    Score *read* against *forecast* for the next frame.

    :param size: (height, width) of the compared maps
    :param displacement: largest displacement of the correlation, in cells; 3 gives 49 channels
    :param hidden: channels of the two 3x3 convolutions
    :param norm: whether BN follows the correlation; not so in the paper (Fig. 3)
    """

    def __init__(self, size: tuple[int, int], displacement: int = 3, hidden: int = 64,
                 norm: bool = True) -> None:
        super().__init__()
        self.correlation = Correlation(size, displacement)
        # The cosines of each displacement have their own mean and spread. The convolutions learn
        # much faster from normalised values.
        self.norm = nn.BatchNorm2d(self.correlation.channels) if norm else nn.Identity()
        self.convs = nn.Sequential(
            nn.Conv2d(self.correlation.channels, hidden, 3, padding=1), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(hidden, 2)

    def forward(self, forecast: Tensor, reference: Tensor) -> Tensor:
        """
        Compare the forecast with a reference map.

        :param forecast, reference: ``(B, C, h, w)`` float
        :returns: ``(B, 2)`` logits, in the order `READ_INDEX`, `FORECAST_INDEX`
        """
        x = self.convs(self.norm(self.correlation(forecast, reference)))
        return self.fc(x.mean((2, 3)))


def confidence(logits: Tensor) -> Tensor:
    """Turn ``(B, 2)`` logits into ``(B,)`` softmax scores for *forecast*, in [0, 1]."""
    return logits.softmax(1)[:, FORECAST_INDEX]
