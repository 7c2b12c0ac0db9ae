# SPDX-License-Identifier: Apache-2.0
"""Draw boxes with texts into pictures of the report and of the paper's Fig. 4."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

#: Colours of right detections, missed annotated boxes, wrong detections, and detections without
#: annotations. White text is readable on each.
RIGHT, MISSED, WRONG, FOUND = '#15803d', '#b45309', '#be123c', '#1d4ed8'
#: Border of a forecast frame, red as in the paper's Fig. 4.
FORECAST_BORDER = '#dc2626'


@dataclass(frozen=True)
class DrawnBox:
    """A box, its text and its colour."""

    #: x0, y0, x1, y1 in pixels of the picture before scaling.
    corners: tuple[float, float, float, float]
    text: str
    colour: str
    dashed: bool = False


def draw(picture: np.ndarray, boxes: Sequence[DrawnBox], width: int, border: str | None = None
         ) -> Image.Image:
    """
    Scale a picture and draw boxes with their texts.

    :param picture: ``(H, W, 3)`` uint8, BGR; not changed
    :param boxes: boxes; later ones are drawn over earlier ones
    :param width: width of the result, pixels
    :param border: colour of the border; None for no border
    """
    # Imported here, because choosing frames does not need Pillow.
    from PIL import Image, ImageDraw

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
    # A class may have any name; a line break would draw over the picture.
    text = ''.join(letter if letter.isprintable() else ' ' for letter in box.text)
    if not text:
        return
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 5
    # Above the box if there is space, else inside, and always in the picture.
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
    # Slow to import. Its fonts give the same result on every machine.
    from matplotlib import get_data_path
    from PIL import ImageFont

    path = Path(get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans-Bold.ttf'
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
