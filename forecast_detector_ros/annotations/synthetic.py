# SPDX-License-Identifier: Apache-2.0
"""
A small generated video set: textured shapes that move over noise.

For tests and tutorials: it needs no download, its boxes are exact, and a small network learns
it in minutes.
"""
from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path

import cv2
import numpy as np

from .findings import DataError
from ..files import write_atomically

CLASSES = ('disc', 'square', 'triangle')  #: The classes of the set, in the order of their labels

# Shapes are drawn with coordinates of 1/16 pixel.
_SHIFT = 4
_STRIPES = 6


class _Shape:
    """One object: its appearance, and its path, which bounces off the picture's borders."""

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        height, width = size
        self.label = int(rng.integers(len(CLASSES)))
        self.radius = rng.uniform(0.1, 0.22) * min(size)
        self.colours = rng.integers(0, 256, size=(2, 3))
        self.place = rng.uniform(self.radius, np.array([width, height]) - self.radius)
        self.velocity = rng.uniform(-0.025, 0.025, size=2) * min(size)
        self.limit = np.array([width, height]) - self.radius

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """Return where the shape is: uint8 (height, width), 0 or 255."""
        mask = np.zeros(size, dtype=np.uint8)
        # Pixel centres have whole coordinates in OpenCV.
        centre, radius = self.place - 0.5, self.radius
        if self.label == 0:
            cv2.circle(mask, _fixed(centre), int(radius * 2 ** _SHIFT), 255, -1, shift=_SHIFT)
            return mask
        if self.label == 1:
            corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        else:
            corners = np.array([[0, -1], [1, 1], [-1, 1]])
        points = np.array([_fixed(centre + radius * corner) for corner in corners])
        cv2.fillPoly(mask, [points], 255, shift=_SHIFT)
        return mask

    def move(self) -> None:
        """Move by one frame."""
        self.place = self.place + self.velocity
        low, high = self.place < self.radius, self.place > self.limit
        self.velocity = np.where(low | high, -self.velocity, self.velocity)
        self.place = np.clip(self.place, self.radius, self.limit)


def write_synthetic_videos(folder: str | Path, seed: int = 0, videos: int = 4, frames: int = 12,
                           size: tuple[int, int] = (120, 160), objects: int = 2,
                           extension: str = 'jpg') -> Path:
    """
    Write videos as `folder`/<video>/000001.jpg ... and their boxes as `folder`/annotations.json.

    :param videos, frames: number of videos, and of frames in each, at least 1
    :param seed: the same seed, and the same other arguments, give the same pictures
    :param size: (height, width), at least 32 each
    :param objects: most objects in a video, at least 1
    :param extension: 'jpg' or 'png'
    :returns: the path of the annotation file; `folder` is its image root
    :raises DataError: an argument is out of its range
    """
    if min(size) < 32 or min(videos, frames, objects) < 1 or extension not in ('jpg', 'png'):
        raise DataError('synthetic videos: size must be at least 32x32, videos, frames and '
                        'objects at least 1, extension jpg or png')
    folder = Path(folder)
    images: list[dict] = []
    annotations: list[dict] = []
    for number in range(videos):
        rng = np.random.default_rng((seed, number))
        name = f'synthetic-{number:03d}'
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index, (picture, boxes) in enumerate(_frames(frames, size, objects, rng)):
            file_name = f'{name}/{index + 1:06d}.{extension}'
            write_atomically(folder / file_name,
                             cv2.imencode(f'.{extension}', picture)[1].tobytes())
            image = len(images) + 1
            images.append({'id': image, 'file_name': file_name, 'width': size[1],
                           'height': size[0], 'video': name, 'frame_index': index})
            annotations.extend(
                {'id': len(annotations) + extra, 'image_id': image, 'category_id': label + 1,
                 'bbox': box, 'area': box[2] * box[3], 'iscrowd': 0}
                for extra, (label, box) in enumerate(boxes, start=1))
    document = {
        'images': images, 'annotations': annotations,
        'categories': [{'id': key, 'name': name} for key, name in enumerate(CLASSES, start=1)]}
    path = folder / 'annotations.json'
    write_atomically(path, json.dumps(document, indent=1).encode())
    return path


def _frames(count: int, size: tuple[int, int], objects: int, rng: np.random.Generator
            ) -> Iterator[tuple[np.ndarray, list[tuple[int, list[int]]]]]:
    """Yield (picture uint8 (H, W, 3) BGR, [(label, [x, y, w, h])]); hidden shapes have no box."""
    height, width = size
    coarse = rng.integers(40, 216, size=(height // 16, width // 16, 3), dtype=np.uint8)
    background = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    shapes = [_Shape(size, rng) for _ in range(int(rng.integers(1, objects + 1)))]
    diagonal = np.add.outer(np.arange(height), np.arange(width))
    for _ in range(count):
        noise = rng.integers(-8, 9, size=(height, width, 1))
        picture = np.clip(background + noise, 0, 255).astype(np.uint8)
        masks = [shape.mask(size) > 0 for shape in shapes]
        boxes = []
        for index, (shape, mask) in enumerate(zip(shapes, masks)):
            # The texture moves with its shape.
            stripe = (diagonal[mask] - round(shape.place.sum())) // _STRIPES % 2
            picture[mask] = shape.colours[stripe]
            visible = mask & ~np.any(masks[index + 1:], axis=0)
            if visible.sum() * 2 >= mask.sum():
                x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
                boxes.append((shape.label, [x, y, w, h]))
        yield picture, boxes
        for shape in shapes:
            shape.move()


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = np.round(point * 2 ** _SHIFT).astype(int)
    return int(x), int(y)
