# SPDX-License-Identifier: Apache-2.0
"""Hold one back-end against another over a clip: raw output, and boxes after NMS."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from . import Backend, RawOutput
from ..checkpoint import Card
from ..processing import Detections, Postprocessor
from ...boxes import box_iou

#: Of logits, offsets and confidence in float32: sums in another order change the sixth digit.
MAX_DIFFERENCE = 1e-3

BOX_TOLERANCE = 0.1  #: Pixels of the network's input

SCORE_TOLERANCE = 1e-3
#: Low, so that a clip without anything to detect still gives boxes to compare.
SCORE_THRESHOLD = 0.02

#: Overlap from which on a box counts as found again, where only likeness is asked for.
LIKE_IOU = 0.5

#: Where only likeness is asked for, boxes count from this far above the lowest score on.
LIKE_MARGIN = 0.1

MAX_DETECTIONS = 100

#: Whether a frame is read, over and over: one and two forecasts in a row.
PATTERN = (True, False, True, False, False)


@dataclass(frozen=True)
class Parity:
    """How far two back-ends are apart."""

    steps: int
    logits: float  #: Largest absolute difference; likewise the next two
    offsets: float
    confidence: float
    boxes: int  #: Of the reference, all steps together
    boxes_off: int  #: Boxes of either side without a partner within the tolerances
    boxes_unlike: int  #: Boxes of either side without a partner of their class at `LIKE_IOU`
    boxes_firm: int  #: Boxes of the reference that count for likeness

    def values(self) -> dict[str, int | float]:
        """Give plain values for a record."""
        return {key: value if isinstance(value, int) else float(f'{value:.3g}')
                for key, value in asdict(self).items()}

    @property
    def same(self) -> bool:
        """Whether raw output and boxes are the same within the tolerances."""
        return not self.boxes_off and max(
            self.logits, self.offsets, self.confidence) <= MAX_DIFFERENCE

    @property
    def likeness(self) -> float:
        """Part of the reference's boxes found again, minus new ones; at most 1."""
        return 1.0 - self.boxes_unlike / max(self.boxes_firm, 1)


def run_clips(backend: Backend, clips: Sequence[Sequence[np.ndarray]]) -> Iterator[RawOutput]:
    """
    Step a back-end through clips, after `PATTERN`.

    :param backend: steps one stream
    :param clips: consecutive ``(H, W, 3)`` uint8 BGR pictures of the network's input size; every
        clip starts anew
    """
    for clip in clips:
        state = backend.initial_state(1)
        for place, picture in enumerate(clip):
            raw = (backend.read_step(picture[None], state) if PATTERN[place % len(PATTERN)]
                   else backend.forecast_step(state))
            state = raw.state
            yield raw


def compare_backends(reference: Backend, candidate: Backend,
                     clips: Sequence[Sequence[np.ndarray]], card: Card) -> Parity:
    """
    Run both over the same clips, each with its own state.

    :param reference, candidate: of the same network
    :param clips: as for `run_clips`; at least one picture
    """
    find = Postprocessor(reference.anchors, card.input_size, card.classes)
    apart = {'logits': 0.0, 'offsets': 0.0, 'confidence': 0.0}
    steps = boxes = off = unlike = firm = 0
    for a, b in zip(run_clips(reference, clips), run_clips(candidate, clips), strict=True):
        steps += 1
        for key, value in apart.items():
            # A NaN must not vanish in a maximum.
            gap = float(np.abs(getattr(a, key) - getattr(b, key)).max())
            apart[key] = gap if np.isnan(gap) else max(value, gap)
        one, other = (find(raw.logits[0], raw.offsets[0], card.input_size, SCORE_THRESHOLD,
                           card.nms_threshold, MAX_DETECTIONS) for raw in (a, b))
        boxes += len(one)
        firm += int((one.scores > SCORE_THRESHOLD + LIKE_MARGIN).sum())
        off += _alone(one, other, like=False) + _alone(other, one, like=False)
        unlike += _alone(one, other, like=True) + _alone(other, one, like=True)
    return Parity(steps, **apart, boxes=boxes, boxes_off=off, boxes_unlike=unlike,
                  boxes_firm=firm)


def _alone(those: Detections, others: Detections, like: bool) -> int:
    """Count the boxes of one side without a partner, best score first, one partner each."""
    free = np.ones(len(others), bool)
    alone = 0
    # Close to the lowest score that is shown, a box may be on one side only.
    floor = SCORE_THRESHOLD if len(others) < MAX_DETECTIONS else float(others.scores.min())
    for box, label, score in zip(those.boxes, those.labels, those.scores):
        fits = free & (others.labels == label)
        overlap = box_iou(box[None], others.boxes)[0]
        if like:
            fits &= overlap >= LIKE_IOU
        else:
            fits &= np.abs(others.boxes - box).max(1, initial=0.0) <= BOX_TOLERANCE
            fits &= np.abs(others.scores - score) <= SCORE_TOLERANCE
        if fits.any():
            free[np.where(fits, overlap, -1.0).argmax()] = False
        elif score > floor + (LIKE_MARGIN if like else SCORE_TOLERANCE):
            alone += 1
    return alone
