# SPDX-License-Identifier: Apache-2.0
"""Limit the cost of a frame by counts, not times: copies, allocations, calls and lines."""

from array import array
from collections import Counter
from dataclasses import replace
import sys
import tracemalloc
from types import SimpleNamespace

import cv2
from forecast_detector_ros.detector import processing
from forecast_detector_ros.detector.policy import AlternatePolicy
from forecast_detector_ros.detector.processing import Detections, Postprocessor, resize
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import StreamState
from forecast_detector_ros.images import frame as frame_module
from forecast_detector_ros.images import image_messages, quiet_decoder
from forecast_detector_ros.images.image_messages import compressed_frame, image_frame
from forecast_detector_ros.recording.result_messages import MessageBuilder
import numpy as np
import pytest

HEIGHT, WIDTH = 1080, 1920
SETTINGS = DetectorSettings(AlternatePolicy(1))


def raw(encoding='bgr8', channels=3):
    data = array('B', bytes(HEIGHT * WIDTH * channels))
    return SimpleNamespace(encoding=encoding, height=HEIGHT, width=WIDTH, step=WIDTH * channels,
                           is_bigendian=0, data=data)


def jpeg():
    picture = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 16, 3), np.uint8),
                         (WIDTH, HEIGHT))
    _, data = cv2.imencode('.jpg', picture)
    return SimpleNamespace(format='jpeg', data=array('B', data.tobytes()))


class Counting:
    """Stand in for OpenCV in a module; note the functions and the sizes of their pictures."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        found = getattr(cv2, name)
        if not callable(found):
            return found

        def call(first, *others, **named):
            if np.asarray(first).dtype == np.uint8:  # Only pictures, not scores.
                self.calls.append((name, np.shape(first)[:2]))
            return found(first, *others, **named)
        return call


@pytest.fixture
def opencv(monkeypatch):
    """Return the list of OpenCV's calls while a picture is processed."""
    counting = Counting()
    for module in (frame_module, image_messages, processing, quiet_decoder):
        monkeypatch.setattr(module, 'cv2', counting)
    return counting.calls


class CountingBackend:
    """Count the steps of a back-end."""

    def __init__(self, backend):
        self._backend = backend
        self.steps = Counter()

    def __getattr__(self, name):
        if name in ('read_step', 'forecast_step'):
            self.steps[name] += 1
        return getattr(self._backend, name)


@pytest.mark.parametrize('message, work', [
    (raw('bgr8'), [('resize', (HEIGHT, WIDTH))]),
    # Channels are swapped after the resize, when fewer pixels are left.
    (raw('rgb8'), [('resize', (HEIGHT, WIDTH)), ('cvtColor', (64, 96))]),
    (raw('mono8', 1), [('resize', (HEIGHT, WIDTH)), ('cvtColor', (64, 96))])])
def test_a_read_is_one_resize_and_one_step_and_a_forecast_uses_no_picture(
        message, work, detector, opencv, monkeypatch):
    backend = CountingBackend(detector._backend)
    monkeypatch.setattr(detector, '_backend', backend)
    _, state = detector.step(image_frame(message), StreamState.initial(), SETTINGS)
    assert opencv == work and backend.steps == {'read_step': 1}
    opencv.clear()
    result, _ = detector.step(image_frame(message), state, SETTINGS)
    assert result.decision.kind == 'forecast'
    assert opencv == [] and backend.steps == {'read_step': 1, 'forecast_step': 1}


def test_a_jpeg_is_decoded_once_and_not_for_a_forecast(detector, opencv):
    message = jpeg()
    _, state = detector.step(compressed_frame(message), StreamState.initial(), SETTINGS)
    assert [name for name, _ in opencv] == ['imdecode', 'resize']
    # An eighth of 1080p is still larger than the network's 96x64.
    assert opencv[1] == ('resize', (135, 240))
    opencv.clear()
    detector.step(compressed_frame(message), state, SETTINGS)
    assert opencv == []


def test_cameras_with_the_same_decision_share_a_step(detector, picture, monkeypatch):
    backend = CountingBackend(detector._backend)
    monkeypatch.setattr(detector, '_backend', backend)
    states = [StreamState.initial()] * 4
    for _ in range(2):
        frames = [picture(seed) for seed in range(4)]
        outcomes = detector.step_many(frames, states, SETTINGS)
        states = [state for _, state in outcomes]
    assert backend.steps == {'read_step': 1, 'forecast_step': 1}


def peak_bytes(work):
    """Return the peak of allocated memory in bytes; NumPy reports to tracemalloc."""
    work()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_of_a_full_size_copy_is_measured():
    assert peak_bytes(lambda: np.zeros((HEIGHT, WIDTH, 3), np.uint8).copy()) >= 2 * 3 * 1080 * 1920
    assert peak_bytes(lambda: cv2.flip(np.zeros((HEIGHT, WIDTH), np.uint8), 0)) >= 2 * 1080 * 1920


@pytest.mark.parametrize('encoding, channels', [
    ('bgr8', 3), ('rgb8', 3), ('bgra8', 4), ('rgba8', 4), ('mono8', 1)])
def test_a_raw_image_is_never_copied_in_full(encoding, channels):
    message = raw(encoding, channels)
    peak = peak_bytes(lambda: resize(image_frame(message).load_for((320, 320))[0], (320, 320)))
    # The limit allows the resized picture, twice if its channels are converted.
    assert peak < 320 * 320 * 7 + 20_000 < HEIGHT * WIDTH


def test_a_jpeg_is_never_decoded_in_full():
    message = jpeg()
    peak = peak_bytes(lambda: resize(compressed_frame(message).load_for((320, 320))[0],
                                     (320, 320)))
    # Half of each side is a quarter of the pixels.
    assert peak < (HEIGHT * WIDTH / 4 + 320 * 320) * 3 + 20_000


def lines_of(work):
    """Return the number of executed lines of Python."""
    count = 0

    def trace(_frame, event, _argument):
        nonlocal count
        count += event == 'line'
        return trace
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def head_output(anchors, hits):
    """Return logits, offsets and anchors, of which `hits` anchors are detections."""
    rng = np.random.default_rng(0)
    logits = np.zeros((anchors, 4), np.float32)
    logits[:, 0] = 8.0
    logits[rng.choice(anchors, hits, replace=False), 2] = 16.0
    corners = rng.uniform(0, 300, (anchors, 2)).astype(np.float32)
    return logits, np.zeros((anchors, 4), np.float32), np.concatenate((corners, corners + 1), 1)


def test_post_processing_runs_no_python_for_anchors_or_detections():
    def work(anchors, hits):
        logits, offsets, boxes = head_output(anchors, hits)
        post = Postprocessor(boxes, (320, 320), ('a', 'b', 'c'))
        found = []
        lines = lines_of(lambda: found.append(
            post(logits, offsets, (480, 640), 0.3, 0.45, 1000)))
        return lines, len(found[0])

    few, many = work(200, 20), work(3000, 300)
    assert few[1] >= 15 and many[1] >= 200
    assert few[0] == many[0]


def test_lines_of_a_step_do_not_depend_on_the_detections(detector, picture):
    def lines(score_threshold):
        settings = replace(SETTINGS, score_threshold=score_threshold)
        for _ in range(2):  # The first round imports and fills caches.
            state, counts, found = StreamState.initial(), [], []
            for seed in range(2):
                def step(seed=seed, state=state, found=found):
                    found.append(detector.step(picture(seed), state, settings))
                counts.append(lines_of(step))
                state = found[-1][1]
        return counts, [len(result.detections) for result, _ in found]

    nothing, something = lines(1.0), lines(0.2)
    assert max(nothing[1]) == 0 and min(something[1]) > 10
    # Without detections, NMS is skipped; nothing else differs.
    assert all(0 <= many - few < 30 for few, many in zip(nothing[0], something[0]))


def test_a_detection_costs_a_few_python_calls_in_a_message():
    pytest.importorskip('vision_msgs')
    from std_msgs.msg import Header
    builder, header = MessageBuilder(), Header()

    def calls(count):
        rng = np.random.default_rng(0)
        found = Detections(rng.uniform(0, 99, (count, 4)).astype(np.float32),
                           np.zeros(count, np.int64), np.ones(count, np.float32))
        number = 0

        def profile(_frame, event, _argument):
            nonlocal number
            number += event == 'call'
        builder.detections(header, found, ('cat',))
        sys.setprofile(profile)
        try:
            builder.detections(header, found, ('cat',))
        finally:
            sys.setprofile(None)
        return number

    # Constructors that fill every field would need more than 60 calls.
    assert (calls(101) - calls(1)) / 100 <= 30
