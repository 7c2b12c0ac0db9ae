# SPDX-License-Identifier: Apache-2.0
"""Draw detections into a copy of the picture; frames that were forecast get a red border."""
from __future__ import annotations

from collections.abc import Sequence
import colorsys
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..runtime.frame import Pixels
from ..runtime.policy import Decision, FORECAST

if TYPE_CHECKING:  # Importing these for real would import PyTorch.
    from ..runtime.detections import Detections

RED = (0, 0, 255)
"""BGR; the border of a forecast frame, as in the paper's Fig. 4."""

_TO_BGR = {'rgb': cv2.COLOR_RGB2BGR, 'rgba': cv2.COLOR_RGBA2BGR, 'bgra': cv2.COLOR_BGRA2BGR,
           'mono': cv2.COLOR_GRAY2BGR}

_GOLDEN_RATIO = 0.618034
"""Steps round the colour circle that keep neighbouring classes far apart."""


def annotate(pixels: Pixels, found: Detections, labels: Sequence[str], decision: Decision
             ) -> np.ndarray:
    """
    Return a BGR copy, ``(H, W, 3)`` uint8, contiguous, with boxes, names, scores and decision.

    `found` is in pixels of this very picture; boxes that reach beyond it are clipped.
    """
    picture = (np.array(pixels.array, order='C') if pixels.order == 'bgr'
               else cv2.cvtColor(pixels.array, _TO_BGR[pixels.order]))
    height, width = picture.shape[:2]
    thickness = max(1, round(min(height, width) / 300))
    for box, label, score in zip(found.boxes, found.labels.tolist(), found.scores.tolist(),
                                 strict=True):
        left, top, right, bottom = np.rint(box).astype(int).tolist()
        colour = _colour(label)
        cv2.rectangle(picture, (left, top), (right, bottom), colour, thickness)
        _write(picture, f'{labels[label]} {score:.2f}', (left, top), colour, thickness)
    _write(picture, f'{decision.kind} ({decision.reason}) {decision.confidence:.2f}',
           (2 * thickness, height - 2 * thickness), (255, 255, 255), thickness)
    if decision.kind == FORECAST:
        border = 3 * thickness
        cv2.rectangle(picture, (border // 2, border // 2),
                      (width - 1 - border // 2, height - 1 - border // 2), RED, border)
    return picture


def _write(picture: np.ndarray, text: str, origin: tuple[int, int],
           colour: tuple[int, int, int], thickness: int) -> None:
    """Write dark on `colour`, above `origin` or, at the picture's edge, inside."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.4 * thickness
    (width, height), base = cv2.getTextSize(text, font, scale, thickness)
    left = max(0, min(origin[0], picture.shape[1] - width))
    bottom = max(height + base, origin[1])
    cv2.rectangle(picture, (left, bottom - height - base), (left + width, bottom), colour, -1)
    cv2.putText(picture, text, (left, bottom - base // 2), font, scale, (0, 0, 0), thickness,
                cv2.LINE_AA)


@lru_cache(maxsize=1024)
def _colour(label: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN_RATIO % 1.0, 0.6, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)
