# SPDX-License-Identifier: Apache-2.0
"""What a recorder that was killed has left: keep it, under a name of its own."""
from __future__ import annotations

from contextlib import suppress
from itertools import count
import os
from pathlib import Path

from ..images.mcap_salvage import mend


def set_aside(partial: Path, final: Path) -> Path | None:
    """
    Rename what is left of a recording that was to become `final`; None when nothing is.

    ``annotated.part.mkv`` of ``annotated.mkv`` becomes ``annotated.unfinished-1.mkv``, or -2 and
    so on. MCAP files in a folder are ended properly, so that every reader takes them. Raises
    OSError.
    """
    if not partial.exists():
        return None
    for file in partial.glob('*.mcap') if partial.is_dir() else ():
        with suppress(OSError):  # Renamed as it is.
            mend(file)
    names = (f'{final.stem}.unfinished-{number}{final.suffix}' for number in count(1))
    target = next(path for path in map(final.with_name, names) if not path.exists())
    os.rename(partial, target)
    return target
