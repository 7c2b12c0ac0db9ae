# SPDX-License-Identifier: Apache-2.0
"""What two reads are compared by: features around a cell, and the boxes that cells see."""

import torch
from torch import nn, Tensor
from torch.nn import functional

REACH = 2  #: Cells of stride 8 to each side in which a cell is looked for

#: Numbers that a cell knows of its box: score, centre (x, y) from the cell's own in cells, and the
#: logarithms of the sides in cells.
VIEW = 5

CHANGE = 4  #: Numbers of a change of a box: as in `motion_forecast.displacement`
CLUES = 2 * CHANGE + 4  #: Channels that `compare_boxes` gives

_DOUBT = 0.05  #: Score at which a box counts for half


def shifted_cosines(a: Tensor, b: Tensor, reach: int = REACH) -> Tensor:
    """
    Correlate unit vectors over a square neighbourhood, displacement by displacement.

    The same as `Correlation` for maps of many cells, of which all pairs would be too many.

    :param a, b: ``(B, C, h, w)`` float
    :param reach: cells to each side
    :returns: ``(B, (2 * reach + 1) ** 2, h, w)``, in [-1, 1]; (dy, dx) row by row from (-reach,
        -reach)
    """
    height, width = a.shape[2:]
    wide, side = width + 2 * reach, range(2 * reach + 1)
    # Rows of one length, one after the other: a displacement is an offset in memory.  OpenVINO
    # slices maps more slowly.
    rows = functional.pad(a, (0, 2 * reach)).flatten(2)
    padded = functional.pad(b, (reach, reach, reach, reach + 1)).flatten(2)
    cells = height * wide
    cosines = torch.stack([(rows * padded[..., y * wide + x:y * wide + x + cells]).sum(1)
                           for y in side for x in side], 1)
    return cosines.unflatten(2, (height, wide))[..., :width]


def compare_boxes(now: Tensor, before: Tensor) -> Tensor:
    """
    Measure how the boxes of cells have changed between two frames.

    Cells all over an object see the same box. So a cell finds its object's earlier box at its own
    place, or at one beside it. Their mean is weighted with the scores, and with the likeness of
    the boxes. It goes to 0 where no box was before.

    :param now, before: ``(B, VIEW, h, w)`` of one map
    :returns: ``(B, 12, h, w)``: the mean change over the cell and its eight neighbours, and that
        of the cell alone, (dx, dy) in cells and (dw, dh) as logarithms; the score now; that
        before; the sides now
    """
    height, width = now.shape[2:]
    padded = functional.pad(before, (1,) * 4)
    places = [(dx, dy) for dy in range(3) for dx in range(3)]
    # All nine at once: many small operations would cost more than their arithmetic.
    there = torch.stack([padded[:, :, dy:dy + height, dx:dx + width] for dx, dy in places], 1)
    steps = now.new_tensor([(dx - 1.0, dy - 1.0, 0.0, 0.0) for dx, dy in places])
    change = now[:, None, 1:] - there[:, :, 1:] - steps[:, :, None, None]
    # Likely motions are of a cell or two, and sides change by some percent.
    unlikely = now.new_tensor((0.125, 0.125, 4.0, 4.0))[:, None, None]
    weight = there[:, :, :1] * (-(change.square() * unlikely).sum(2, keepdim=True)).exp()
    moved = weight * change
    own = len(places) // 2
    return torch.cat((moved.sum(1) / (weight.sum(1) + _DOUBT),
                      moved[:, own] / (weight[:, own] + _DOUBT),
                      now[:, :1], before[:, :1], now[:, 3:]), 1)


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
