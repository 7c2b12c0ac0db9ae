# SPDX-License-Identifier: Apache-2.0
"""
Make README's animated picture from a demo's video.

``python -m dev.animate demo_output/annotated.mkv docs/images/demo.webp``, after
``forecast-detector demo --rate 6``: half the frames, 480 pixels wide.
"""

import argparse
import sys

import cv2
from PIL import Image

WIDTH, EVERY, MILLISECONDS, QUALITY = 480, 2, 80, 45


def main() -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(prog='dev.animate', description=__doc__)
    parser.add_argument('video')
    parser.add_argument('picture', help='file to write, .webp')
    options = parser.parse_args()
    capture = cv2.VideoCapture(options.video)
    images = []
    while True:
        more, frame = capture.read()
        if not more:
            break
        size = (WIDTH, round(WIDTH * frame.shape[0] / frame.shape[1]))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        images.append(Image.fromarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB)))
    if not images:
        print(f'{options.video}: no video that can be read', file=sys.stderr)
        return 2
    first, *rest = images[::EVERY]
    first.save(options.picture, save_all=True, append_images=rest, duration=MILLISECONDS, loop=0,
               quality=QUALITY, method=4)
    return 0


if __name__ == '__main__':
    sys.exit(main())
