# SPDX-License-Identifier: Apache-2.0
"""Turn a video file or a camera topic of a bag into a folder of JPEG files, for training."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
import json
from pathlib import Path
import shutil
from typing import Any

import cv2
import numpy as np

from .bag_images import ImageBag, is_bag
from .frame import as_bgr, FrameError, SourceError
from .video_source import VideoFile
from ..plain_values import read_plain_json

MANIFEST = 'source.json'  #: Beside the frames: where they come from
JPEG_QUALITY = 95  #: Of the frames that are written; OpenCV's own default


@dataclass(frozen=True)
class Extraction:
    """A folder of frames."""

    folder: Path
    frames: int
    losses: tuple[str, ...] = ()  #: One line for each thing that could not be read


@dataclass(frozen=True)
class _Picture:
    number: int  #: Its place among all pictures of the source, from 0
    pixels: np.ndarray  #: ``(H, W, 3)`` uint8, BGR
    about: dict[str, Any]  #: What the manifest says of it beyond its file name


def frames_folder(source: Path, frames: Path) -> Path:
    """Say where `extract_frames` puts the frames of `source`: its name without ending."""
    path = source.resolve()
    return frames / (path.name if path.is_dir() else path.stem)


def extract_frames(source: Path, frames: Path, every: int = 1, topic: str | None = None,
                   resume: bool = False,
                   progress: Callable[[int, int], None] = lambda done, total: None,
                   name: str | None = None) -> Extraction:
    """
    Write every n-th frame of a source as JPEG.

    The folder appears when it is whole.  Files are called after the frame's number in the
    source; `MANIFEST` lists them, for a bag with the stamps (nanoseconds) and frame ids.

    :param source: a video file, or a bag as `ImageBag` reads it
    :param frames: folder in which a folder with the source's name is made
    :param every: n, at least 1
    :param topic: the bag's image topic; None if it has but one
    :param resume: take the folder as it is if it was made from the same source in the same way
    :param progress: called after each frame with the number of frames written, and of those
        expected (0 if unknown)
    :param name: of the folder that is made; None: the source's
    :raises SourceError: if the source cannot be read or has no frames, or the folder exists and is
        not what `resume` expects
    """
    folder = frames_folder(source, frames) if name is None else frames / name
    made_from = {'source': source.resolve().name, 'bytes': _bytes(source), 'topic': topic,
                 'every': every}
    if folder.exists():
        return _existing(folder, made_from, resume)
    losses: list[str] = []
    partial = frames / f'.{folder.name}.part'
    written: list[dict[str, Any]] = []
    with _Pictures(source, topic, every, losses) as pictures:
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for picture in pictures:
                name = f'{picture.number:06d}.jpg'
                (partial / name).write_bytes(_jpeg(picture.pixels))
                written.append({'file': name, **picture.about})
                progress(len(written), pictures.expected)
            if not written:
                raise SourceError(f'{source}: no frame could be read'
                                  f'{": " + losses[0] if losses else ""}')
            (partial / MANIFEST).write_text(
                json.dumps({**made_from, 'losses': losses, 'frames': written}) + '\n')
            partial.replace(folder)
        except OSError as error:
            raise SourceError(f'{error.filename or partial}: cannot be written: '
                              f'{error.strerror}') from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Extraction(folder, len(written), tuple(losses))


def _bytes(source: Path) -> int:
    """Return the size of a file, or of all files of a bag: another clip may have its name."""
    files = source.iterdir() if source.is_dir() else [source]
    return sum(file.stat().st_size for file in files if file.is_file())


def _existing(folder: Path, made_from: dict[str, Any], resume: bool) -> Extraction:
    """Return frames that were written before; raises SourceError unless they are the same."""
    if not resume:
        raise SourceError(f'{folder}: exists already; --resume takes the frames in it, or name '
                          'another folder')
    try:
        manifest = read_plain_json(folder / MANIFEST)
        found = {key: manifest[key] for key in made_from}
        frames = len(manifest['frames'])
    except (OSError, ValueError, KeyError, TypeError):
        raise SourceError(f'{folder}: is not a folder of frames written before (no readable '
                          f'{MANIFEST}); name another folder') from None
    if found != made_from:
        key = next(key for key in made_from if found[key] != made_from[key])
        raise SourceError(f'{folder}: was written with {key} {found[key]!r}, not '
                          f'{made_from[key]!r}; name another folder')
    return Extraction(folder, frames)


class _Pictures:
    """Every n-th picture of a source; `expected` says how many, 0 if unknown."""

    def __init__(self, source: Path, topic: str | None, every: int, losses: list[str]) -> None:
        self._every, self._losses = every, losses
        self._bag: ImageBag | None = None
        self._video: VideoFile | None = None
        if is_bag(source):
            self._bag = ImageBag(source)
            try:
                self._topic = self._bag.choose(topic)
            except SourceError:
                self._bag.close()
                raise
            total = self._bag.topics[self._topic].count
        else:
            if topic is not None:
                raise SourceError(f'{source}: has no topics, it is no bag')
            if not source.is_file():
                raise SourceError(f'{source}: no such file')
            try:
                self._video = VideoFile(source)
            except SourceError as error:
                raise SourceError(str(error)) from None
            total = self._video.announced or 0
        self.expected = -(-total // every)

    def __enter__(self) -> '_Pictures':
        return self

    def __exit__(self, *_: object) -> None:
        for source in (self._bag, self._video):
            if source is not None:
                source.close()

    def __iter__(self) -> Iterator[_Picture]:
        if self._bag is not None:
            return self._of_bag(self._bag)
        assert self._video is not None
        return self._of_video(self._video)

    def _of_bag(self, bag: ImageBag) -> Iterator[_Picture]:
        for number, item in enumerate(bag.images([self._topic])):
            if number % self._every:
                continue
            try:
                pixels = item.frame().load()
            except FrameError as error:
                self._losses.append(f'{bag.path}: image {number} of {item.topic}: {error}')
                continue
            yield _Picture(number, as_bgr(pixels.array, pixels.order), {
                'stamp_ns': item.stamp_ns, 'header_stamp_ns': item.header_stamp_ns,
                'frame_id': item.frame_id})
        self._losses.extend(bag.losses)

    def _of_video(self, video: VideoFile) -> Iterator[_Picture]:
        number = 0
        while (pixels := video.read()) is not None:
            if number % self._every == 0:
                yield _Picture(number, pixels, {})
            number += 1
        loss = video.loss()
        if loss is not None:
            self._losses.append(loss)


def _jpeg(pixels: np.ndarray) -> bytes:
    return cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
