# SPDX-License-Identifier: Apache-2.0
"""Check the camera node while its device stops and comes back."""
from collections.abc import Callable, Iterator
import json
from pathlib import Path
from typing import Any

import cv2
from forecast_detector_ros.images.video_source import SourceError
from forecast_detector_ros.node.camera import run
import numpy as np
import pytest
import rclpy

STOPPED = '/dev/null: the device stopped delivering pictures'


class Driver:
    """
    Stand in for cv2.VideoCapture and for the signal that ends the camera.

    `openings` are the numbers of pictures that each opening delivers before it fails. None: the
    device cannot be opened. After the last opening, the signal comes if `signal` is true;
    otherwise the last opening is repeated.
    """

    def __init__(self, openings: list[int | None], signal: bool) -> None:
        self._script = openings
        self._signal = signal
        self.openings = 0
        self.held = 0

    def __call__(self, source: str, backend: int) -> 'Capture':
        """Open the device."""
        assert (source, backend) == ('/dev/null', cv2.CAP_V4L2)
        self.openings += 1
        return Capture(self, self._script[min(self.openings, len(self._script)) - 1])

    def __bool__(self) -> bool:
        """Return whether the signal has come."""
        return self._signal and self.openings >= len(self._script) and not self.held


class Capture:
    """One opening of the device."""

    def __init__(self, driver: Driver, pictures: int | None) -> None:
        self._driver = driver
        self._pictures = pictures
        self._driver.held += pictures is not None
        assert self._driver.held <= 1, 'it was not released'

    def isOpened(self) -> bool:  # noqa: N802
        """Return whether the device could be opened."""
        return self._pictures is not None

    def set(self, kind: int, value: float) -> None:  # noqa: A003
        """Ignore a setting."""

    def get(self, kind: int) -> float:
        """Return a rate."""
        return 30.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        """Deliver a picture, or fail."""
        if not self._pictures:
            return False, None
        self._pictures -= 1
        return True, np.zeros((48, 64, 3), np.uint8)

    def release(self) -> None:
        """Free the device."""
        self._driver.held -= self._pictures is not None
        self._pictures = None


@pytest.fixture
def play(ros_domain: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
         capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[Driver, int, str]]]:
    """Return a function that runs the camera; it returns driver, number of pictures and log."""
    def run_with(*openings: int | None, signal: bool = True, **parameters: object
                 ) -> tuple[Driver, int, str]:
        driver: Any = Driver(list(openings), signal)
        monkeypatch.setattr(cv2, 'VideoCapture', driver)
        report = tmp_path / 'report.json'
        given = {'source': '/dev/null', 'report': report, **parameters}
        rclpy.init(args=['--ros-args', *(word for name, value in given.items()
                                         for word in ('-p', f'{name}:={value}'))])
        assert run(driver) == 0
        return driver, json.loads(report.read_text())['published'], capfd.readouterr().err
    yield run_with
    rclpy.try_shutdown()


def test_device_that_comes_back_is_published_again(play: Callable[..., Any]) -> None:
    driver, published, log = play(3, None, 0, 2, None, 4, None)
    assert published == 9
    assert driver.openings == 7
    assert log.count(f'{STOPPED}; trying for 10 s to open it again') == 3, log
    assert log.count('/dev/null: delivers pictures again, after ') == 2, log
    # The two other lines tell the topic and the number of pictures.
    assert len(log.splitlines()) == 7, log


def test_device_that_stays_away_ends_the_camera_with_the_reason(
        play: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError) as caught:
        play(3, None, signal=False, reconnect_s=0.5)
    assert str(caught.value).startswith(
        f'{STOPPED} and did not come back within 0.5 s (/dev/null: cannot be opened')
    assert capfd.readouterr().err.count('trying') == 1


@pytest.mark.parametrize(('openings', 'parameters'), [
    ((3, 3), {'reconnect_s': 0.0}),
    # The second time, the device opens but delivers no picture.
    ((0, 3), {}),
])
def test_camera_gives_up_at_once(
        play: Callable[..., Any], capfd: pytest.CaptureFixture[str], openings: tuple[int, ...],
        parameters: dict[str, float]) -> None:
    with pytest.raises(SourceError) as caught:
        play(*openings, signal=False, **parameters)
    assert str(caught.value) == STOPPED
    assert 'trying' not in capfd.readouterr().err


def test_signal_ends_the_camera_while_the_device_is_away(play: Callable[..., Any]) -> None:
    _, published, log = play(3, None, None, reconnect_s=3600.0)
    assert published == 3
    assert '3 frames published' in log
