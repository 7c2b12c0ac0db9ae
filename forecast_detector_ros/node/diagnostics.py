# SPDX-License-Identifier: Apache-2.0
"""Statistics of one camera, and its status on /diagnostics."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf, nan

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np

from ..detector.detector import Detector
from ..detector.settings import DetectorSettings

WINDOW_S = 10.0  #: Window of rates, read ratio and latencies, seconds

_SETTLED_S = 2.0  #: Least length of the window before rate and age are judged, seconds

_EARLY_S = 0.01  #: Stamps may be so far ahead of the node's clock, seconds: clocks differ

_MOST_FRAMES = 4096  #: Most frames in the window, for very high rates

#: Reasons of an unrequested reset of the state, and their cause in the images.
_RESETS = {'gap': 'their stamps step back, or lie more than max_gap_s apart',
           'size_changed': 'their size changes'}


@dataclass(frozen=True)
class WindowSummary:
    """Figures of the last `WINDOW_S` seconds; NaN where there was nothing to measure."""

    #: Images per second from the camera, received or known to be dropped
    input_rate: float = nan
    output_rate: float = nan  #: Processed frames per second
    read_ratio: float = nan  #: Read frames over processed frames, in [0, 1]
    latency_p50_ms: float = nan
    latency_p95_ms: float = nan
    latency_max_ms: float = nan
    image_age_p50_ms: float = nan  #: Time from an image's stamp to the publication of its boxes


@dataclass
class CameraStatistics:
    """Counts and times of one camera; times are seconds of the node's clock."""

    started: float  #: When counting began
    received: int = 0
    processed: int = 0
    dropped: int = 0
    refused: int = 0  #: Malformed images and pictures that could not be decoded
    failed: int = 0  #: Images on which the back-end failed
    last_error: str = ''
    last_failure: str = ''
    last_image: float | None = None
    resets: int = 0  #: Frames with an unrequested reset of the state
    last_reset: str = ''
    told_error: float = -inf  #: When an error was logged last, seconds of the steady clock
    _inputs: deque[tuple[float, int]] = field(
        default_factory=lambda: deque(maxlen=_MOST_FRAMES), repr=False)
    _outputs: deque[tuple[float, bool, float, bool, float]] = field(
        default_factory=lambda: deque(maxlen=_MOST_FRAMES), repr=False)
    _error_time: float = -inf  #: Time of the last refused image
    _failure_time: float = -inf

    def begin(self, now: float) -> None:
        """Restart the window at `now` if it was started before simulated time was."""
        if self.started == 0.0 < now:
            self.resume(now)

    def add_image(self, now: float, dropped: int) -> None:
        """Count a received image, and `dropped` images before it."""
        self.begin(now)
        if self.last_image is not None and now < self.last_image:
            self._rewind(now)
        self.received += 1
        self.dropped += dropped
        self.last_image = now
        self._inputs.append((now, 1 + dropped))

    def add_result(self, now: float, read: bool, latency_ms: float, reason: str = '',
                   age_ms: float = 0.0) -> None:
        """Count a processed frame with its decision's `reason` and its age since the stamp."""
        self.processed += 1
        if reason in _RESETS:
            self.resets += 1
            self.last_reset = reason
        self._outputs.append((now, read, latency_ms, reason in _RESETS, age_ms))

    def mostly_reset(self, now: float) -> bool:
        """Return whether more than one and more than half of the frames have reset the state."""
        recent = [reset for time, _, _, reset, _ in self._outputs if now - time <= WINDOW_S]
        return sum(recent) > max(1.0, len(recent) / 2)

    def add_error(self, now: float, reason: str) -> None:
        """Count a refused image."""
        self.refused += 1
        self.last_error = reason
        self._error_time = now

    def had_error(self, now: float) -> bool:
        """Return whether an image was refused within the window."""
        return now - self._error_time <= WINDOW_S

    def add_failure(self, now: float, reason: str) -> None:
        """Count an image on which the back-end failed."""
        self.failed += 1
        self.last_failure = reason
        self._failure_time = now

    def had_failure(self, now: float) -> bool:
        """Return whether the back-end failed within the window."""
        return now - self._failure_time <= WINDOW_S

    def resume(self, now: float) -> None:
        """Restart the window after a pause; the counts are kept."""
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
            return WindowSummary()
        rates = (sum(count for _, count in self._inputs) / span, len(self._outputs) / span)
        if not self._outputs:
            return WindowSummary(*rates)
        reads = sum(read for _, read, *_ in self._outputs) / len(self._outputs)
        p50, p95, largest = np.percentile(
            [latency for _, _, latency, *_ in self._outputs], (50, 95, 100)).tolist()
        age = float(np.median([age for *_, age in self._outputs]))
        return WindowSummary(*rates, reads, p50, p95, largest, age)

    def _rewind(self, now: float) -> None:
        """Empty the window, which must not span a pause or a clock that was set back."""
        self.started = now
        self._inputs.clear()
        self._outputs.clear()
        self._error_time = self._failure_time = -inf


@dataclass(frozen=True)
class Situation:
    """The state of a camera and its node, apart from the statistics."""

    topic: str
    now: float  #: Seconds of the node's clock; 0 before simulated time starts
    active: bool
    enabled: bool
    publishers: int
    no_image_timeout: float  #: Seconds
    resting: bool = False  #: Whether the node is lazy and has no subscribers
    given_up: str = ''  #: Why the node has deactivated itself; else empty
    min_output_rate: float = 0.0  #: Frames per second; 0: no limit
    max_age_s: float = 0.0  #: Seconds; 0: no limit


def describe(detector: Detector, settings: DetectorSettings) -> str:
    """Return one line that describes a loaded detector and its policy."""
    height, width = detector.input_size
    return (f'{detector.card.name}: {len(detector.labels)} classes, input {width}x{height}, '
            f'{detector.backend} on {detector.device} ({detector.device_reason}), '
            f'{detector.precision}, policy {settings.policy}')


def health(situation: Situation, statistics: CameraStatistics) -> tuple[bytes, str]:
    """Return level and message of a camera's status."""
    ok, warn, error = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
    if not situation.active:
        if situation.given_up:
            return error, f'deactivated itself: {situation.given_up}'
        return ok, 'inactive'
    if not situation.enabled:
        return ok, 'paused by ~/enable'
    if situation.resting:
        return ok, 'resting: nobody listens'
    if situation.now == 0.0:
        return warn, 'use_sim_time is set, but no time has come on /clock'
    if statistics.had_failure(situation.now):
        return error, f'frames fail: {statistics.last_failure}'
    silent = statistics.silent_for(situation.now)
    if silent > situation.no_image_timeout:
        return warn, f'no image for {silent:.1f} s on {situation.topic}: {_advice(situation)}'
    if statistics.had_error(situation.now):
        return warn, f'images are refused: {statistics.last_error}'
    if statistics.mostly_reset(situation.now):
        return warn, f'most images reset the state: {_RESETS[statistics.last_reset]}'
    missed = _missed(situation, statistics)
    if missed:
        return warn, missed
    return ok, 'running' if statistics.processed else 'waiting for the first image'


def camera_values(statistics: CameraStatistics, now: float) -> list[tuple[str, str]]:
    """Return the (key, value) pairs that a camera's status carries."""
    window = statistics.summary(now)
    age = '' if statistics.last_image is None else f'{max(0.0, now - statistics.last_image):.3f}'
    return [
        ('window_s', f'{WINDOW_S:g}'),
        ('input_rate_hz', f'{window.input_rate:.2f}'),
        ('output_rate_hz', f'{window.output_rate:.2f}'),
        ('read_ratio', f'{window.read_ratio:.3f}'),
        ('latency_p50_ms', f'{window.latency_p50_ms:.2f}'),
        ('latency_p95_ms', f'{window.latency_p95_ms:.2f}'),
        ('latency_max_ms', f'{window.latency_max_ms:.2f}'),
        ('image_age_p50_ms', f'{window.image_age_p50_ms:.2f}'),
        ('received_frames', str(statistics.received)),
        ('processed_frames', str(statistics.processed)),
        ('dropped_frames', str(statistics.dropped)),
        ('state_resets', str(statistics.resets)),
        ('decode_errors', str(statistics.refused)),
        ('last_error', statistics.last_error),
        ('failed_frames', str(statistics.failed)),
        ('last_failure', statistics.last_failure),
        ('seconds_since_image', age),
    ]


def _missed(situation: Situation, statistics: CameraStatistics) -> str:
    """Return a message about a broken limit of rate or age; empty if there is none."""
    least, oldest = situation.min_output_rate, situation.max_age_s
    # A rate over a shorter time is not meaningful.
    if not (least or oldest) or situation.now - statistics.started < _SETTLED_S:
        return ''
    window = statistics.summary(situation.now)
    if window.output_rate < least:
        cause = ('the camera sends no more' if window.input_rate < least
                 else 'the detector does not keep up (see target_rate and policy)')
        return (f'{window.output_rate:.1f} frames per second, min_output_rate is {least:g}: '
                f'{window.input_rate:.1f} images per second were sent, {cause}')
    age = window.image_age_p50_ms * 1e-3
    if oldest and age > oldest:
        return (f'boxes are {age:.3g} s old, max_age_s is {oldest:g}: images come late, or the '
                'clock of their stamps is behind')
    if oldest and age < -_EARLY_S:
        return f'stamps lie {-age:.3g} s in the future: the clock of the stamps is ahead'
    return ''


def _advice(situation: Situation) -> str:
    if situation.publishers == 0:
        return ('nobody publishes there; check the topic name (image_topics, remappings, '
                'namespace), image_transport, and that the camera runs in this ROS domain')
    return (f'{situation.publishers} publisher(s) there; check that the camera is running, that '
            'its QoS is compatible (qos_overrides), and for large raw images the transport of '
            'the publisher: it needs a shared-memory segment that holds an image')
