# SPDX-License-Identifier: Apache-2.0
"""All pictures of a training, decoded once into one tensor that a GPU can hold."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
import os

import cv2
import numpy as np
import torch
from torch import Tensor

from ..annotations.frames import FrameReader
from ..annotations.records import FrameRecord, UNKNOWN_TRACK, VideoRecord

#: ImageNet's mean colour, RGB: what lies beside a picture is nothing to the network.
GREY = (124, 116, 104)


@dataclass(frozen=True)
class PictureBank:
    """N pictures on squares of S pixels, and what they show; boxes are padded to K a picture."""

    #: ``(N, 3, S, S)`` uint8 RGB, each picture in the upper left corner, `GREY` beside it.
    pixels: Tensor
    sizes: Tensor  #: ``(N, 2)`` float32: height and width
    boxes: Tensor  #: ``(N, K, 4)`` float32, xyxy in pixels of the square
    labels: Tensor  #: ``(N, K)`` int64; -1 where there is no box
    scores: Tensor  #: ``(N, K)`` float32, 0 to 1
    tracks: Tensor  #: ``(N, K)`` int64; `UNKNOWN_TRACK` where the object is not followed
    ignore: Tensor  #: ``(N, R, 4)`` float32, xyxy
    #: ``(V,)``: index of each video's first picture; a still is a video of one frame.
    first: np.ndarray
    lengths: np.ndarray  #: ``(V,)``: number of its frames

    def to(self, device: torch.device | str) -> 'PictureBank':
        """Move all tensors to a device."""
        return replace(self, **{
            field.name: getattr(self, field.name).to(device) for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)})


def load_bank(records: Sequence[VideoRecord], reader: FrameReader, side: int = 384
              ) -> PictureBank:
    """
    Decode every frame of videos and stills.

    :param reader: decodes, or has decoded already
    :param side: S: pictures whose long side is larger are shrunk to it, pixels
    :raises DataError: if a picture cannot be read
    """
    frames = [frame for record in records for frame in record.frames]
    pixels = torch.empty((len(frames), 3, side, side), dtype=torch.uint8)
    sizes = np.zeros((len(frames), 2), np.float32)
    scales = np.zeros((len(frames), 2), np.float32)

    def place(index: int) -> None:
        frame = frames[index]
        image = reader.read(frame)
        height, width = image.shape[:2]
        shrink = min(1.0, side / max(height, width))
        if shrink < 1.0:
            size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        square = np.empty((side, side, 3), np.uint8)
        square[:] = GREY
        square[:image.shape[0], :image.shape[1]] = image
        pixels[index] = torch.from_numpy(square).permute(2, 0, 1)
        sizes[index] = image.shape[:2]
        scales[index] = image.shape[1] / width, image.shape[0] / height

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(place, range(len(frames))))
    boxes, labels, scores, tracks = _padded_boxes(frames)
    # Every box of a still is an object of its own, which the camera's motion moves.
    still = [len(record.frames) == 1 for record in records for _ in record.frames]
    tracks[still] = torch.where(labels[still] >= 0, torch.arange(labels.shape[1]), UNKNOWN_TRACK)
    ignore = _pad([frame.ignore for frame in frames], 0.0, 4)
    scale = torch.from_numpy(np.tile(scales, 2))[:, None]
    lengths = np.array([len(record.frames) for record in records])
    return PictureBank(pixels, torch.from_numpy(sizes), boxes * scale, labels, scores, tracks,
                       ignore * scale, np.cumsum(lengths) - lengths, lengths)


def _padded_boxes(frames: Sequence[FrameRecord]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (_pad([frame.boxes for frame in frames], 0.0, 4),
            _pad([frame.labels for frame in frames], -1),
            _pad([frame.scores for frame in frames], 0.0),
            _pad([frame.tracks for frame in frames], UNKNOWN_TRACK))


def _pad(rows: Sequence[np.ndarray], fill: float, columns: int | None = None) -> Tensor:
    most = max((len(row) for row in rows), default=0)
    shape = (len(rows), most) if columns is None else (len(rows), most, columns)
    kind = rows[0].dtype if rows else np.float32
    result = np.full(shape, fill, kind)
    for place, row in zip(result, rows):
        place[:len(row)] = row
    return torch.from_numpy(result)
