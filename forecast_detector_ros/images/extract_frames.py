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

MANIFEST = 'source.json'  #: File beside the frames that describes their source
JPEG_QUALITY = 95  #: JPEG quality of the frames; the default of OpenCV


@dataclass(frozen=True)
class Extraction:
    """A folder of frames."""

    folder: Path
    frames: int
    losses: tuple[str, ...] = ()  #: One line for each loss of the source


def frames_folder(source: Path, frames: Path) -> Path:
    """Return the folder of the frames of `source`: below `frames`, its name without suffix."""
    path = source.resolve()
    return frames / (path.name if os.path.isdir(path) else path.stem)


def extract_frames(source: Path, frames: Path, every: int = 1, topic: str | None = None,
                   resume: bool = False,
                   progress: Callable[[int, int], None] = lambda done, total: None,
                   name: str | None = None) -> Extraction:
    """
    Write every n-th frame of a source as JPEG.

    The folder gets its name when it is complete. The names of the files are frame numbers.
    `MANIFEST` lists them; for a bag it has the stamps (nanoseconds) and frame ids.

    :param source: a video file, or a bag as `ImageBag` reads it
    :param frames: folder in which the folder of the source is created
    :param every: n, at least 1
    :param topic: image topic of the bag; None for its only one
    :param resume: use an existing folder that was made from the same source with the same options
    :param progress: called after each frame with the numbers of written and of expected frames
        (0 if unknown)
    :param name: name of the created folder; None: the source's name
    :raises SourceError: if the source cannot be read or has no frames, or if the folder exists and
        cannot be resumed
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
    """Return the bytes of a file or bag, which distinguish sources of one name."""
    try:
        files = source.iterdir() if source.is_dir() else [source]
        return sum(file.stat().st_size for file in files if file.is_file())
    except OSError as error:
        raise SourceError(f'{cut(source)}: cannot be read: {error.strerror}') from None


def _existing(folder: Path, made_from: dict[str, Any], resume: bool) -> Extraction:
    """Return frames that were written before; raises SourceError if they differ."""
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
    """Open a bag, or any other file as a video; raises SourceError."""
    if is_bag(source):
        return ImageBag(source)
    if topic is not None:
        raise SourceError(f'{source}: is not a bag and has no topics')
    if not source.is_file():
        raise SourceError(f'{source}: no such file')
    return VideoImages(source)


def _jpeg(image: BagImage) -> bytes:
    pixels = image.frame().load()
    return encode_jpeg(as_bgr(pixels.array, pixels.order), JPEG_QUALITY).tobytes()
