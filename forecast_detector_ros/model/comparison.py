# SPDX-License-Identifier: Apache-2.0
"""Compare two read frames, by features in the neighbourhood of a cell and by boxes of cells."""

import torch
from torch import nn, Tensor
from torch.nn import functional

REACH = 2  #: Largest displacement in cells of stride 8

#: Numbers of a cell's box: score, centre (x, y) relative to the cell's centre, in cells, and the
#: logarithms of the sides in cells.
VIEW = 5

CHANGE = 4  #: Numbers of a change of a box, as in `motion_forecast.displacement`
CLUES = 2 * CHANGE + 4  #: Channels of the result of `compare_boxes`

_DOUBT = 0.05  #: Weight at which a change counts half


def shifted_cosines(a: Tensor, b: Tensor, reach: int = REACH) -> Tensor:
    """
    Correlate unit vectors over a square neighbourhood, displacement by displacement.

    `Correlation` computes the same from all pairs of cells, which is too slow for large maps.

    :param a, b: ``(B, C, h, w)`` float
    :param reach: largest displacement in cells
    :returns: ``(B, (2 * reach + 1) ** 2, h, w)``, in [-1, 1]; (dy, dx) row by row from (-reach,
        -reach)
    """
    height, width = a.shape[2:]
    wide, side = width + 2 * reach, range(2 * reach + 1)
    # In flattened rows of equal length a displacement is an offset. OpenVINO slices maps more
    # slowly.
    rows = functional.pad(a, (0, 2 * reach)).flatten(2)
    padded = functional.pad(b, (reach, reach, reach, reach + 1)).flatten(2)
    cells = height * wide
    cosines = torch.stack([(rows * padded[..., y * wide + x:y * wide + x + cells]).sum(1)
                           for y in side for x in side], 1)
    return cosines.unflatten(2, (height, wide))[..., :width]


def compare_boxes(now: Tensor, before: Tensor) -> Tensor:
    """
    Measure the change of the cells' boxes between two frames.

    All cells of an object have nearly the same box. So the earlier box is found at the cell itself
    or at a neighbour. The mean change is weighted with the earlier scores and the similarity of
    the boxes. It is near 0 if there was no box.

    :param now, before: ``(B, VIEW, h, w)`` of one map
    :returns: ``(B, 12, h, w)``: the mean change over the cell and its eight neighbours; the change
        at the cell, each as (dx, dy) in cells and (dw, dh) as logarithms; the new and the old
        score; the logarithms of the new sides
    """
    height, width = now.shape[2:]
    padded = functional.pad(before, (1,) * 4)
    places = [(dx, dy) for dy in range(3) for dx in range(3)]
    # All nine places together, because many small operations are slower.
    there = torch.stack([padded[:, :, dy:dy + height, dx:dx + width] for dx, dy in places], 1)
    steps = now.new_tensor([(dx - 1.0, dy - 1.0, 0.0, 0.0) for dx, dy in places])
    change = now[:, None, 1:] - there[:, :, 1:] - steps[:, :, None, None]
    # Motions are likely below two cells, and sides likely change by some percent.
    unlikely = now.new_tensor((0.125, 0.125, 4.0, 4.0))[:, None, None]
    weight = there[:, :, :1] * (-(change.square() * unlikely).sum(2, keepdim=True)).exp()
    moved = weight * change
    own = len(places) // 2
    return torch.cat((moved.sum(1) / (weight.sum(1) + _DOUBT),
                      moved[:, own] / (weight[:, own] + _DOUBT),
                      now[:, :1], before[:, :1], now[:, 3:]), 1)


class Shift(nn.Module):
    """
    Compute the likely motion from a correlation: the mean displacement under a softmax.

    :param reach: largest displacement of the correlation in cells
    """

    places: Tensor

    def __init__(self, reach: int) -> None:
        super().__init__()
        side = torch.arange(-reach, reach + 1, dtype=torch.float32)
        dy, dx = torch.meshgrid(side, side, indexing='ij')
        # The motion is opposite to the displacement at which the earlier frame matches.
        self.register_buffer('places', -torch.stack((dx.flatten(), dy.flatten())),
                             persistent=False)
        # Cosines differ by tenths; with 20 the best one dominates.
        self.sharpness = nn.Parameter(torch.tensor(20.0))

    def forward(self, correlation: Tensor) -> Tensor:
        """Append (dx, dy) in cells to ``(B, D, h, w)`` cosines; return ``(B, D + 2, h, w)``."""
        weights = (correlation * self.sharpness).softmax(1)
        shift = torch.einsum('kd,bdhw->bkhw', self.places, weights)
        return torch.cat((correlation, shift), 1)
