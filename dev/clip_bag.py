# SPDX-License-Identifier: Apache-2.0
"""Write a video into a bag of images, to have something to replay: dev.clip_bag VIDEO BAG."""
from __future__ import annotations

import argparse
from pathlib import Path
import sys

import cv2
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores


def main() -> int:
    """Write the bag; 1 and one line on stderr when the video cannot be read."""
    parser = argparse.ArgumentParser(prog='dev.clip_bag', description=__doc__)
    parser.add_argument('video', type=Path)
    parser.add_argument('bag', type=Path, help='folder; must not exist')
    parser.add_argument('--topic', default='/camera/image_raw')
    parser.add_argument('--start', type=int, default=1_000_000_000, metavar='NS',
                        help='stamp of the first frame, nanoseconds (default: %(default)s)')
    options = parser.parse_args()
    capture = cv2.VideoCapture(str(options.video))
    rate = capture.get(cv2.CAP_PROP_FPS)
    if not capture.isOpened() or not rate:
        print(f'{options.video}: cannot be read as a video', file=sys.stderr)
        return 1
    store = get_typestore(Stores.LATEST)
    types = store.types
    topic = f'{options.topic}/compressed'
    kind = 'sensor_msgs/msg/CompressedImage'
    with Writer(options.bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, kind, typestore=store)
        number = 0
        while True:
            there, picture = capture.read()
            if not there:
                break
            time_ns = options.start + round(number * 1e9 / rate)
            seconds, nanoseconds = divmod(time_ns, 10**9)
            header = types['std_msgs/msg/Header'](
                stamp=types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds),
                frame_id='camera')
            message = types[kind](header=header, format='jpeg',
                                  data=cv2.imencode('.jpg', picture)[1].reshape(-1))
            writer.write(connection, time_ns, store.serialize_cdr(message, kind))
            number += 1
    print(f'{options.bag}: {number} images on {topic}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
