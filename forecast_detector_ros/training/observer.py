# SPDX-License-Identifier: Apache-2.0
"""Who looks on while a network is trained, and what a run writes and tells."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ..clips.dataset import ClipBatch
from ..model.network import ForecastDetector

#: Measures a network in evaluation mode: numbers by name, the first of them is the score, larger
#: is better.
Validate = Callable[[ForecastDetector], dict[str, float]]


class Observer(Protocol):
    """Who wants to see how a run goes, besides the log."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Hear that `done` of the stage's `total` iterations are done."""

    def scalars(self, stage: str, iteration: int, values: dict[str, float]) -> None:
        """Take numbers by name: means of an interval, or a validation's."""

    def examples(self, stage: str, iteration: int, batch: ClipBatch,
                 network: ForecastDetector) -> None:
        """See a batch and the network, in evaluation mode, at the end of an epoch."""


@dataclass(frozen=True)
class RunOptions:
    """What a run writes and tells, and when; nothing here changes the weights."""

    snapshot: Path  #: The resumable state
    snapshot_every: float = 300.0  #: Seconds between snapshots
    log_every: int = 20  #: Iterations between log lines
    deadline: float = float('inf')  #: Value of `time.monotonic` at which to stop with a snapshot
    observers: tuple[Observer, ...] = ()  #: Told by the first process alone
    #: Given the weights that did better in validation than all before them in the stage.
    on_best: Callable[[dict[str, Tensor]], None] | None = None
