# SPDX-License-Identifier: Apache-2.0
"""
Pack the pictures of a training into few bytes, to copy them to another machine.

``python -m dev.pack_pictures pack ROOT OUT LIST.json ... [--side 384]`` writes the pictures of the
COCO-video files into two HEVC videos, one for sequences and one for stills. It also writes the
files with boxes of the pictures' new size. ``python -m dev.pack_pictures unpack OUT ROOT`` makes
the same tree of pictures again. Packing needs ffmpeg with libx265; unpacking needs only OpenCV.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import gzip
import json
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import cv2
import numpy as np

INDEX = 'index.json.gz'
GREY = (104, 116, 124)
FILMS = ('video', 'still')


def main() -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(prog='pack_pictures', description=__doc__)
    verbs = parser.add_subparsers(dest='verb', required=True)
    pack_options = verbs.add_parser('pack')
    pack_options.add_argument('root', type=Path)
    pack_options.add_argument('output', type=Path)
    pack_options.add_argument('lists', nargs='+', help='COCO-video files, relative to ROOT')
    pack_options.add_argument('--side', type=int, default=384, help='side of the films, pixels')
    pack_options.add_argument('--crf', type=float, nargs=2, default=(27.0, 29.0),
                              help="libx265's quality of sequences and stills")
    unpack_options = verbs.add_parser('unpack')
    unpack_options.add_argument('output', type=Path, help='folder that `pack` wrote')
    unpack_options.add_argument('root', type=Path, help='folder for pictures and lists')
    options = parser.parse_args()
    if options.verb == 'pack':
        pack(options.root, options.output, options.lists, options.side, options.crf)
    else:
        unpack(options.output, options.root)
    return 0


def pack(root: Path, output: Path, lists: Sequence[str], side: int, crf: Sequence[float]) -> None:
    """Write films, lists and index."""
    output.mkdir(parents=True, exist_ok=True)
    documents = {name: json.loads((root / name).read_bytes()) for name in lists}
    films: dict[str, dict[str, tuple[int, int]]] = {film: {} for film in FILMS}
    for document in documents.values():
        for image in document['images']:
            scale = min(1.0, side / max(image['width'], image['height']))
            size = (max(1, round(image['width'] * scale)), max(1, round(image['height'] * scale)))
            films['video' if 'video' in image else 'still'][image['file_name']] = size
    for film, rate in zip(FILMS, crf):
        _write_film(root, output / f'{film}.mp4', films[film], side, rate, film == 'still')
    for document in documents.values():
        _resize(document, films)
    index = {'films': films, 'lists': documents}
    with gzip.open(output / INDEX, 'wt') as stream:
        json.dump(index, stream)


def _resize(document: dict[str, Any], films: dict[str, dict[str, tuple[int, int]]]) -> None:
    factors = {}
    for image in document['images']:
        width, height = next(sizes[image['file_name']] for sizes in films.values()
                             if image['file_name'] in sizes)
        factors[image['id']] = (width / image['width'], height / image['height']) * 2
        image['width'], image['height'] = width, height
    for box in document['annotations']:
        box['bbox'] = [round(value * factor, 1)
                       for value, factor in zip(box['bbox'], factors[box['image_id']])]


def _write_film(root: Path, path: Path, sizes: dict[str, tuple[int, int]], side: int,
                crf: float, stills: bool) -> None:
    # Successive stills are unrelated, so each is coded as a key frame.
    extra = ['-x265-params', 'log-level=error' + (':keyint=1' if stills else ':keyint=250')]
    command = ['ffmpeg', '-loglevel', 'error', '-y', '-f', 'rawvideo', '-pix_fmt', 'bgr24',
               '-s', f'{side}x{side}', '-r', '25', '-i', '-', '-c:v', 'libx265', '-preset',
               'veryfast', '-crf', f'{crf:g}', '-pix_fmt', 'yuv420p', *extra, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for name, size in sizes.items():
            image = cv2.imread(str(root / name), cv2.IMREAD_COLOR)
            if image is None:
                raise SystemExit(f'{root / name}: not a picture that OpenCV can decode')
            if (image.shape[1], image.shape[0]) != size:
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            square = np.empty((side, side, 3), np.uint8)
            square[:] = GREY
            square[:size[1], :size[0]] = image
            process.stdin.write(square.tobytes())
        process.stdin.close()
        if process.wait():
            raise SystemExit(f'{path}: ffmpeg failed')


def unpack(output: Path, root: Path) -> None:
    """Write the pictures and lists."""
    with gzip.open(output / INDEX, 'rt') as stream:
        index = json.load(stream)
    for name, document in index['lists'].items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(document))
    for film, sizes in index['films'].items():
        for folder in {(root / name).parent for name in sizes}:
            folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            frames = _frames(output / f'{film}.mp4', len(sizes))
            jobs = [pool.submit(_write_picture, root / name, frame[:height, :width])
                    for (name, (width, height)), frame in zip(sizes.items(), frames)]
            for job in jobs:
                job.result()


def _frames(path: Path, count: int) -> Iterator[np.ndarray]:
    film = cv2.VideoCapture(str(path))
    for number in range(count):
        there, frame = film.read()
        if not there:
            raise SystemExit(f'{path}: ends after {number} of {count} pictures')
        yield frame


def _write_picture(path: Path, image: np.ndarray) -> None:
    # The names in the lists may have any suffix; readers use the bytes and not the name.
    done, data = cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, 97))
    assert done
    path.write_bytes(data.tobytes())


if __name__ == '__main__':
    sys.exit(main())
