# SPDX-License-Identifier: Apache-2.0
"""Check the stream of one camera: its state, dropped images, and accesses to image data."""
from __future__ import annotations

from array import array
import gc
from pathlib import Path
import sys
from types import SimpleNamespace
from typing import Any
import weakref

import cv2
from forecast_detector_ros.detector.detector import Detector, StepResult
from forecast_detector_ros.detector.policy import AlternatePolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.images.frame import FrameError
from forecast_detector_ros.images.image_messages import image_frame
from forecast_detector_ros.node.camera_stream import (
    CameraStream,
    DropCounter,
    ImageBridge,
    step_waiting,
)
import numpy as np
import pytest
from sensor_msgs.msg import Image

from .graph import picture_message


def info(number: int | None, publisher: bytes | None = b'a') -> dict[str, Any]:
    gid = None if publisher is None else {'implementation_identifier': 'x', 'data': publisher}
    return {'publication_sequence_number': number, 'publisher_gid': gid}


def test_gap_counts_as_dropped_and_a_late_start_does_not() -> None:
    counter = DropCounter()
    assert [counter.dropped_before(info(number)) for number in (17, 18, 21, 22)] == [0, 0, 2, 0]


def test_publishers_are_counted_separately() -> None:
    counter = DropCounter()
    sent = [(5, b'a'), (100, b'b'), (6, b'a'), (103, b'b')]
    assert [counter.dropped_before(info(*item)) for item in sent] == [0, 0, 0, 2]


def test_restarted_publisher_drops_nothing() -> None:
    counter = DropCounter()
    assert [counter.dropped_before(info(number, None)) for number in (50, 1, 2)] == [0, 0, 0]


@pytest.mark.parametrize('unknown', [
    {}, info(None), info(2**64 - 1)])
def test_middleware_without_numbers_drops_nothing(unknown: dict[str, Any]) -> None:
    counter = DropCounter()
    assert counter.dropped_before(unknown) == counter.dropped_before(unknown) == 0


def test_forgotten_publisher_drops_nothing() -> None:
    counter = DropCounter()
    counter.dropped_before(info(1))
    counter.forget()
    assert counter.dropped_before(info(30)) == 0


HEIGHT, WIDTH = 12, 16


def image(encoding: str, row: int, padding: int = 0) -> Image:
    """Return an image of random bytes; `row` is the length of a row in bytes without padding."""
    step = row + padding
    data = np.random.default_rng(3).integers(0, 256, HEIGHT * step, dtype=np.uint8)
    return Image(encoding=encoding, height=HEIGHT, width=WIDTH, step=step,
                 data=array('B', data.tobytes()))


class CountingBridge:
    """Stand in for CvBridge: return a picture of one colour, or fail."""

    calls: list[str] = []

    def imgmsg_to_cv2(self, message, encoding):
        """Note the call; return BGR pixels, or raise KeyError for an unknown encoding."""
        self.calls.append(message.encoding)
        if message.encoding == 'yuyv':
            raise KeyError(message.encoding)
        return np.full((HEIGHT, WIDTH, 3), 7, np.uint8)


@pytest.fixture
def counting(monkeypatch):
    """Replace cv_bridge by one that notes its calls."""
    module = type(sys)('cv_bridge')
    module.CvBridge = CountingBridge
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)
    monkeypatch.setattr(CountingBridge, 'calls', [])
    return CountingBridge.calls


def test_node_calls_cv_bridge_once_and_only_on_loading(counting):
    stream = CameraStream('/camera', '/camera', False, 0.0)
    stream.put(image('bayer_rggb8', WIDTH), 0.0)
    assert counting == []
    frame = stream.waiting.frame
    assert (frame.load().array == 7).all() and (frame.load().array == 7).all()
    assert counting == ['bayer_rggb8']


@pytest.mark.parametrize(('encoding', 'row', 'padding'), [
    ('rgb8', 3 * WIDTH, 0), ('mono8', WIDTH, 0), ('bayer_rggb8', WIDTH, 4)])
def test_views_and_padded_rows_do_not_use_cv_bridge(counting, encoding, row, padding):
    message = image(encoding, row, padding)
    ours = image_frame(message, ImageBridge()).load()
    np.testing.assert_array_equal(ours.array, image_frame(message).load().array)
    assert counting == []


def test_encoding_unknown_to_cv_bridge_is_tried_once(counting):
    bridge, message = ImageBridge(), image('yuyv', 2 * WIDTH)
    for _ in range(2):
        pixels = image_frame(message, bridge).load()
        np.testing.assert_array_equal(pixels.array, image_frame(message).load().array)
    assert counting == ['yuyv']


def test_works_without_cv_bridge(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    message = image('bayer_gbrg8', WIDTH)
    np.testing.assert_array_equal(image_frame(message, ImageBridge()).load().array,
                                  image_frame(message).load().array)


def test_real_cv_bridge_gives_the_same_pixels():
    pytest.importorskip('cv_bridge')
    for encoding in ('bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8', 'bayer_grbg8'):
        message = image(encoding, WIDTH)
        np.testing.assert_array_equal(image_frame(message, ImageBridge()).load().array,
                                      image_frame(message).load().array)


SETTINGS = DetectorSettings(policy=AlternatePolicy(1))


class Poison:
    """Image data that fails at every access except to its length."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f'somebody looked: {name}')


@pytest.fixture(scope='module')
def detector(small_checkpoint: Path) -> Detector:
    return Detector.load(small_checkpoint, backend='torch')


def stream(compressed: bool = False) -> CameraStream:
    return CameraStream('/image_raw', '/image_raw', compressed, 0.0)


def step(camera: CameraStream, message: Any, detector: Detector, max_gap_s: float = 1.0
         ) -> StepResult:
    """Process one message immediately, as a node with a single camera does."""
    camera.put(message, 0.0)
    ((_, _, result),) = step_waiting([camera], detector, SETTINGS, max_gap_s)
    if isinstance(result, Exception):
        raise result
    return result


def poisoned(index: int) -> SimpleNamespace:
    image = picture_message(index)
    return SimpleNamespace(
        header=image.header, height=image.height, width=image.width, encoding=image.encoding,
        step=image.step, is_bigendian=0, format='jpeg', data=Poison(len(image.data)))


def test_data_of_a_forecast_frame_is_not_read(detector: Detector) -> None:
    camera, twin = stream(), stream()
    for index in range(0, 6, 2):
        for each in (camera, twin):
            assert step(each, picture_message(index), detector).decision.kind == 'read'
        result = step(camera, poisoned(index + 1), detector)
        expected = step(twin, picture_message(index + 1), detector)
        assert result.decision == expected.decision
        assert result.decision.kind == 'forecast'
        assert result.detections.boxes.tolist() == expected.detections.boxes.tolist()
        assert result.detections.scores.tolist() == expected.detections.scores.tolist()
    with pytest.raises((AssertionError, TypeError)):
        step(camera, poisoned(6), detector)


def test_compressed_data_of_a_forecast_frame_is_not_read(detector: Detector) -> None:
    camera = stream(compressed=True)
    _, data = cv2.imencode('.jpg', np.zeros((48, 80, 3), np.uint8))
    first = SimpleNamespace(
        header=picture_message(0).header, format='jpeg', data=data.tobytes())
    step(camera, first, detector)
    assert step(camera, poisoned(1), detector).decision.kind == 'forecast'


def test_refused_image_does_not_change_the_state(detector: Detector) -> None:
    camera = stream()
    step(camera, picture_message(0), detector)
    # If the stamp of the refused image were used, it would reset the state.
    broken = picture_message(stamp_ns=5)
    broken.step = 1
    with pytest.raises(FrameError):
        step(camera, broken, detector)
    assert step(camera, picture_message(1), detector).decision.reason == 'policy'


@pytest.mark.parametrize(('step_ns', 'reason'), [
    (0, 'policy'), (1_000_000_000, 'policy'), (1_000_000_001, 'gap'), (-1, 'gap')])
def test_step_of_the_stamps_decides_about_the_state(detector: Detector, step_ns: int,
                                                    reason: str) -> None:
    camera = stream()
    step(camera, picture_message(0, stamp_ns=10**12), detector)
    result = step(camera, picture_message(1, stamp_ns=10**12 + step_ns), detector)
    assert result.decision.reason == reason


def test_newer_image_takes_the_place_of_one_that_waits(detector: Detector) -> None:
    camera = stream()
    assert not camera.put(picture_message(0), 1.0)
    broken = picture_message(1)
    broken.step = 1
    with pytest.raises(FrameError):
        camera.put(broken, 2.0)
    assert camera.waiting is not None and camera.waiting.start == 1.0
    newest = picture_message(2)
    assert camera.put(newest, 3.0)
    ((_, waiting, _),) = step_waiting([camera], detector, SETTINGS, 1.0)
    assert waiting.message is newest and camera.waiting is None


def test_waiting_cameras_share_a_batch_and_a_bad_one_stays_out(detector: Detector) -> None:
    cameras, alone = [stream(compressed=True) for _ in range(4)], stream(compressed=True)
    pictures = [SimpleNamespace(
        header=picture_message(0).header, format='jpeg',
        data=cv2.imencode('.png', np.full((48, 80, 3), 60 * index, np.uint8))[1].tobytes())
        for index in range(3)]
    pictures[1].data = pictures[1].data[:-30]
    for camera, picture in zip(cameras, pictures):
        camera.put(picture, 0.0)
    outcomes = step_waiting(cameras, detector, SETTINGS, 1.0)
    assert [camera for camera, _, _ in outcomes] == cameras[:3]
    first, broken, third = (outcome for _, _, outcome in outcomes)
    assert isinstance(broken, FrameError) and 'truncated' in str(broken)
    assert isinstance(first, StepResult) and isinstance(third, StepResult)
    assert first.batch == third.batch == 2
    expected = step(alone, pictures[2], detector)
    assert third.detections.labels.tolist() == expected.detections.labels.tolist()
    np.testing.assert_allclose(third.detections.boxes, expected.detections.boxes, atol=1e-2)
    # The camera with the broken picture has not had a first frame.
    pictures[1].data = pictures[0].data
    assert step(cameras[1], pictures[1], detector).decision.reason == 'first_frame'
    assert step(cameras[0], pictures[1], detector).decision.kind == 'forecast'


class WatchedImage:
    """A message that allows weak references."""

    format = 'jpeg'  # noqa: A003
    header = SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=0))
    data = b'no picture'


def test_memory_of_a_refused_image_is_freed_at_once(detector: Detector) -> None:
    camera = stream(compressed=True)
    gc.collect()
    gc.disable()  # In a large process, garbage collection is rare.
    try:
        message = WatchedImage()
        alive = weakref.ref(message)
        camera.put(message, 0.0)
        ((_, waiting, result),) = step_waiting([camera], detector, SETTINGS, 1.0)
        assert isinstance(result, FrameError)
        del message, waiting, result
        assert alive() is None
    finally:
        gc.enable()
