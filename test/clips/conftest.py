# SPDX-License-Identifier: Apache-2.0
"""Pictures whose content can be measured, and annotated videos of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
from forecast_detector_ros.annotations.records import FrameRecord, VideoRecord
from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.annotations.video_json import load_video_json
import numpy as np
import pytest

SIZE = (180, 240)


@pytest.fixture(scope='session')
def synthetic(tmp_path_factory) -> list[VideoRecord]:
    """Return four synthetic videos of 12 frames with lossless pictures, 120x160."""
    path = write_synthetic_videos(tmp_path_factory.mktemp('synthetic'), seed=3, extension='png')
    return load_video_json(path, path.parent, CLASSES)


@pytest.fixture
def paint_video(tmp_path) -> Callable[..., VideoRecord]:
    """Return a function that writes grey pictures, 180x240, each with a red shape or none."""
    def function(boxes: Sequence[Sequence[int] | None], ellipse: bool = False,
                 name: str = 'painted') -> VideoRecord:
        folder = tmp_path / name
        folder.mkdir()
        return VideoRecord(name, tuple(
            _paint(folder / f'{index}.png', box, ellipse) for index, box in enumerate(boxes)))
    return function


def _paint(path: Path, box: Sequence[int] | None, ellipse: bool) -> FrameRecord:
    """Write a picture with a red rectangle or ellipse that fills `box`, xyxy in pixels."""
    image = np.full((*SIZE, 3), 90, np.uint8)
    if box is not None:
        x0, y0, x1, y1 = box
        if ellipse:
            rows, columns = np.mgrid[:SIZE[0], :SIZE[1]] + 0.5
            inside = (((columns - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2
                      + ((rows - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** 2) <= 1
            image[inside] = 0, 0, 255
        else:
            image[y0:y1, x0:x1] = 0, 0, 255
    cv2.imwrite(str(path), image)
    boxes = np.array([] if box is None else [box], np.float32).reshape(-1, 4)
    return FrameRecord(boxes, np.zeros(len(boxes), np.int64),
                       np.ones(len(boxes), np.float32), np.zeros((0, 4), np.float32),
                       path=path, width=SIZE[1], height=SIZE[0])


@pytest.fixture(scope='session')
def measure() -> Callable[..., np.ndarray | None]:
    """Return a function that finds the area of a colour (0 red, 1 green, 2 blue) in a picture."""
    def function(image: np.ndarray, colour: int = 0) -> np.ndarray | None:
        """Return the box, xyxy (4,), to about half a pixel; None if the colour does not occur."""
        others = [channel for channel in range(3) if channel != colour]
        strength = image[:, :, colour].astype(int) - image[:, :, others].max(axis=2)
        rows, columns = np.nonzero(strength > 127)
        if not len(rows):
            return None
        return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
    return function
