# SPDX-License-Identifier: Apache-2.0
"""Find the pictures of the noted frames of a run, wherever they lie, and draw their boxes."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .run_record import MarkedBox, NotedFrame
from ..detector.policy import FORECAST
from ..errors import InputError, one_line
from ..images.bag_images import ImageBag
from ..images.frame import as_bgr, SourceError
from ..images.video_source import VideoFile
from ..recording.drawn_boxes import (
    draw,
    DrawnBox,
    FORECAST_BORDER,
    FOUND,
    jpeg,
    MISSED,
    RIGHT,
    WRONG,
)

WIDTH = 640  #: Of a picture, pixels


@dataclass(frozen=True)
class NotedPicture:
    """The picture of a noted frame, or why there is none."""

    frame: NotedFrame
    jpeg: bytes | None = None
    missing: str | None = None  #: One line; None where there is a picture


def noted_pictures(noted: Sequence[NotedFrame], folder: Path) -> list[NotedPicture]:
    """
    Fetch and draw the picture of every noted frame, in their order.

    A file that is gone or broken costs its pictures, and nothing else.

    :param folder: that of the record, to which relative file names belong
    """
    pictures: dict[int, NotedPicture] = {}
    sources: dict[tuple[str, str | None, bool], list[int]] = {}
    for place, frame in enumerate(noted):
        key = (frame.file, frame.topic, frame.position is None)
        sources.setdefault(key, []).append(place)
    for (file, topic, still), places in sources.items():
        path = folder / file
        wanted = {noted[place].position or 0 for place in places}
        problem = 'the footage ends before it'
        found: dict[int, np.ndarray] = {}
        try:
            found.update(_still(path) if still else _of_bag(path, topic, wanted)
                         if topic is not None else _of_video(path, wanted))
        except InputError as error:
            problem = one_line(error)
        for place in places:
            picture = found.get(noted[place].position or 0)
            pictures[place] = (
                NotedPicture(noted[place], missing=problem) if picture is None
                else NotedPicture(noted[place], jpeg(_drawn(picture, noted[place]))))
    return [pictures[place] for place in range(len(noted))]


def _drawn(picture: np.ndarray, frame: NotedFrame) -> Image.Image:
    boxes = [
        *(_box(box, FOUND) for box in frame.found), *(_box(box, RIGHT) for box in frame.right),
        *(_box(box, WRONG) for box in frame.wrong),
        *(_box(box, MISSED, dashed=True) for box in frame.missed)]
    # A small picture is not blown up to more than twice its size.
    return draw(picture, boxes, min(WIDTH, 2 * picture.shape[1]),
                FORECAST_BORDER if frame.kind == FORECAST else None)


def _box(box: MarkedBox, colour: str, dashed: bool = False) -> DrawnBox:
    score = '' if box.score is None else f' {box.score:.2f}'
    return DrawnBox(box.corners, f'{box.label}{score}', colour, dashed)


def _still(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    try:
        picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        picture = None
    if picture is None:
        raise SourceError(f'{path}: is missing, or no picture')
    yield 0, picture


def _of_video(path: Path, wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    if not path.is_file():
        raise SourceError(f'{path}: is missing')
    source = VideoFile(path)
    try:
        for number in range(max(wanted) + 1):
            picture = source.read()
            if picture is None:
                return
            if number in wanted:
                yield number, picture.copy()
    finally:
        source.close()


def _of_bag(path: Path, topic: str, wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    with ImageBag(path) as bag:
        for number, image in enumerate(bag.images([bag.choose(topic)])):
            if number in wanted:
                pixels = image.frame().load()
                yield number, np.ascontiguousarray(as_bgr(pixels.array, pixels.order))
            if number >= max(wanted):
                return
