# SPDX-License-Identifier: Apache-2.0
"""A folder of results that is replaced as a whole or not at all."""
from __future__ import annotations

import os
from pathlib import Path
import shutil


class ResultFolder:
    """
    Results in the making at `<path>.part`, moved to `<path>` when they are whole.

    What an interrupted or failed run leaves stays at `<path>.part`, where its logs can be read,
    until the next run. A folder is only ever deleted if it carries the mark of this class.
    """

    MARK = '.forecast_detector_result'

    def __init__(self, path: str | Path) -> None:
        """Make the folder of the results to come; raises FileExistsError, OSError."""
        self.path = Path(path).absolute()
        self.partial = self.path.with_name(f'{self.path.name}.part')
        for folder in (self.path, self.partial):
            if folder.exists() and not self._is_ours(folder):
                raise FileExistsError(f'{folder}: exists and is no result of an earlier run; '
                                      'name another --output')
        if self.partial.exists():
            shutil.rmtree(self.partial)
        self.partial.mkdir(parents=True)
        (self.partial / self.MARK).touch()

    def accept(self) -> None:
        """Put the results in the place of those of an earlier run."""
        old = self.path.with_name(f'{self.path.name}.old')
        if old.exists() and self._is_ours(old):
            shutil.rmtree(old)
        if self.path.exists():
            os.rename(self.path, old)
        os.rename(self.partial, self.path)
        if old.exists() and self._is_ours(old):
            shutil.rmtree(old)

    def _is_ours(self, folder: Path) -> bool:
        return folder.is_dir() and (
            (folder / self.MARK).is_file() or not any(folder.iterdir()))
