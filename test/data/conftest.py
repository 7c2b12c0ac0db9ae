# SPDX-License-Identifier: Apache-2.0
"""Annotation files and pictures that the tests of the data room share."""

from collections.abc import Callable, Sequence
import json
from pathlib import Path
from typing import Any

import cv2
from forecast_detector_ros.data.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.data.video_json import FrameRecord, load_video_json, VideoRecord
import numpy as np
import pytest


@pytest.fixture(scope='session')
def synthetic(tmp_path_factory) -> list[VideoRecord]:
    """Give four synthetic videos of 12 frames, 120x160, as lossless pictures."""
    path = write_synthetic_videos(tmp_path_factory.mktemp('synthetic'), seed=3, extension='png')
    return load_video_json(path, path.parent, CLASSES)


@pytest.fixture
def document(tmp_path) -> dict[str, Any]:
    """Give a valid annotation document with two frames of a video and a still, 40x30 pixels."""
    names = ['v/1.png', 'v/2.png', 'still.png']
    (tmp_path / 'v').mkdir()
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.full((30, 40, 3), 90, np.uint8))
    images: list[dict[str, Any]] = [
        {'id': 10 + number, 'file_name': name, 'width': 40, 'height': 30}
        for number, name in enumerate(names)]
    # Out of order on purpose: frame_index decides.
    images[0] |= {'video': 'v', 'frame_index': 7}
    images[1] |= {'video': 'v', 'frame_index': 2}
    return {
        'images': images,
        'categories': [{'id': 5, 'name': 'dog'}, {'id': 9, 'name': 'cat'}],
        'annotations': [
            {'id': 1, 'image_id': 10, 'category_id': 9, 'bbox': [4, 5, 20, 10], 'score': 0.75}],
    }


@pytest.fixture
def write(tmp_path) -> Callable[[Any], Path]:
    """Give a function that writes a document beside its pictures."""
    def function(document: Any) -> Path:
        path = tmp_path / 'annotations.json'
        path.write_text(json.dumps(document))
        return path
    return function


SIZE = (180, 240)


@pytest.fixture
def paint_video(tmp_path) -> Callable[..., VideoRecord]:
    """Give a function that writes grey pictures, 180x240, with one red thing in each."""
    def function(boxes: Sequence[Sequence[int] | None], ellipse: bool = False,
                 name: str = 'painted') -> VideoRecord:
        folder = tmp_path / name
        folder.mkdir()
        return VideoRecord(name, tuple(
            _paint(folder / f'{index}.png', box, ellipse) for index, box in enumerate(boxes)))
    return function


def _paint(path: Path, box: Sequence[int] | None, ellipse: bool) -> FrameRecord:
    """Write a picture with a rectangle or ellipse that fills `box`, xyxy."""
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
    return FrameRecord(path, SIZE[1], SIZE[0], boxes, np.zeros(len(boxes), np.int64),
                       np.ones(len(boxes), np.float32), np.zeros((0, 4), np.float32))


@pytest.fixture(scope='session')
def measure() -> Callable[..., np.ndarray | None]:
    """Give a function that finds what is of one colour (0 red, 1 green, 2 blue) in a picture."""
    def function(image: np.ndarray, colour: int = 0) -> np.ndarray | None:
        """Return the box, xyxy (4,), within half a pixel or so; None where there is nothing."""
        others = [channel for channel in range(3) if channel != colour]
        strength = image[:, :, colour].astype(int) - image[:, :, others].max(axis=2)
        rows, columns = np.nonzero(strength > 127)
        if not len(rows):
            return None
        return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
    return function


def _xml(objects: Sequence[str], width: int, height: int) -> str:
    return (f'<annotation><folder>f</folder><filename>n</filename><size><width>{width}</width>'
            f'<height>{height}</height></size>{"".join(objects)}</annotation>')


def _object(wnid: str, box: Sequence[object], track: object = None) -> str:
    corners = ''.join(f'<{key}>{value}</{key}>' for key, value in
                      zip(('xmin', 'ymin', 'xmax', 'ymax'), box))
    tracked = '' if track is None else f'<trackid>{track}</trackid>'
    return (f'<object>{tracked}<name>{wnid}</name><bndbox>{corners}</bndbox>'
            '<occluded>0</occluded><generated>0</generated></object>')


class ImagenetTree:
    """Writes ImageNet's folders below `root`: `add` a frame or picture with its objects."""

    SIZE = (40, 30)

    def __init__(self, root: Path) -> None:
        self.root = root
        self.annotations, self.images = root / 'Annotations', root / 'Data'

    def xml(self, name: str) -> Path:
        return self.annotations / f'{name}.xml'

    def picture(self, name: str) -> Path:
        return self.images / f'{name}.JPEG'

    def add(self, name: str, *objects: tuple, size: tuple[int, int] = SIZE) -> Path:
        """Write picture and XML; an object is (wnid, (xmin, ymin, xmax, ymax)[, track])."""
        for path in (self.xml(name), self.picture(name)):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.xml(name).write_text(_xml([_object(*values) for values in objects], *size))
        cv2.imwrite(str(self.root / 'picture.jpg'), np.full((size[1], size[0], 3), 90, np.uint8))
        (self.root / 'picture.jpg').rename(self.picture(name))
        return self.xml(name)

    def snippet(self, name: str, frames: int) -> None:
        """Write a snippet; a dog (track 0) moves by a pixel a frame."""
        for number in range(frames):
            self.add(f'{name}/{number:06d}', ('n02084071', (number, 5, number + 9, 14), 0))


@pytest.fixture
def imagenet(tmp_path) -> ImagenetTree:
    """Give a writer of ImageNet's folders."""
    return ImagenetTree(tmp_path)


@pytest.fixture
def mot(tmp_path) -> Callable[..., Path]:
    """Give a function that writes a sequence of MOTChallenge, 40x30 pixels."""
    def function(name: str, lines: Sequence[str], frames: int = 3) -> Path:
        folder = tmp_path / 'MOT' / name
        (folder / 'img1').mkdir(parents=True)
        (folder / 'gt').mkdir()
        (folder / 'seqinfo.ini').write_text(
            f'[Sequence]\nname={name}\nimDir=img1\nframeRate=30\nseqLength={frames}\n'
            'imWidth=40\nimHeight=30\nimExt=.jpg\n')
        (folder / 'gt/gt.txt').write_text(''.join(f'{line}\n' for line in lines))
        for number in range(1, frames + 1):
            cv2.imwrite(str(folder / f'img1/{number:06d}.jpg'), np.full((30, 40, 3), 90, np.uint8))
        return folder
    return function
