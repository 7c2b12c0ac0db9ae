# SPDX-License-Identifier: Apache-2.0
"""One camera's stream: when its state survives, and who looks at the bytes of an image."""
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
from forecast_detector_ros.node.camera_stream import CameraStream
from forecast_detector_ros.runtime.detector import Detector
from forecast_detector_ros.runtime.frame import FrameError
from forecast_detector_ros.runtime.policy import AlternatePolicy
from forecast_detector_ros.runtime.settings import DetectorSettings
import numpy as np
import pytest

from .graph import picture_message

SETTINGS = DetectorSettings(policy=AlternatePolicy(1))


class Poison:
    """Data whose length may be asked for, and nothing else."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f'somebody looked: {name}')


@pytest.fixture(scope='module')
def detector(small_checkpoint: Path) -> Detector:
    return Detector.load(small_checkpoint)


def stream(max_gap_s: float = 1.0, compressed: bool = False) -> CameraStream:
    return CameraStream('/image_raw', '/image_raw', compressed, max_gap_s, 0.0)


def poisoned(index: int) -> SimpleNamespace:
    image = picture_message(index)
    return SimpleNamespace(
        header=image.header, height=image.height, width=image.width, encoding=image.encoding,
        step=image.step, is_bigendian=0, format='jpeg', data=Poison(len(image.data)))


def test_poison_does_no_harm_on_a_forecast_frame(detector: Detector) -> None:
    camera, twin = stream(), stream()
    for index in range(0, 6, 2):
        for each in (camera, twin):
            assert each.step(picture_message(index), detector, SETTINGS)[0].decision.kind == 'read'
        result, _ = camera.step(poisoned(index + 1), detector, SETTINGS)
        expected, _ = twin.step(picture_message(index + 1), detector, SETTINGS)
        assert result.decision == expected.decision
        assert result.decision.kind == 'forecast'
        assert result.detections.boxes.tolist() == expected.detections.boxes.tolist()
        assert result.detections.scores.tolist() == expected.detections.scores.tolist()
    with pytest.raises((AssertionError, TypeError)):
        camera.step(poisoned(6), detector, SETTINGS)


def test_compressed_poison_does_no_harm_on_a_forecast_frame(detector: Detector) -> None:
    camera = stream(compressed=True)
    _, data = cv2.imencode('.jpg', np.zeros((48, 80, 3), np.uint8))
    first = SimpleNamespace(
        header=picture_message(0).header, format='jpeg', data=data.tobytes())
    camera.step(first, detector, SETTINGS)
    assert camera.step(poisoned(1), detector, SETTINGS)[0].decision.kind == 'forecast'


def test_refused_image_leaves_no_trace(detector: Detector) -> None:
    camera = stream()
    camera.step(picture_message(0), detector, SETTINGS)
    # Even one whose stamp, were it taken, would end the state.
    broken = picture_message(stamp_ns=5)
    broken.step = 1
    with pytest.raises(FrameError):
        camera.step(broken, detector, SETTINGS)
    assert camera.step(picture_message(1), detector, SETTINGS)[0].decision.reason == 'policy'


@pytest.mark.parametrize(('step_ns', 'reason'), [
    (0, 'policy'), (1_000_000_000, 'policy'), (1_000_000_001, 'gap'), (-1, 'gap')])
def test_step_of_the_stamps_decides_about_the_state(detector: Detector, step_ns: int,
                                                    reason: str) -> None:
    camera = stream(max_gap_s=1.0)
    camera.step(picture_message(0, stamp_ns=10**12), detector, SETTINGS)
    result, _ = camera.step(picture_message(1, stamp_ns=10**12 + step_ns), detector, SETTINGS)
    assert result.decision.reason == reason
