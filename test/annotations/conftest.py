# SPDX-License-Identifier: Apache-2.0
"""Fixtures that write annotation files of every format."""

from collections.abc import Callable, Sequence
import json
from pathlib import Path
from typing import Any

import cv2
from forecast_detector_ros.annotations.records import VideoRecord
from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.annotations.video_json import load_video_json
import numpy as np
import pytest


@pytest.fixture(scope='session')
def synthetic(tmp_path_factory) -> list[VideoRecord]:
    """Return four synthetic videos of 12 frames with lossless pictures, 120x160."""
    path = write_synthetic_videos(tmp_path_factory.mktemp('synthetic'), seed=3, extension='png')
    return load_video_json(path, path.parent, CLASSES)


@pytest.fixture
def document(tmp_path) -> dict[str, Any]:
    """Return a valid annotation document with two frames of a video and a still, 40x30 pixels."""
    names = ['v/1.png', 'v/2.png', 'still.png']
    (tmp_path / 'v').mkdir()
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.full((30, 40, 3), 90, np.uint8))
    images: list[dict[str, Any]] = [
        {'id': 10 + number, 'file_name': name, 'width': 40, 'height': 30}
        for number, name in enumerate(names)]
    # The entries are not in the order of the frames, which `frame_index` gives.
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
    """Return a function that writes a document beside its pictures."""
    def function(document: Any) -> Path:
        path = tmp_path / 'annotations.json'
        path.write_text(json.dumps(document))
        return path
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
    """A writer of ImageNet's folders below `root`; `add` writes a picture with its objects."""

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
        """Write a snippet in which a dog (track 0) moves by a pixel per frame."""
        for number in range(frames):
            self.add(f'{name}/{number:06d}', ('n02084071', (number, 5, number + 9, 14), 0))


@pytest.fixture
def imagenet(tmp_path) -> ImagenetTree:
    """Return a writer of ImageNet's folders."""
    return ImagenetTree(tmp_path)


@pytest.fixture
def mot(tmp_path) -> Callable[..., Path]:
    """Return a function that writes a sequence of MOTChallenge, 40x30 pixels."""
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
