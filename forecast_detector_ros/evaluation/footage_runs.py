# SPDX-License-Identifier: Apache-2.0
"""Run a detector over many sequences, in whatever process each job is done."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .runner import FootageRun, run_footage
from .sequences import Footage
from ..detector.detector import Detector
from ..detector.settings import DetectorSettings
from ..jobs.job import Progress, StopFlag
from ..jobs.locations import kept, Location


@dataclass(frozen=True)
class FootageWork:
    """What every process needs to run a detector over sequences."""

    checkpoint: Location
    device: str
    precision: str
    threads: int
    backend: str
    settings: DetectorSettings
    collect: bool
    """See `run_footage`."""

    def prepare(self) -> Callable[[Footage, Progress, StopFlag], FootageRun]:
        """Load the detector, warm it up, and return the function that runs one sequence."""
        detector = Detector.load(kept(self.checkpoint), self.device, self.precision,
                                 self.threads, backend=self.backend)
        detector.warm_up()
        return self.with_detector(detector)

    def with_detector(self, detector: Detector
                      ) -> Callable[[Footage, Progress, StopFlag], FootageRun]:
        """Return that function for a detector that is loaded and warm."""
        return partial(_run, self, detector)


def _run(work: FootageWork, detector: Detector, footage: Footage, progress: Progress,
         interrupt: StopFlag) -> FootageRun:
    return run_footage(detector, footage, work.settings, work.collect, progress, interrupt)
