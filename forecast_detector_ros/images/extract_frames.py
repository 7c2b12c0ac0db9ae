# SPDX-License-Identifier: Apache-2.0
"""Turn a video file or a camera topic of a bag into a folder of JPEG files, for training."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
import json
import os
from pathlib import Path
import shutil
from typing import Any


from .bag_images import BagImage, ImageBag, is_bag
from .frame import as_bgr, encode_jpeg, FrameError, SourceError
from .video_images import VideoImages
from ..errors import cut
from ..plain_values import read_plain_json

MANIFEST = 'source.json'  #: Beside the frames: where they come from
JPEG_QUALITY = 95  #: Of the frames that are written; OpenCV's own default


@dataclass(frozen=True)
class Extraction:
    """A folder of frames."""

    folder: Path
    frames: int
    losses: tuple[str, ...] = ()  #: One line for each thing that could not be read


def frames_folder(source: Path, frames: Path) -> Path:
    """Say where `extract_frames` puts the frames of `source`: its name without ending."""
    path = source.resolve()
    return frames / (path.name if os.path.isdir(path) else path.stem)


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
    with closing(_open(source, topic)) as images:
        chosen = images.choose(topic)
        expected = -(-images.topics[chosen].count // every)
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for number, image in enumerate(images.images([chosen])):
                if number % every:
                    continue
                try:
                    data = _jpeg(image)
                except FrameError as error:
                    losses.append(f'{source}: image {number} of {chosen}: {error}')
                    continue
                file = f'{number:06d}.jpg'
                (partial / file).write_bytes(data)
                stamps = {} if isinstance(images, VideoImages) else {
                    'stamp_ns': image.stamp_ns, 'header_stamp_ns': image.header_stamp_ns,
                    'frame_id': image.frame_id}
                written.append({'file': file, **stamps})
                progress(len(written), expected)
            losses += images.losses
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
    try:
        files = source.iterdir() if source.is_dir() else [source]
        return sum(file.stat().st_size for file in files if file.is_file())
    except OSError as error:
        raise SourceError(f'{cut(source)}: cannot be read: {error.strerror}') from None


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


def _open(source: Path, topic: str | None) -> ImageBag | VideoImages:
    """Open a bag, or anything else as a video, whatever its name; raises SourceError."""
    if is_bag(source):
        return ImageBag(source)
    if topic is not None:
        raise SourceError(f'{source}: has no topics, it is no bag')
    if not source.is_file():
        raise SourceError(f'{source}: no such file')
    return VideoImages(source)


def _jpeg(image: BagImage) -> bytes:
    """Decode an image and write it as JPEG; raises FrameError."""
    pixels = image.frame().load()
    return encode_jpeg(as_bgr(pixels.array, pixels.order), JPEG_QUALITY).tobytes()
