# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says about a camera, and what to do when its images stay away."""
from __future__ import annotations

from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus

from .camera_statistics import CameraStatistics, WINDOW_S
from ..detector.detector import Detector
from ..detector.settings import DetectorSettings


@dataclass(frozen=True)
class Situation:
    """What is known about a camera beside its statistics."""

    topic: str
    now: float
    """Seconds of the node's clock; 0 while simulated time has not begun."""

    active: bool
    enabled: bool
    publishers: int
    no_image_timeout: float
    """Seconds."""

    resting: bool = False
    """Whether the node is lazy, and nobody listens."""

    given_up: str = ''
    """Why the node has deactivated itself; empty while it has not."""


def describe(detector: Detector, settings: DetectorSettings) -> str:
    """Return one line about a detector that was loaded, and how it decides."""
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
        ('received_frames', str(statistics.received)),
        ('processed_frames', str(statistics.processed)),
        ('dropped_frames', str(statistics.dropped)),
        ('decode_errors', str(statistics.refused)),
        ('last_error', statistics.last_error),
        ('failed_frames', str(statistics.failed)),
        ('last_failure', statistics.last_failure),
        ('seconds_since_image', age),
    ]


def _advice(situation: Situation) -> str:
    if situation.publishers == 0:
        return ('nobody publishes there; check the topic name (image_topics, remappings, '
                'namespace), image_transport, and that the camera runs in this ROS domain')
    return (f'{situation.publishers} publisher(s) there; check that the camera is running, that '
            'its QoS is compatible (qos_overrides), and for large raw images the transport of '
            'the publisher: it needs a shared-memory segment that holds an image')
