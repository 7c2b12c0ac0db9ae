# SPDX-License-Identifier: Apache-2.0
"""Draw boxes and the decision into the images of a camera, as in the paper's Fig. 4."""
from __future__ import annotations

from collections.abc import Sequence
import zlib

import cv2
import numpy as np

from .recorded_frame import RecordedFrame
from ..detector.policy import FORECAST
from ..errors import cut

RED = (0, 0, 255)
WHITE = (255, 255, 255)
BLACK = (0, 0, 0)
GREY = (150, 150, 150)
FONT = cv2.FONT_HERSHEY_SIMPLEX
BORDER_FRACTION = 1 / 60  #: Width of the border as a fraction of the shorter side
TEXT_FRACTION = 1 / 700  #: Font scale as a fraction of the shorter side, within 0.4 and 1.2


def class_colour(label: str) -> tuple[int, int, int]:
    """Return a bright BGR colour, the same for `label` in every run, and never pure red."""
    hue = zlib.crc32(label.encode()) % 150 + 15
    pixel = cv2.cvtColor(np.array([[[hue, 200, 255]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
    return int(pixel[0]), int(pixel[1]), int(pixel[2])


def status_text(record: RecordedFrame, number: int) -> str:
    """Return one line on frame `number`: decision, reason, confidence, boxes and latency."""
    words = [f'{number:5d}', f'{record.kind:8s}']
    if record.reason is not None:
        words.append(f'({record.reason})')
    if record.confidence is not None:
        against = '' if record.threshold is None else f' / {record.threshold:.2f}'
        words.append(f'confidence {record.confidence:.2f}{against}')
    if not record.dropped:
        words.append(f'{len(record.labels)} boxes')
    if record.latency_ms is not None:
        words.append(f'{record.latency_ms:.1f} ms')
    return '  '.join(words)


def annotate(image: np.ndarray, boxes: np.ndarray, record: RecordedFrame,
             status: str) -> np.ndarray:
    """
    Draw into `image` (BGR, uint8, (H, W, 3), changed in place) and return it.

    `boxes` is (N, 4), xyxy in pixels, in the order of the labels and scores of `record`. The
    border of a forecast frame is red, that of a dropped frame is grey. `status` is at the top.
    """
    shorter = min(image.shape[:2])
    scale = min(1.2, max(0.4, shorter * TEXT_FRACTION))
    border = max(3, round(shorter * BORDER_FRACTION))
    (_, height), base = cv2.getTextSize(status, FONT, scale, 1)
    draw_boxes(image, boxes, record.labels, record.scores, scale, border + height + 2 * base + 1)
    if record.kind == FORECAST or record.dropped:
        height, width = image.shape[:2]
        colour = RED if record.kind == FORECAST else GREY
        inset = border // 2
        cv2.rectangle(image, (inset, inset), (width - 1 - inset, height - 1 - inset), colour,
                      border)
    _draw_status(image, status, scale, border)
    return image


def draw_boxes(image: np.ndarray, boxes: np.ndarray, labels: Sequence[str],
               scores: Sequence[float], scale: float, headroom: int = 0) -> None:
    """
    Draw boxes (N, 4), xyxy in pixels, with labels and scores, in place.

    :param scale: font scale of OpenCV
    :param headroom: rows at the top of the image without labels
    """
    thickness = max(1, round(2 * scale))
    for box, label, score in zip(boxes, labels, scores):
        left, top, right, bottom = (int(round(float(edge))) for edge in box)
        colour = class_colour(label)
        cv2.rectangle(image, (left, top), (right, bottom), colour, thickness)
        text = f'{cut(label, 60)} {score:.2f}'
        (width, height), base = cv2.getTextSize(text, FONT, scale, 1)
        # The label must be readable even if the box touches the upper edge.
        foot = max(top, headroom + height + base)
        cv2.rectangle(image, (left, foot - height - base), (left + width, foot), colour, -1)
        cv2.putText(image, text, (left, foot - base + 1), FONT, scale, BLACK, 1, cv2.LINE_AA)


def _draw_status(image: np.ndarray, status: str, scale: float, border: int) -> None:
    (width, height), base = cv2.getTextSize(status, FONT, scale, 1)
    room = image.shape[1] - 2 * border
    if width > room:
        scale *= 0.98 * room / width  # The text grows in steps, not in proportion.
        (width, height), base = cv2.getTextSize(status, FONT, scale, 1)
    cv2.rectangle(image, (border, border), (border + width, border + height + 2 * base), BLACK,
                  -1)
    cv2.putText(image, status, (border, border + height + base), FONT, scale, WHITE, 1,
                cv2.LINE_AA)
