# SPDX-License-Identifier: Apache-2.0
"""
Preprocessing and post-processing of the detector, in NumPy and OpenCV.

Preprocessing is one resize; the network's graph does the rest. Post-processing is that of
`model.ssdlite.postprocess`: threshold, top-k, decode, NMS. Box voting and smoothing of scores are
only here. The softmax is computed only for the few anchors that can exceed the threshold. PyTorch
is not used, because after a run of the network its NMS takes several times as long as OpenCV's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Any

import cv2
import numpy as np

from ..boxes import best_pairs, box_iou
from ..images.frame import as_bgr, Pixels
from ..model.config import BOX_CODER_WEIGHTS, LEAST_SIDE


@dataclass(frozen=True)
class Detections:
    """Boxes with labels and scores, best score first."""

    boxes: np.ndarray  #: ``(N, 4)`` float32, xyxy, pixels of the incoming image, inside it
    labels: np.ndarray  #: ``(N,)`` int64, index into the detector's labels
    scores: np.ndarray  #: ``(N,)`` float32, in (0, 1]

    #: ``(N,)`` int64: numbers of the objects in their stream; None without stamps. -1 for a new
    #: object in detections ahead of time.
    ids: np.ndarray | None = None

    #: Names of all classes; a label is an index into them. Empty if unknown.
    classes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the name of each box's class; empty without `classes`."""
        return tuple(self.classes[label] for label in self.labels) if self.classes else ()

    def __len__(self) -> int:
        return len(self.scores)

    def best(self, score_threshold: float, count: int) -> 'Detections':
        """Return the best boxes, at most `count`, with a score above a threshold."""
        rows = np.argsort(-self.scores, kind='stable')[:count]
        rows = rows[self.scores[rows] > score_threshold]
        return replace(self, boxes=self.boxes[rows], labels=self.labels[rows],
                       scores=self.scores[rows],
                       ids=None if self.ids is None else self.ids[rows])


def resize(pixels: Pixels, input_size: tuple[int, int]) -> np.ndarray:
    """
    Resize a picture to the network's input size.

    The aspect ratio is not kept. Channels are swapped after the resize, on fewer pixels.

    :param pixels: the picture, of any size; it is not changed
    :param input_size: (height, width) of the result
    :returns: ``(height, width, 3)`` uint8 BGR, contiguous and writable; it shares the picture's
        memory if nothing has to be converted
    """
    array = pixels.array
    if pixels.size != input_size:
        array = cv2.resize(array, (input_size[1], input_size[0]),
                           interpolation=cv2.INTER_LINEAR)
    # Writable, because PyTorch warns of read-only memory, such as that of a recorded message.
    return np.require(as_bgr(array, pixels.order), requirements=('C', 'W'))


CANDIDATES = 400  #: Boxes that enter NMS, as in `model.ssdlite.postprocess`

NO_VOTES = 1.0  #: IoU of equal boxes, whose mean changes nothing

#: Boxes with a score above it vote and are remembered: half of the shipped score threshold. A
#: lower value gained nothing on the held-out data, and there are many such boxes.
WEAK_SCORE = 0.2

#: Least IoU of boxes of one object in successive frames. 0.4 was not better on the held-out data.
SAME_IOU = 0.5

_SLACK = 1e-3  #: Margin of the first test of logits, far above their rounding in float32

#: Limit of the logarithm of a side's growth: `bbox_xform_clip` of torchvision's BoxCoder.
_LARGEST_GROWTH = log(1000.0 / 16)


@dataclass(frozen=True)
class Candidates:
    """The N best scores of one picture before NMS; N is at most `CANDIDATES`."""

    threshold: float  #: All scores are above it
    classes: tuple[str, ...]  #: Names of the wanted classes; empty for all
    anchors: np.ndarray  #: ``(N,)`` int64, index of the anchor
    labels: np.ndarray  #: ``(N,)`` int64
    scores: np.ndarray  #: ``(N,)`` float32


def lowest_score(score_threshold: float, vote_threshold: float, score_memory: float = 0.0
                 ) -> float:
    """Return the score above which a box may be shown, vote or be remembered."""
    alone = vote_threshold >= NO_VOTES and not score_memory
    return score_threshold if alone else min(score_threshold, WEAK_SCORE)


def smoothed(found: Detections, before: Detections, memory: float) -> Detections:
    """
    Average the score of each box with that of the same object in the previous frame.

    Boxes of a class with an IoU of `SAME_IOU` or more show one object if both have a score above
    `WEAK_SCORE`. A box without a partner keeps its score.

    :param before: detections of the previous frame, with smoothed scores
    :param memory: weight of the previous score, in [0, 1]
    :returns: the same boxes in the same order
    """
    overlap = box_iou(found.boxes, before.boxes)
    overlap[found.labels[:, None] != before.labels] = 0.0
    overlap[found.scores <= WEAK_SCORE] = 0.0
    overlap[:, before.scores <= WEAK_SCORE] = 0.0
    rows, partners = best_pairs(overlap, SAME_IOU)
    scores = found.scores.copy()
    scores[rows] += np.float32(memory) * (before.scores[partners] - scores[rows])
    return replace(found, scores=scores)


class Postprocessor:
    """
    Turns raw output into detections.

    :param anchors: ``(A, 4)`` float32, xyxy in pixels of the network's input
    :param input_size: (height, width) of the network's input
    :param labels: names of the classes without background
    """

    def __init__(self, anchors: np.ndarray, input_size: tuple[int, int], labels: Sequence[str]
                 ) -> None:
        self._sizes = anchors[:, 2:] - anchors[:, :2]
        self._centres = anchors[:, :2] + np.float32(0.5) * self._sizes
        self._input = np.array((input_size[1], input_size[0]) * 2, np.float32)
        self._weights = np.array(BOX_CODER_WEIGHTS, np.float32)
        self._labels = tuple(labels)

    def __call__(self, logits: np.ndarray, offsets: np.ndarray, frame_size: tuple[int, int],
                 score_threshold: float, nms_threshold: float, max_detections: int,
                 classes: Sequence[str] = (), vote_threshold: float = NO_VOTES) -> Detections:
        """Return the detections of one picture: `choose`, then `place`."""
        lowest = lowest_score(score_threshold, vote_threshold)
        return self.place(self.choose(logits, lowest, classes), offsets, frame_size,
                          score_threshold, nms_threshold, max_detections, vote_threshold)

    def choose(self, logits: np.ndarray, threshold: float, classes: Sequence[str] = ()
               ) -> Candidates:
        """
        Return the best scores above a threshold.

        :param logits: ``(A, 1 + classes)`` float32, background first
        :param threshold: lower limit of scores, exclusive, in [0, 1]
        :param classes: names of the wanted classes; empty for all
        """
        # A softmax score is above t only if its logit is log(t / (1 - t)) above the background's.
        lead = (-np.inf if threshold <= 0.0 else np.inf if threshold >= 1.0
                else log(threshold / (1.0 - threshold)) - _SLACK)
        # NumPy's maximum over short rows takes ten times as long as OpenCV's.
        best = cv2.reduce(logits[:, 1:], 1, cv2.REDUCE_MAX)[:, 0]
        rows = np.flatnonzero(best > logits[:, 0] + np.float32(lead))
        near = logits[rows]
        np.exp(near - near.max(1, keepdims=True), out=near)
        scores = near[:, 1:] / near.sum(1, keepdims=True)
        wanted = scores > threshold
        if classes:
            wanted &= np.array([label in classes for label in self._labels])
        row, label = np.nonzero(wanted)
        anchor, score = rows[row], scores[row, label]
        if len(score) > CANDIDATES:
            first = np.argpartition(score, -CANDIDATES)[-CANDIDATES:]
            anchor, label, score = anchor[first], label[first], score[first]
        return Candidates(threshold, tuple(classes), anchor, label, score)

    def place(self, chosen: Candidates, offsets: np.ndarray, frame_size: tuple[int, int],
              score_threshold: float, nms_threshold: float, max_detections: int,
              vote_threshold: float = NO_VOTES) -> Detections:
        """
        Decode the boxes of the candidates, and suppress several boxes of one object.

        Boxes with a side below `LEAST_SIDE` are left out.

        :param offsets: ``(A, 4)`` float32, (dx, dy, dw, dh) in the box coder's units
        :param frame_size: (height, width) of the picture in which the boxes are given
        :param score_threshold: boxes with a score above it are shown, the others only vote
        :param nms_threshold: IoU at or above which the weaker of two boxes of one class is
            dropped, in (0, 1]
        :param max_detections: upper limit of the number of detections
        :param vote_threshold: IoU at or above which boxes of a class vote for a kept box, in
            (0, 1]; 1 for no votes
        """
        boxes = self._decode(offsets[chosen.anchors], chosen.anchors)
        wide = (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(1)
        boxes, labels, scores = boxes[wide], chosen.labels[wide], chosen.scores[wide]
        strong = np.flatnonzero(scores > score_threshold)
        keep = strong[_nms(boxes[strong], labels[strong], scores[strong],
                           nms_threshold)[:max_detections]]
        found = (boxes[keep] if vote_threshold >= NO_VOTES
                 else _voted(boxes, labels, scores, keep, vote_threshold))
        limit = np.array((frame_size[1], frame_size[0]) * 2, np.float32)
        # The product may be rounded to a number above the picture's side.
        found = np.minimum(found * (limit / self._input), limit)
        return Detections(found, labels[keep], scores[keep], classes=self._labels)

    def _decode(self, offsets: np.ndarray, anchor: np.ndarray) -> np.ndarray:
        """Apply torchvision's box coder, clipped to the network's input: ``(N, 4)`` xyxy."""
        sizes = self._sizes[anchor]
        offsets = offsets / self._weights
        moved = self._centres[anchor] + offsets[:, :2] * sizes
        grown = np.minimum(offsets[:, 2:], np.float32(_LARGEST_GROWTH))
        half = np.float32(0.5) * np.exp(grown) * sizes
        corners = np.concatenate((moved - half, moved + half), 1)
        # This is np.clip, without the cost of its call.
        return np.minimum(np.maximum(corners, np.float32(0.0)), self._input)


def _voted(boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray, keep: np.ndarray,
           threshold: float) -> np.ndarray:
    """
    Return the kept boxes, each replaced by the mean of its voters, weighted by their scores.

    This is bounding box voting (Gidaris and Komodakis 2015, arXiv:1505.01749). The voters are the
    box itself and all boxes of its class with a score above `WEAK_SCORE` and an IoU of `threshold`
    or more.
    """
    weights = box_iou(boxes[keep], boxes) >= threshold
    weights &= (labels[keep, None] == labels) & (scores > WEAK_SCORE)
    weights[np.arange(len(keep)), keep] = True
    weights = weights * scores
    return weights @ boxes / weights.sum(1, keepdims=True)


def _nms(boxes: np.ndarray, label: np.ndarray, score: np.ndarray, threshold: float
         ) -> np.ndarray:
    """Return the indices of the kept boxes, best score first."""
    if len(score) == 0:
        return np.zeros(0, np.int64)
    # Boxes of each class are shifted, so that one call handles all classes, as in torchvision.
    apart = boxes + (label * (boxes.max() + 1.0)).astype(np.float32)[:, None]
    corner, size = apart[:, :2].astype(np.float64), apart[:, 2:] - apart[:, :2]
    # OpenCV accepts arrays as sequences, but its type hints do not.
    rectangles: Any = np.concatenate((corner, size), 1)
    scores: Any = score
    kept = cv2.dnn.NMSBoxes(rectangles, scores, 0.0, threshold)
    return np.asarray(kept, np.int64).reshape(-1)
