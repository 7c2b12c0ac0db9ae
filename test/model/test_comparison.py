# SPDX-License-Identifier: Apache-2.0
"""Check the comparison of two reads, by features and by the boxes of cells."""
from forecast_detector_ros.model.comparison import compare_boxes, Shift, shifted_cosines
from forecast_detector_ros.model.scheduler import Correlation
import pytest
import torch


def test_cosines_of_displacements_are_those_of_the_correlation():
    """The loop over displacements and the product of all pairs give the same cosines."""
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.nn.functional.normalize(torch.randn(2, 5, 4, 6, generator=generator), dim=1)
            for _ in range(2))
    torch.testing.assert_close(shifted_cosines(a, b, 3), Correlation((4, 6), 3)(a, b))


@pytest.mark.parametrize('dy, dx', [(0, 0), (1, -2), (-2, 1), (0, 2)])
def test_shift_is_the_motion_of_a_pattern(dy, dx):
    """The shift of a pattern that moves by whole cells is its displacement."""
    generator = torch.Generator().manual_seed(2)
    before = torch.nn.functional.normalize(
        torch.randn(1, 128, 9, 11, generator=generator), dim=1)
    now = torch.roll(before, (dy, dx), (2, 3))
    found = Shift(2)(shifted_cosines(now, before, 2))[0, -2:, 3:-3, 3:-3].detach()
    assert found[0] == pytest.approx(torch.full_like(found[0], dx), abs=0.05)
    assert found[1] == pytest.approx(torch.full_like(found[1], dy), abs=0.05)


def seen(centre, sides, score=0.9, size=(6, 7)):
    """Return a map whose cells all have the same box; its centre and sides are in cells."""
    rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing='ij')
    box = torch.stack((torch.full(size, score), centre[0] - columns, centre[1] - rows,
                       *(torch.full(size, side).log() for side in sides)))
    return box[None]


@pytest.mark.parametrize('motion', [(0.0, 0.0), (0.3, -0.2), (1.2, 0.9)])
def test_change_of_a_box_is_measured_at_all_its_cells(motion):
    """All cells give nearly the same change of centre and sides; low scores reduce it a little."""
    before = seen((3.2, 2.7), (2.0, 3.0))
    now = seen((3.2 + motion[0], 2.7 + motion[1]), (2.2, 3.0))
    clues = compare_boxes(now, before)[0]
    expected = torch.tensor((*motion, 0.09531, 0.0))
    # Cells at the border have fewer neighbours, which reduces the change more.
    for found in (clues[:4, 1:-1, 1:-1], clues[4:8]):
        assert torch.allclose(found, expected.view(4, 1, 1).expand_as(found), rtol=0.09, atol=1e-4)
    assert torch.equal(clues[8:10], torch.full_like(clues[8:10], 0.9))
    torch.testing.assert_close(clues[10:], now[0, 3:])


def test_change_is_zero_without_an_earlier_box():
    """The change is zero for a first frame, and if there was only background."""
    now = seen((3.2, 2.7), (2.0, 3.0))
    for before in (torch.zeros_like(now), seen((3.2, 2.7), (2.0, 3.0), score=0.0)):
        assert torch.equal(compare_boxes(now, before)[:, :8], torch.zeros(1, 8, 6, 7))


def test_change_is_found_at_a_neighbour():
    """A neighbour of the only cell with the box finds the change; the next cell does not."""
    now, before = (seen((x, 2.5), (1.0, 1.0)) for x in (3.5, 2.5))
    mask = torch.zeros_like(before[:, :1])
    mask[:, :, 2, 2] = 1.0
    before[:, :1] *= mask
    clues = compare_boxes(now, before)[0]
    assert clues[0, 2, 3] == pytest.approx(1.0, abs=0.1) and clues[4, 2, 3] == 0.0
    assert clues[4, 2, 2] == pytest.approx(1.0, abs=0.1)
    assert torch.equal(clues[:8, 2, 4], torch.zeros(8))
