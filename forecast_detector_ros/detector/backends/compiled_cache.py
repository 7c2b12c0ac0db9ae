# SPDX-License-Identifier: Apache-2.0
"""What a library compiled, kept between starts, with digests that tell what a disk has lost."""

from contextlib import suppress
import hashlib
from pathlib import Path

from .step_layout import StepGraphs, STEPS
from ...files import trim_folder, write_atomically

MOST_BYTES = 2**28
"""Of all that is kept; what OpenVINO compiles of one network in one precision has 10 MB."""

_SUFFIX = '.sha256'


class CompiledCache:
    """
    A folder for one network's compiled graphs, which the library itself reads and writes.

    OpenVINO notices a file that is too short, but not one whose weights have changed.

    Parameters
    ----------
    root:
        Of all networks; it exists.
    model:
        The network's graphs.

    Raises
    ------
    OSError
        If nothing can be written.

    """

    def __init__(self, root: Path, model: StepGraphs) -> None:
        digest = hashlib.sha256()
        for step in STEPS:
            digest.update(model.graphs[step])
        self._root = root
        self.folder = root / digest.hexdigest()[:32]
        self.folder.mkdir(exist_ok=True)
        for path in self._files():
            seal = _seal(path)
            with suppress(OSError):
                if not seal.is_file() or seal.read_text() != _digest(path):
                    path.unlink()

    def keep(self) -> None:
        """Note the digests of files that are new, and remove the oldest beyond `MOST_BYTES`."""
        with suppress(OSError):
            for path in self._files():
                if not _seal(path).is_file():
                    write_atomically(_seal(path), _digest(path).encode())
            trim_folder(self._root, MOST_BYTES)

    def _files(self) -> list[Path]:
        return [path for path in sorted(self.folder.iterdir()) if path.suffix != _SUFFIX]


def _seal(path: Path) -> Path:
    return path.with_name(path.name + _SUFFIX)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
