# SPDX-License-Identifier: Apache-2.0
"""Detections of one frame, in pixels of the incoming image."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Detections:
    """Boxes with labels and scores, best score first."""

    boxes: np.ndarray
    """``(N, 4)`` float32, xyxy, pixels of the incoming image, inside it."""

    labels: np.ndarray
    """``(N,)`` int64, index into the detector's labels."""

    scores: np.ndarray
    """``(N,)`` float32, in (0, 1]."""

    ids: np.ndarray | None = None
    """``(N,)`` int64: the number of the object in its camera's stream; None outside a stream, -1
    for an object that a frame which does not exist yet is expected to show for the first time."""

    classes: tuple[str, ...] = ()
    """Names that `labels` is an index into; empty where the maker knew no names."""

    @property
    def names(self) -> tuple[str, ...]:
        """Give the N names of the labels, made when asked for; empty without `classes`."""
        return tuple(self.classes[label] for label in self.labels) if self.classes else ()

    def __len__(self) -> int:
        """Count the boxes."""
        return len(self.scores)
