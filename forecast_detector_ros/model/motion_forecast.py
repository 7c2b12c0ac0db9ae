# SPDX-License-Identifier: Apache-2.0
"""From the motion of cells to forecasts: what is kept of a read, and what is decided from it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn, Tensor

from .encoder import LSTMState
from .motion import displacement, Keys, MotionEncoder, TERMS


class MotionState(NamedTuple):
    """The state of a stream with a forecast of motion."""

    keys: Keys  #: Of the frame that was read last
    memory: LSTMState  #: Of the encoder, as the last read left it
    logits: Tensor  #: ``(B, A, 1 + classes)``: the head's scores of the last read
    offsets: Tensor  #: ``(B, A, 4)``: the head's offsets of the last read
    motion: Tensor  #: ``(B, cells, 4 * TERMS)``; zero after a stream's first read
    summary: Tensor  #: ``(B, S)``: what the scheduler keeps of the last read

    #: ``(B, 3)``: 1 once a frame was read; time between the last two reads; time since the last
    #: one. The unit is that of `elapsed`; times before the second read are 0.
    times: Tensor


class Comparison(NamedTuple):
    """The result of a read before the scheduler."""

    state: MotionState
    deep: Tensor  #: ``(B, channels, h, w)``: the encoder's map of stride 32
    scores: Tensor  #: ``(B, cells)``: the best score of each cell, 0 to 1


class MotionScheduler(nn.Module):
    """
    Score *read* against *forecast* from how the scene moves and how long ago it was looked at.

    It stands in the place of section 3.2's scheduler: the correlation that it starts from is that
    of the last two reads, in `MotionEncoder`.

    :param channels: of the encoder's map of stride 32
    :param hidden: channels of its own
    """

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(),
                                   nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU())
        self.size = 2 * hidden + 2 * TERMS
        self.fc = nn.Sequential(nn.Linear(self.size + TERMS, hidden), nn.ReLU(),
                                nn.Linear(hidden, 2))

    def summarise(self, deep: Tensor, scores: Tensor, motion: Tensor) -> Tensor:
        """
        Keep of a read what all decisions until the next one need.

        :param deep: ``(B, channels, h, w)``
        :param scores: ``(B, cells)``: the best score of each cell, 0 to 1
        :param motion: ``(B, cells, 4 * TERMS)``
        :returns: ``(B, size)``
        """
        x = self.convs(deep)
        # Cells are about as large as a fixed part of their anchors: these are motions in sizes of
        # the object.
        speed = motion.abs().unflatten(2, (TERMS, 4)).amax(3) * scores[:, :, None]
        typical = speed.sum(1) / (scores.sum(1, keepdim=True) + 1.0)
        return torch.cat((x.mean((2, 3)), x.amax((2, 3)), speed.amax(1), typical), 1)

    def forward(self, summary: Tensor, ahead: Tensor) -> Tensor:
        """
        Judge the forecast of a frame.

        :param summary: ``(B, size)``
        :param ahead: ``(B, 1)``, as in `displacement`, of the frame that is to be decided about
        :returns: ``(B, 2)`` logits, *read* first
        """
        terms = torch.cat((ahead, ahead / (1.0 + ahead)), 1)
        maps, speed = summary[:, :-2 * TERMS], summary[:, -2 * TERMS:]
        return self.fc(torch.cat((maps, speed * terms.repeat(1, 2), terms), 1))


LONGEST = 16.0  #: Largest time ahead that is computed with, in times between the last two reads


class MotionForecast(nn.Module):
    """
    Everything that turns reads into forecasts of where boxes go.

    :param units: ``(A, 4)``, what `motion_units` gives
    :param per_cell: anchors of a cell
    :param still: whether boxes are to stay where they are: the rival that costs nothing
    """

    units: Tensor

    def __init__(self, encoder: MotionEncoder, scheduler: MotionScheduler, units: Tensor,
                 per_cell: int, still: bool = False) -> None:
        super().__init__()
        self.encoder, self.scheduler = encoder, scheduler
        self.per_cell, self.still = per_cell, still
        self.register_buffer('units', units, persistent=False)

    def read(self, feature: Sequence[Tensor], logits: Tensor, offsets: Tensor, state: MotionState,
             elapsed: Tensor) -> tuple[Tensor, MotionState]:
        """
        Take in a frame that was read.

        :param feature: the extractor's maps
        :param logits, offsets: the head's output for them
        :param state: of the frame before
        :param elapsed: ``(B, 1)``: time since that frame, in any unit
        :returns: ``(B, 2)`` logits of the decision about the next frame, and the next state
        """
        view = self.compare_maps(feature, self.cell_scores(logits), state, elapsed)
        after = view.state._replace(
            logits=logits, offsets=offsets,
            summary=self.scheduler.summarise(view.deep, view.scores, view.state.motion))
        return self.decide(after, elapsed), after

    def cell_scores(self, logits: Tensor) -> Tensor:
        """Give the best score of each cell, ``(B, cells)``, from ``(B, A, 1 + classes)``."""
        scores = 1.0 - logits.softmax(2)[..., 0]
        return scores.unflatten(1, (-1, self.per_cell)).amax(2)

    def compare_maps(self, feature: Sequence[Tensor], scores: Tensor, state: MotionState,
                     elapsed: Tensor) -> Comparison:
        """
        Do the part of `read` that comes before the scheduler, without the head's output.

        The new state still has the logits, offsets and summary of the old one.
        """
        seen, since = state.times[:, :1], state.times[:, 2:]
        gap = seen * (since + elapsed)
        keys = self.encoder.look(feature)
        motion, deep, memory = self.encoder(keys, state.keys, state.memory)
        motion = motion * (0.0 if self.still else seen[:, :, None])
        times = torch.cat((torch.ones_like(seen), gap, torch.zeros_like(since)), 1)
        return Comparison(state._replace(keys=keys, memory=memory, motion=motion, times=times),
                          deep, scores)

    def forecast(self, state: MotionState, elapsed: Tensor
                 ) -> tuple[Tensor, Tensor, MotionState]:
        """Give the offsets of a frame that is not read, the next decision and the next state."""
        seen, gap, since = state.times.split(1, 1)
        state = state._replace(times=torch.cat((seen, gap, since + elapsed), 1))
        return (self.moved(state.offsets, state.motion, ahead(state.times)),
                self.decide(state, elapsed), state)

    def moved(self, offsets: Tensor, motion: Tensor, time: Tensor) -> Tensor:
        """Move boxes: ``(B, A, 4)`` offsets by what `displacement` gives for ``(B, 1)`` times."""
        cells = self.shift(motion, time)[:, :, None]
        shift = cells.expand(-1, -1, self.per_cell, -1).flatten(1, 2)
        return offsets + shift * self.units

    def shift(self, motion: Tensor, time: Tensor) -> Tensor:
        """Give the displacements ``(B, N, 4)`` of motions ``(B, N, 4 * TERMS)``."""
        return displacement(motion, time)

    def decide(self, state: MotionState, elapsed: Tensor) -> Tensor:
        """Judge the forecast of the next frame, as far away as this one was from the last."""
        seen, gap, since = state.times.split(1, 1)
        return self.scheduler(state.summary,
                              ahead(torch.cat((seen, gap, since + elapsed), 1)))


def ahead(times: Tensor) -> Tensor:
    """Give the time since the last read over that between the last two, 0 if there is only one."""
    gap, since = times[:, 1:2], times[:, 2:]
    ratio = since / torch.where(gap > 0, gap, torch.ones_like(gap))
    return torch.where(gap > 0, ratio, torch.zeros_like(gap)).clamp(0.0, LONGEST)
