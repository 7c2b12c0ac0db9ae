# SPDX-License-Identifier: Apache-2.0
"""What is measured of one camera: counts since activation, rates over the last seconds."""
from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import nan

import numpy as np

WINDOW_S = 10.0
"""Seconds over which rates, read ratio and latencies are taken."""

_MOST_FRAMES = 4096
"""Bound of the window at very high rates."""


@dataclass(frozen=True)
class WindowSummary:
    """Figures of the last `WINDOW_S` seconds; NaN where there was nothing to measure."""

    input_rate: float
    """Images sent by the camera as far as known, taken or dropped, per second."""

    output_rate: float
    """Processed frames per second."""

    read_ratio: float
    """Read frames of the processed ones, in [0, 1]."""

    latency_p50_ms: float
    latency_p95_ms: float
    latency_max_ms: float


@dataclass
class CameraStatistics:
    """Everything counted about one camera; times are seconds of the node's clock."""

    started: float
    """When counting began."""

    received: int = 0
    processed: int = 0
    dropped: int = 0
    refused: int = 0
    """Malformed images and pictures that could not be decoded."""

    failed: int = 0
    """Images on which the back-end failed."""

    last_error: str = ''
    last_failure: str = ''
    last_image: float | None = None
    _inputs: deque[tuple[float, int]] = field(
        default_factory=lambda: deque(maxlen=_MOST_FRAMES), repr=False)
    _outputs: deque[tuple[float, bool, float]] = field(
        default_factory=lambda: deque(maxlen=_MOST_FRAMES), repr=False)
    _errors: deque[float] = field(default_factory=lambda: deque(maxlen=1), repr=False)
    _failures: deque[float] = field(default_factory=lambda: deque(maxlen=1), repr=False)

    def add_image(self, now: float, dropped: int) -> None:
        """Count an image that was taken, and those dropped before it."""
        if self.last_image is not None and now < self.last_image:
            self._rewind(now)
        self.received += 1
        self.dropped += dropped
        self.last_image = now
        self._inputs.append((now, 1 + dropped))

    def add_result(self, now: float, read: bool, latency_ms: float) -> None:
        """Count a processed frame."""
        self.processed += 1
        self._outputs.append((now, read, latency_ms))

    def add_error(self, now: float, reason: str) -> None:
        """Count an image that could not be used."""
        self.refused += 1
        self.last_error = reason
        self._errors.append(now)

    def had_error(self, now: float) -> bool:
        """Tell whether an image was refused within the window."""
        return bool(self._errors) and now - self._errors[-1] <= WINDOW_S

    def add_failure(self, now: float, reason: str) -> None:
        """Count an image on which the back-end failed."""
        self.failed += 1
        self.last_failure = reason
        self._failures.append(now)

    def had_failure(self, now: float) -> bool:
        """Tell whether the back-end failed within the window."""
        return bool(self._failures) and now - self._failures[-1] <= WINDOW_S

    def resume(self, now: float) -> None:
        """Begin the window anew after a pause; the counts go on."""
        self._rewind(now)
        self.last_image = None

    def silent_for(self, now: float) -> float:
        """Return the seconds since the last image, or since the start if there was none."""
        return max(0.0, now - (self.started if self.last_image is None else self.last_image))

    def summary(self, now: float) -> WindowSummary:
        """Summarise the window that ends at `now`."""
        begin = now - WINDOW_S
        while self._inputs and self._inputs[0][0] < begin:
            self._inputs.popleft()
        while self._outputs and self._outputs[0][0] < begin:
            self._outputs.popleft()
        span = min(WINDOW_S, now - self.started)
        if len(self._inputs) == _MOST_FRAMES:
            span = min(span, now - self._inputs[0][0])
        if span <= 0.0:
            return WindowSummary(nan, nan, nan, nan, nan, nan)
        rates = (sum(count for _, count in self._inputs) / span, len(self._outputs) / span)
        if not self._outputs:
            return WindowSummary(*rates, nan, nan, nan, nan)
        reads = sum(read for _, read, _ in self._outputs) / len(self._outputs)
        p50, p95, largest = np.percentile(
            [latency for _, _, latency in self._outputs], (50, 95, 100)).tolist()
        return WindowSummary(*rates, reads, p50, p95, largest)

    def _rewind(self, now: float) -> None:
        """Empty the window, which cannot reach back over a pause or a clock that was set back."""
        self.started = now
        self._inputs.clear()
        self._outputs.clear()
        self._errors.clear()
        self._failures.clear()
