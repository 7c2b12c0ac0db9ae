# SPDX-License-Identifier: Apache-2.0
"""Pictures to check and calibrate with: clips of the network's input size."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..annotations.picture_folder import PictureFolder
from ..annotations.records import decode_picture
from ..annotations.synthetic import CLASSES, write_synthetic_videos
from ..annotations.video_json import load_video_json
from ..detector.checkpoint import Card
from ..detector.preprocess import resize
from ..images.frame import Pixels
from ..images.video_source import open_source, SourceError

Clips = list[list[np.ndarray]]

_ENOUGH = 3
"""Frames of a video that hold a read and two forecasts."""

_CLIP = 5
"""Frames taken of a video where there are too many videos for all of them: one pattern of reads
and forecasts of `compare_backends`."""


def load_clips(path: Path, images: Path | None, count: int, card: Card,
               outside: bool = False) -> Clips:
    """
    Read consecutive frames of a video, a folder of images, or the videos of a COCO-video file.

    Parameters
    ----------
    path:
        A ``.json`` file, or what `open_source` takes.
    images:
        Folder that file names in a ``.json`` file are relative to; None: the file's own.
    count:
        Most frames; those of a ``.json`` file are spread over its videos, each from its start,
        or over some of them where each would give fewer than three.
    card:
        Of the checkpoint: classes and input size.
    outside:
        Whether file names may lead out of `images`.

    Returns
    -------
    list
        Clips of ``(H, W, 3)`` uint8 BGR pictures.

    Raises
    ------
    DataError, SourceError
        One line.

    """
    if path.suffix == '.json':
        return _annotated(path, PictureFolder(images or path.parent, outside), card.classes,
                          count, card)
    source = open_source(str(path))
    if source.live:
        source.close()
        raise SourceError(f'{path}: is a device; export wants frames that can be read again')
    try:
        clip: list[np.ndarray] = []
        while len(clip) < count and (picture := source.read()) is not None:
            clip.append(_prepare(picture, 'bgr', card))
        return [clip]
    finally:
        source.close()


def synthetic_clips(card: Card, count: int) -> Clips:
    """Make clips of moving shapes, always the same, for want of real ones."""
    with TemporaryDirectory() as folder:
        path = write_synthetic_videos(folder, videos=2, frames=-(-count // 2), size=(240, 320),
                                      objects=4, extension='png')
        return _annotated(path, path.parent, CLASSES, count, card)


def _annotated(path: Path, root: Path | PictureFolder, classes: tuple[str, ...], count: int,
               card: Card) -> Clips:
    videos = load_video_json(path, root, classes)
    share = count // len(videos)
    if share < _ENOUGH:
        share = min(count, _CLIP)
    # With more videos than can be had in clips, some of them, from the first to the last.
    apart = -(-len(videos) // max(1, count // share))
    return [[_prepare(decode_picture(frame), 'rgb', card) for frame in video.frames[:share]]
            for video in videos[::apart]]


def _prepare(picture: np.ndarray, order: str, card: Card) -> np.ndarray:
    # A source may use its memory again.
    return resize(Pixels(picture, order), card.input_size).copy()
