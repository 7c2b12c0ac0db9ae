# SPDX-License-Identifier: Apache-2.0
"""Write a video, or the JPEG files of a folder, into a bag: dev.clip_bag VIDEO BAG."""
from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
import sys

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores


def jpegs(source: Path) -> Iterator[np.ndarray]:
    """Yield each frame as JPEG; JPEG files are not changed."""
    if source.is_dir():
        for file in sorted(source.glob('*.jpg')):
            yield np.fromfile(file, np.uint8)
        return
    capture = cv2.VideoCapture(str(source))
    while True:
        there, picture = capture.read()
        if not there:
            return
        yield cv2.imencode('.jpg', picture)[1].reshape(-1)


def main() -> int:
    """Write the bag; on failure print one line on stderr and return 1."""
    parser = argparse.ArgumentParser(prog='dev.clip_bag', description=__doc__)
    parser.add_argument('video', type=Path, help='video file, or folder with *.jpg')
    parser.add_argument('bag', type=Path, help='folder; must not exist')
    parser.add_argument('--topic', default='/camera/image_raw')
    parser.add_argument('--start', type=int, default=1_000_000_000, metavar='NS',
                        help='stamp of the first frame, nanoseconds (default: %(default)s)')
    parser.add_argument('--rate', type=float, metavar='HZ',
                        help='frames per second (default: those of the video)')
    options = parser.parse_args()
    if options.bag.exists():
        print(f'{options.bag}: exists already; name another bag', file=sys.stderr)
        return 1
    rate = options.rate or cv2.VideoCapture(str(options.video)).get(cv2.CAP_PROP_FPS)
    pictures = jpegs(options.video)
    first = next(pictures, None)
    if first is None or not rate:
        print(f'{options.video}: no pictures, or no --rate for a folder of them', file=sys.stderr)
        return 1
    store = get_typestore(Stores.LATEST)
    types = store.types
    topic = f'{options.topic}/compressed'
    kind = 'sensor_msgs/msg/CompressedImage'
    with Writer(options.bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, kind, typestore=store)
        for number, data in enumerate(chain((first,), pictures)):
            time_ns = options.start + round(number * 1e9 / rate)
            seconds, nanoseconds = divmod(time_ns, 10**9)
            header = types['std_msgs/msg/Header'](
                stamp=types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds),
                frame_id='camera')
            message = types[kind](header=header, format='jpeg', data=data)
            writer.write(connection, time_ns, store.serialize_cdr(message, kind))
    print(f'{options.bag}: {number + 1} images on {topic}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
