# SPDX-License-Identifier: Apache-2.0
"""Compare two back-ends over clips: raw output, and boxes after NMS."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from . import Backend, RawOutput
from ..checkpoint import Card
from ..processing import Detections, Postprocessor
from ...boxes import box_iou

#: Tolerance of logits, offsets and confidence; another order of sums changes the sixth digit.
MAX_DIFFERENCE = 1e-3

BOX_TOLERANCE = 0.1  #: Tolerance of boxes, pixels of the network's input

SCORE_TOLERANCE = 1e-3
#: Low, so that a clip without objects also has boxes to compare.
SCORE_THRESHOLD = 0.02

#: Least IoU of boxes that count as alike.
LIKE_IOU = 0.5

#: For likeness, boxes count if their score is this far above the lowest score.
LIKE_MARGIN = 0.1

MAX_DETECTIONS = 100

#: Whether each frame is read, repeated: one and two forecasts in a row.
PATTERN = (True, False, True, False, False)


@dataclass(frozen=True)
class Parity:
    """Differences of two back-ends."""

    steps: int
    logits: float  #: Largest absolute difference, also in the next two fields
    offsets: float
    confidence: float
    boxes: int  #: Boxes of the reference in all steps
    boxes_off: int  #: Boxes of either side without a partner within the tolerances
    boxes_unlike: int  #: Boxes of either side without a partner of their class at `LIKE_IOU`
    boxes_firm: int  #: Boxes of the reference that count for likeness

    def values(self) -> dict[str, int | float]:
        """Return plain values for a record."""
        return {key: value if isinstance(value, int) else float(f'{value:.3g}')
                for key, value in asdict(self).items()}

    @property
    def same(self) -> bool:
        """Whether raw output and boxes agree within the tolerances."""
        return not self.boxes_off and max(
            self.logits, self.offsets, self.confidence) <= MAX_DIFFERENCE

    @property
    def likeness(self) -> float:
        """Fraction of the reference's boxes that were found, minus new boxes; at most 1."""
        return 1.0 - self.boxes_unlike / max(self.boxes_firm, 1)


def run_clips(backend: Backend, clips: Sequence[Sequence[np.ndarray]]) -> Iterator[RawOutput]:
    """
    Run a back-end over clips, with reads and forecasts by `PATTERN`.

    :param backend: runs one stream
    :param clips: consecutive ``(H, W, 3)`` uint8 BGR pictures of the network's input size; each
        clip starts with a new state
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
    Run two back-ends over the same clips and compare the results.

    :param reference, candidate: back-ends of the same network
    :param clips: as for `run_clips`; at least one picture
    """
    find = Postprocessor(reference.anchors, card.input_size, card.classes)
    apart = {'logits': 0.0, 'offsets': 0.0, 'confidence': 0.0}
    steps = boxes = off = unlike = firm = 0
    for a, b in zip(run_clips(reference, clips), run_clips(candidate, clips), strict=True):
        steps += 1
        for key, value in apart.items():
            # max() could lose a NaN.
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
    """Count the boxes of `those` without a partner in `others`; a partner is used once."""
    free = np.ones(len(others), bool)
    alone = 0
    # A box near the lowest score may be missing on one side.
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
