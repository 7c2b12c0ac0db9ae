# SPDX-License-Identifier: Apache-2.0
"""The annotated picture of a live frame, drawn as recordings are."""
from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

import numpy as np

from ..detector.policy import Decision
from ..images.frame import as_bgr, Pixels
from ..recording.annotate import annotate as draw
from ..recording.frame_record import RecordedFrame

if TYPE_CHECKING:  # Importing these for real would import PyTorch.
    from ..detector.detections import Detections


def draw_answer(pixels: Pixels, found: Detections, labels: Sequence[str], decision: Decision
                ) -> np.ndarray:
    """
    Return a BGR copy, ``(H, W, 3)`` uint8, contiguous, with boxes, names, scores and decision.

    `found` is in pixels of this very picture; boxes that reach beyond it are clipped.
    """
    picture = (np.array(pixels.array, order='C') if pixels.order == 'bgr'
               else as_bgr(pixels.array, pixels.order))
    record = RecordedFrame(
        stamp_ns=0, kind=decision.kind, reason=decision.reason,
        labels=tuple(labels[label] for label in found.labels.tolist()),
        scores=tuple(found.scores.tolist()))
    confidence = '' if isnan(decision.confidence) else f' {decision.confidence:.2f}'
    return draw(picture, found.boxes, record,
                f'{decision.kind} ({decision.reason}){confidence}')
