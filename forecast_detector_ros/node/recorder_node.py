# SPDX-License-Identifier: Apache-2.0
"""Run the recorder of cameras, detections and decisions."""
from __future__ import annotations

import sys

from .stop_signal import end_at_once


def main(args: list[str] | None = None) -> int:
    """Record until SIGINT or the end of the cameras; return 2 if the output cannot be written."""
    end_at_once()
    from .program import run_program
    from .recorder import MISTAKES, run

    return run_program('recorder', run, args, mistakes=MISTAKES)


if __name__ == '__main__':
    sys.exit(main())
