# SPDX-License-Identifier: Apache-2.0
"""
Draw boxes and the decision into pictures.

`annotate` draws into the images of a camera while they come, as in the paper's Fig. 4; `draw` into
pictures that people look at: the report's, and the paper's Fig. 4 itself.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
import zlib

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

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
    """Return a bright BGR colour that belongs to `label` in every run and is never pure red."""
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
    Draw into `image` (BGR, uint8, (H, W, 3), written in place) and return it.

    `boxes` is (N, 4), xyxy in pixels, in the order of the labels and scores of `record`. A
    forecast frame gets a red border, a dropped one a grey one; `status` is written at the top.
    """
    shorter = min(image.shape[:2])
    scale = min(1.2, max(0.4, shorter * TEXT_FRACTION))
    draw_boxes(image, boxes, record.labels, record.scores, scale)
    border = max(3, round(shorter * BORDER_FRACTION))
    if record.kind == FORECAST or record.dropped:
        height, width = image.shape[:2]
        colour = RED if record.kind == FORECAST else GREY
        inset = border // 2
        cv2.rectangle(image, (inset, inset), (width - 1 - inset, height - 1 - inset), colour,
                      border)
    _draw_status(image, status, scale, border)
    return image


def draw_boxes(image: np.ndarray, boxes: np.ndarray, labels: Sequence[str],
               scores: Sequence[float], scale: float) -> None:
    """Draw every box with its label and score; `scale` is the font's."""
    thickness = max(1, round(2 * scale))
    for box, label, score in zip(boxes, labels, scores):
        left, top, right, bottom = (int(round(float(edge))) for edge in box)
        colour = class_colour(label)
        cv2.rectangle(image, (left, top), (right, bottom), colour, thickness)
        text = f'{cut(label, 60)} {score:.2f}'
        (width, height), base = cv2.getTextSize(text, FONT, scale, 1)
        # Inside the picture even when the box touches its upper edge.
        foot = max(top, height + base)
        cv2.rectangle(image, (left, foot - height - base), (left + width, foot), colour, -1)
        cv2.putText(image, text, (left, foot - base + 1), FONT, scale, BLACK, 1, cv2.LINE_AA)


def _draw_status(image: np.ndarray, status: str, scale: float, border: int) -> None:
    (width, height), base = cv2.getTextSize(status, FONT, scale, 1)
    room = image.shape[1] - 2 * border
    if width > room:
        scale *= 0.98 * room / width  # the text grows in steps, not in proportion
        (width, height), base = cv2.getTextSize(status, FONT, scale, 1)
    cv2.rectangle(image, (border, border), (border + width, border + height + 2 * base), BLACK,
                  -1)
    cv2.putText(image, status, (border, border + height + base), FONT, scale, WHITE, 1,
                cv2.LINE_AA)


#: Of detections that hit, annotated boxes that nobody found, detections that hit nothing, and
#: detections where nothing is annotated. White text is readable on each.
RIGHT, MISSED, WRONG, FOUND = '#15803d', '#b45309', '#be123c', '#1d4ed8'
#: Around a frame whose features are forecast; the paper's Fig. 4 has it red too.
FORECAST_BORDER = '#dc2626'


@dataclass(frozen=True)
class DrawnBox:
    """A box, its text and its colour."""

    #: x0, y0, x1, y1 in pixels of the picture as it was taken.
    corners: tuple[float, float, float, float]
    text: str
    colour: str
    dashed: bool = False


def draw(picture: np.ndarray, boxes: Sequence[DrawnBox], width: int, border: str | None = None
         ) -> Image.Image:
    """
    Scale a picture and draw boxes with their texts.

    :param picture: ``(H, W, 3)`` uint8, BGR; not changed
    :param boxes: what to draw; the last ones lie on top
    :param width: of the result, pixels
    :param border: colour of a border, or None for no border
    """
    factor = width / picture.shape[1]
    height = max(1, round(picture.shape[0] * factor))
    scaled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA
                        if factor < 1 else cv2.INTER_CUBIC)
    image = Image.fromarray(np.ascontiguousarray(scaled[:, :, ::-1]))
    canvas = ImageDraw.Draw(image)
    line, font = max(2, round(width / 280)), _font(max(11, round(width / 42)))
    for box in boxes:
        x0, y0, x1, y1 = (edge * factor for edge in box.corners)
        if box.dashed:
            _dashed(canvas, (x0, y0, x1, y1), box.colour, line)
        else:
            canvas.rectangle((x0, y0, max(x1, x0), max(y1, y0)), outline=box.colour, width=line)
    for box in boxes:
        _label(canvas, box, factor, font, image.size)
    if border is not None:
        thick = max(4, round(width / 80))
        canvas.rectangle((0, 0, width - 1, height - 1), outline=border, width=thick)
    return image


def jpeg(image: Image.Image, quality: int = 82) -> bytes:
    """Return a picture as JPEG."""
    buffer = BytesIO()
    image.save(buffer, 'JPEG', quality=quality, optimize=True)
    return buffer.getvalue()


def _label(canvas: ImageDraw.ImageDraw, box: DrawnBox, factor: float,
           font: ImageFont.FreeTypeFont, size: tuple[int, int]) -> None:
    # A class may have any name; a line break in it would be drawn over the picture.
    text = ''.join(letter if letter.isprintable() else ' ' for letter in box.text)
    if not text:
        return
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 5
    # Above the box where there is room, else inside; and never beyond the picture.
    x = min(max(box.corners[0] * factor, 0), max(size[0] - width, 0))
    y = box.corners[1] * factor - height
    y = min(max(y, 0), max(size[1] - height, 0))
    canvas.rectangle((x, y, x + width, y + height), fill=box.colour)
    canvas.text((x + 3 - left, y + 2 - top), text, fill='white', font=font)


def _dashed(canvas: ImageDraw.ImageDraw, corners: tuple[float, float, float, float],
            colour: str, line: int) -> None:
    x0, y0, x1, y1 = corners
    step = 5.0 * line
    for start in np.arange(x0, x1, 2 * step):
        for y in (y0, y1):
            canvas.line((start, y, min(start + step, x1), y), fill=colour, width=line)
    for start in np.arange(y0, y1, 2 * step):
        for x in (x0, x1):
            canvas.line((x, start, x, min(start + step, y1)), fill=colour, width=line)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Slow to import, and not needed for a camera's images. It brings its fonts along, so that
    # every machine draws alike.
    from matplotlib import get_data_path
    path = Path(get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans-Bold.ttf'
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
