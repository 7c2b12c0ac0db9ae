# SPDX-License-Identifier: Apache-2.0
"""
Forecast the motion of boxes.

The encoder compares the features of the last two read frames, and computes a motion for each cell
of the head's maps. A forecast keeps the head's scores of the last read and moves its boxes.
"""
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional
from torchvision.ops import Conv2dNormActivation

from .comparison import CHANGE, CLUES, compare_boxes, REACH, Shift, shifted_cosines, VIEW
from .config import BOX_CODER_WEIGHTS
from .encoder import Encoder, LSTMState
from .scheduler import Correlation, unit_vectors

LEVELS = 3  #: Number of compared maps, of the strides 8, 16 and 32
TERMS = 2  #: Motions of a cell: a constant one, and one that decays

_SHALLOW, _MIDDLE, _DEEP = 16, 32, 64  #: Compared channels at the strides 8, 16 and 32

_FURTHEST = 8.0  #: Limit of a box's centre and log sides, cells; background could overflow fp16


class Keys(NamedTuple):
    """The data of a read frame that are compared with the next read frame."""

    maps: tuple[Tensor, ...]  #: Unit vectors, ``(B, K, h, w)`` per level, strides 8, 16 and 32

    #: ``(B, cells, VIEW)``: the box of each cell of the head's maps; () if boxes are not compared.
    views: Tensor | tuple[()] = ()


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        Conv2dNormActivation(inputs, inputs, 3, stride=stride, groups=inputs,
                             activation_layer=nn.ReLU6),
        Conv2dNormActivation(inputs, outputs, 1, activation_layer=nn.ReLU6))


class MotionEncoder(nn.Module):
    """
    Encoder 1 for motion, which computes the motion of each cell from two read frames.

    :param channels: channels of the levels' features, strides 8, 16 and 32
    :param sizes: (height, width) of the head's maps, those of the levels and the extra ones
    :param hidden: channels of the LSTM at stride 16 and of all later maps; even
    :param boxes: whether the boxes of both frames are also compared
    """

    def __init__(self, channels: Sequence[int], sizes: Sequence[tuple[int, int]],
                 hidden: int = 64, boxes: bool = False) -> None:
        super().__init__()
        self.sizes, self.boxes = tuple(sizes), boxes
        clues = CLUES if boxes else 0
        self.key_channels = (_SHALLOW, _MIDDLE, _DEEP)
        self.outputs = 4 * TERMS
        self.keys = nn.ModuleList(nn.Conv2d(c, k, 1, bias=False)
                                  for c, k in zip(channels, self.key_channels))
        self.middle = Correlation(sizes[1])
        self.deep = Correlation(sizes[2])
        self.shifts = nn.ModuleList((Shift(REACH), Shift(3), Shift(3)))
        near = (2 * REACH + 1) ** 2 + 2
        self.fine = _separable(near + 2 * _SHALLOW + clues, hidden // 2)
        self.down = _separable(hidden // 2, hidden // 2, stride=2)
        self.mix = Conv2dNormActivation(
            hidden // 2 + self.middle.channels + 2 + 2 * _MIDDLE + clues, hidden, 1,
            activation_layer=nn.ReLU6)
        self.encoder = Encoder(hidden, hidden, 'direct')
        self.far = Conv2dNormActivation(hidden + self.deep.channels + 2, hidden, 1,
                                        activation_layer=nn.ReLU6)
        self.coarser = nn.ModuleList(_separable(hidden, hidden, stride=2)
                                     for _ in sizes[2:])
        self.up = nn.Conv2d(hidden, hidden // 2, 1)
        # With twice as many channels, ReLU6 can keep both signs.
        self.clues = nn.ModuleList(
            Conv2dNormActivation(clues, 2 * clues, 1, activation_layer=nn.ReLU6)
            for _ in (sizes if boxes else ()))
        width = hidden + 2 * clues
        outputs = self.outputs * (3 if boxes else 1)
        self.predictors = nn.ModuleList(nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width), nn.ReLU6(),
            nn.Conv2d(width, outputs, 1)) for _ in sizes)
        for predictor in self.predictors:
            # Initially no box moves, so an untrained forecast equals the last read.
            last = predictor.get_submodule('2')
            nn.init.zeros_(last.get_parameter('weight'))
            nn.init.zeros_(last.get_parameter('bias'))

    def look(self, feature: Sequence[Tensor], views: Tensor) -> Keys:
        """Return the keys of a frame from its features and the result of `cell_views`."""
        return Keys(tuple(unit_vectors(key(x)) for key, x in zip(self.keys, feature)),
                    views if self.boxes else ())

    def forward(self, now: Keys, before: Keys, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """
        Compare two read frames.

        :param now, before: keys of the frame and of the previously read frame; zeros for none
        :param state: state of the LSTM, ``(B, hidden, h, w)`` at stride 16
        :returns: the motion ``(B, cells, 4 * TERMS)`` of the cells of all maps, in order; and the
            LSTM's new state
        """
        a8, a16, a32 = now.maps
        b8, b16, b32 = before.maps
        clues = self._clues(now, before)
        fine = self.fine(torch.cat(
            (self.shifts[0](shifted_cosines(a8, b8)), a8, a8 - b8, *clues[:1]), 1))
        middle = self.mix(torch.cat((self.down(fine), self.shifts[1](self.middle(a16, b16)), a16,
                                     a16 - b16, *clues[1:2]), 1))
        middle, state = self.encoder(middle, state)
        maps = [torch.cat((fine, functional.interpolate(
            self.up(middle), size=fine.shape[2:], mode='nearest')), 1), middle]
        deep = middle
        for number, layer in enumerate(self.coarser):
            deep = layer(deep)
            if number == 0:
                deep = self.far(torch.cat((deep, self.shifts[2](self.deep(a32, b32))), 1))
            maps.append(deep)
        if clues:
            maps = [torch.cat((x, layer(clue)), 1)
                    for x, layer, clue in zip(maps, self.clues, clues)]
        found = [predictor(x) for predictor, x in zip(self.predictors, maps)]
        if clues:
            found = [_with_changes(x, clue) for x, clue in zip(found, clues)]
        motion = torch.cat([x.flatten(2).transpose(1, 2) for x in found], 1)
        return motion, state

    def _clues(self, now: Keys, before: Keys) -> list[Tensor]:
        if isinstance(now.views, tuple) or isinstance(before.views, tuple):
            return []
        cells = [height * width for height, width in self.sizes]
        # -1 keeps the batch size dynamic in a traced graph.
        return [compare_boxes(*(x.transpose(1, 2).reshape(-1, VIEW, *size) for x in pair))
                for *pair, size in zip(now.views.split(cells, 1), before.views.split(cells, 1),
                                       self.sizes)]


def _with_changes(found: Tensor, clues: Tensor) -> Tensor:
    """Add the measured changes, weighted by the predicted factors, to a motion."""
    motion, wide, narrow = found.chunk(3, 1)
    return (motion + wide * clues[:, :CHANGE].repeat(1, TERMS, 1, 1)
            + narrow * clues[:, CHANGE:2 * CHANGE].repeat(1, TERMS, 1, 1))


def changes(now: Keys, before: Keys) -> Tensor:
    """Return ``(B, LEVELS)``: 1 - mean cosine of the maps of two frames, in [0, 2]."""
    return torch.stack([1.0 - (a * b).sum(1).mean((1, 2)) for a, b in zip(now.maps, before.maps)],
                       1)


def displacement(motion: Tensor, ahead: Tensor) -> Tensor:
    """
    Return the displacements of boxes.

    :param motion: ``(B, N, 4 * TERMS)``
    :param ahead: ``(B, 1)``: time since the last read over the time between the last two reads
    :returns: ``(B, N, 4)``: (dx, dy) in cells of the box's map, (dw, dh) as logarithms
    """
    lasting, passing = motion.chunk(TERMS, 2)
    x = ahead[:, :, None]
    return lasting * x + passing * (x / (1.0 + x))


class MotionState(NamedTuple):
    """The state of a stream with a forecast of motion."""

    keys: Keys  #: Keys of the last read frame
    memory: LSTMState  #: State of the encoder after the last read
    logits: Tensor  #: ``(B, A, 1 + classes)``: the head's scores of the last read
    offsets: Tensor  #: ``(B, A, 4)``: the head's offsets of the last read
    motion: Tensor  #: ``(B, cells, 4 * TERMS)``; zero after a stream's first read
    summary: Tensor  #: ``(B, S)``: the scheduler's summary of the last read

    #: ``(B, 3)``: 1 after the first read, else 0; time between the last two reads; time since the
    #: last read. Unit of `elapsed`; the second is 0 before the second read.
    times: Tensor


class Comparison(NamedTuple):
    """The result of a read before the scheduler."""

    state: MotionState
    scores: Tensor  #: ``(B, cells)``: the best score of each cell, 0 to 1
    changes: Tensor  #: ``(B, LEVELS)``: result of `changes`


class MotionScheduler(nn.Module):
    """
    Score *read* against *forecast* from the motion of the scene and the time since the last read.

    It replaces the scheduler of section 3.2, and uses a few numbers of the last two reads. With
    whole maps it overfitted (docs/design/decisions.md).

    :param hidden: units of the hidden layer
    """

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.size = 2 * TERMS + LEVELS + 2
        self.fc = nn.Sequential(nn.Linear(self.size + LEVELS + TERMS, hidden), nn.ReLU(),
                                nn.Linear(hidden, 2))

    def summarise(self, read: Comparison) -> Tensor:
        """
        Summarise a read for the decisions until the next read.

        :returns: ``(B, size)``: largest and mean speed of the objects, the changes of the maps,
            the best score, and the logarithm of the sum of scores
        """
        scores = read.scores
        # Cells are a fixed fraction of their anchors, so these motions are relative to the size of
        # the object.
        speed = (read.state.motion.abs().unflatten(2, (TERMS, 4)).amax(3)
                 * scores[:, :, None])
        everything = scores.sum(1, keepdim=True)
        return torch.cat((speed.amax(1), speed.sum(1) / (everything + 1.0), read.changes,
                          scores.amax(1, keepdim=True), everything.log1p()), 1)

    def forward(self, summary: Tensor, ahead: Tensor) -> Tensor:
        """
        Judge the forecast of a frame.

        :param summary: ``(B, size)``
        :param ahead: ``(B, 1)``, as in `displacement`, for the frame of the decision
        :returns: ``(B, 2)`` logits, *read* first
        """
        terms = torch.cat((ahead, ahead / (1.0 + ahead)), 1)
        speed, changes, seen = summary.split((2 * TERMS, LEVELS, 2), 1)
        # This scales all inputs to a similar range.
        speed, changes = (4.0 * speed * terms.repeat(1, 2)).log1p(), 4.0 * changes
        return self.fc(torch.cat((speed, terms, changes, changes * ahead, seen), 1))


LONGEST = 16.0  #: Largest time ahead in a forecast, in times between the last two reads


class MotionForecast(nn.Module):
    """
    Encoder, scheduler and motion of boxes for networks that forecast motion.

    :param units: ``(A, 4)``, result of `motion_units`
    :param per_cell: number of anchors of a cell
    :param still: whether boxes do not move, for the variant `persistence`
    """

    units: Tensor
    sizes: Tensor

    def __init__(self, encoder: MotionEncoder, scheduler: MotionScheduler, units: Tensor,
                 per_cell: int, still: bool = False) -> None:
        super().__init__()
        self.encoder, self.scheduler = encoder, scheduler
        self.per_cell, self.still = per_cell, still
        self.register_buffer('units', units, persistent=False)
        # Logarithms of the anchors' sides in cells: a unit is the weight over the side.
        sides = (BOX_CODER_WEIGHTS[0] / units[:, :2]).log()
        self.register_buffer('sizes', torch.cat((torch.zeros_like(sides), sides), 1),
                             persistent=False)

    def read(self, feature: Sequence[Tensor], logits: Tensor, offsets: Tensor, state: MotionState,
             elapsed: Tensor) -> tuple[Tensor, MotionState]:
        """
        Process a read frame.

        :param feature: the extractor's maps
        :param logits, offsets: the head's output for them
        :param state: state after the previous frame
        :param elapsed: ``(B, 1)``: time since that frame, in any unit
        :returns: ``(B, 2)`` logits of the decision about the next frame, and the next state
        """
        view = self.compare_reads(feature, self.cell_views(logits, offsets), state, elapsed)
        after = view.state._replace(
            logits=logits, offsets=offsets,
            summary=self.scheduler.summarise(view))
        return self.decide(after, elapsed), after

    def cell_views(self, logits: Tensor, offsets: Tensor) -> Tensor:
        """
        Return the best score of each cell and, if boxes are compared, its mean box.

        :param logits, offsets: the head's output
        :returns: ``(B, cells, VIEW)``, or ``(B, cells, 1)`` if boxes are not compared
        """
        scores = (1.0 - logits.softmax(2)[..., 0]).unflatten(1, (-1, self.per_cell))
        best = scores.amax(2)[..., None]
        if not self.encoder.boxes:
            return best
        # The squares give the best anchor the largest weight.
        weights = scores.square()[..., None] + 1e-6
        boxes = (offsets / self.units + self.sizes).clamp(-_FURTHEST, _FURTHEST).unflatten(
            1, (-1, self.per_cell))
        return torch.cat((best, (boxes * weights).sum(2) / weights.sum(2)), 2)

    def compare_reads(self, feature: Sequence[Tensor], views: Tensor, state: MotionState,
                      elapsed: Tensor) -> Comparison:
        """
        Compute the part of `read` before the scheduler.

        The new state has the logits, offsets and summary of the old one.

        :param views: result of `cell_views` for the frame
        """
        seen, since = state.times[:, :1], state.times[:, 2:]
        gap = seen * (since + elapsed)
        keys = self.encoder.look(feature, views)
        motion, memory = self.encoder(keys, state.keys, state.memory)
        motion = motion * (0.0 if self.still else seen[:, :, None])
        times = torch.cat((torch.ones_like(seen), gap, torch.zeros_like(since)), 1)
        return Comparison(state._replace(keys=keys, memory=memory, motion=motion, times=times),
                          views[..., 0], changes(keys, state.keys))

    def forecast(self, state: MotionState, elapsed: Tensor
                 ) -> tuple[Tensor, Tensor, MotionState]:
        """Return the offsets of a forecast frame, the next decision and the next state."""
        seen, gap, since = state.times.split(1, 1)
        state = state._replace(times=torch.cat((seen, gap, since + elapsed), 1))
        return (self.moved(state.offsets, state.motion, ahead(state.times)),
                self.decide(state, elapsed), state)

    def moved(self, offsets: Tensor, motion: Tensor, time: Tensor) -> Tensor:
        """Return ``(B, A, 4)`` offsets, moved by the displacements for ``(B, 1)`` times ahead."""
        cells = self.shift(motion, time)[:, :, None]
        shift = cells.expand(-1, -1, self.per_cell, -1).flatten(1, 2)
        return offsets + shift * self.units

    def shift(self, motion: Tensor, time: Tensor) -> Tensor:
        """Return the displacements ``(B, N, 4)`` of motions ``(B, N, 4 * TERMS)``."""
        return displacement(motion, time)

    def decide(self, state: MotionState, elapsed: Tensor) -> Tensor:
        """Judge the forecast of the next frame, which is expected after the same `elapsed`."""
        seen, gap, since = state.times.split(1, 1)
        return self.scheduler(state.summary,
                              ahead(torch.cat((seen, gap, since + elapsed), 1)))


def ahead(times: Tensor) -> Tensor:
    """Return the time since the last read over the time between the last two; 0 after one read."""
    gap, since = times[:, 1:2], times[:, 2:]
    ratio = since / torch.where(gap > 0, gap, torch.ones_like(gap))
    return torch.where(gap > 0, ratio, torch.zeros_like(gap)).clamp(0.0, LONGEST)
