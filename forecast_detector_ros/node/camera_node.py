# SPDX-License-Identifier: Apache-2.0
"""Run the camera: a video file, a folder of images or a V4L2 device on a topic."""
from __future__ import annotations

import sys

from .stop_signal import end_at_once


def main(args: list[str] | None = None) -> int:
    """Run the camera; return 0 at the end or on SIGINT, 2 if the source is unreadable."""
    end_at_once()
    from .camera import run
    from .program import run_program
    from ..images.video_source import SourceError

    return run_program('camera', run, args, mistakes=(SourceError,))


if __name__ == '__main__':
    sys.exit(main())
