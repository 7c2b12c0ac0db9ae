# SPDX-License-Identifier: Apache-2.0
"""Check a recording without a graph: cameras and answers, foreign messages, and its end."""
from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, nan
import os
from pathlib import Path
import resource
import shutil
import subprocess
import sys

import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from forecast_detector_ros.detector.detector import StepResult
from forecast_detector_ros.detector.policy import Decision
from forecast_detector_ros.detector.processing import Detections
from forecast_detector_ros.images.bag_images import ImageBag
from forecast_detector_ros.node.recorder import DECISION_QOS, DETECTIONS_QOS
from forecast_detector_ros.node.recording import Recording, RecordingError
from forecast_detector_ros.recording.output_files import BagError, VideoError
from forecast_detector_ros.recording.recorded_frame import RecordedFrame
from forecast_detector_ros.recording.result_messages import decision_values, MessageBuilder
import numpy as np
import pytest
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

BUILD = MessageBuilder()
HEIGHT, WIDTH = 60, 80


def header(index: int, frame_id: str = 'camera') -> Header:
    made = Header(frame_id=frame_id)
    made.stamp.sec, made.stamp.nanosec = divmod(10**12 + index * 50_000_000, 10**9)
    return made


def image(index: int, level: int = 40) -> Image:
    return Image(header=header(index), width=WIDTH, height=HEIGHT, step=3 * WIDTH,
                 encoding='bgr8', data=array('B', bytes([level]) * (WIDTH * HEIGHT * 3)))


def answer(recording: Recording, index: int, camera: str, label: str, **lost: bool) -> None:
    """Add a detection of `label` and a decision for frame `index` of a camera."""
    found = Detections(np.array([[10, 20, 30, 40]], np.float32), np.array([0]),
                       np.array([0.5], np.float32))
    decision = Decision('read', 'scheduler', 0.75, 0.5, 0)
    if 'detections' not in lost:
        recording.add_detections(BUILD.detections(header(index), found, (label,)))
    if 'decision' not in lost:
        recording.add_decision(BUILD.decision(
            header(index), f'node: {camera}', camera, decision,
            decision_values(StepResult(found, decision, 1.0, 10.0), 12.0)))


def detection(score: float = 0.5, size: float = 10.0, label: str = 'cat') -> Detection2D:
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = label, score
    made = Detection2D(results=[result])
    made.bbox.center.position.x = made.bbox.center.position.y = made.bbox.size_x = size
    made.bbox.size_y = 10.0
    return made


def pictures(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


class Recorded:
    """A recording whose frames are kept."""

    def __init__(self, folder: Path, *cameras: str) -> None:
        self.frames: list[RecordedFrame] = []
        self.recording = Recording(folder, cameras or ['/image_raw'], 20.0, self.frames.append)


def foreign() -> list[DiagnosticArray]:
    """Return messages of this type from other programs, with the stamp of frame 1."""
    def status(**values: str) -> DiagnosticArray:
        return DiagnosticArray(header=header(1), status=[DiagnosticStatus(
            name='node: /image_raw', hardware_id='/image_raw',
            values=[KeyValue(key=key, value=value) for key, value in values.items()])])

    fine = {'decision': 'read', 'reason': 'scheduler', 'consecutive_forecasts': '0'}
    return [DiagnosticArray(header=header(1)), status(), status(decision='read'),
            status(**{**fine, 'consecutive_forecasts': 'many'}),
            status(**{**fine, 'consecutive_forecasts': '9' * 5000}),
            status(**{**fine, 'consecutive_forecasts': '-1'}),
            status(**{**fine, 'latency_ms': 'long'}), status(**{**fine, 'decision': 'guessed'})]


def test_foreign_messages_are_counted_and_harm_nothing(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / 'out')
    recording = recorded.recording
    for index in range(3):
        recording.add_image('/image_raw', image(index))
    for message in foreign():
        recording.add_decision(message)
    for index in range(3):
        answer(recording, index, '/image_raw', 'cat')
    recording.close()
    assert recording.foreign == len(foreign())
    assert [frame.kind for frame in recorded.frames] == ['read'] * 3
    assert pictures(tmp_path / 'out' / 'annotated.mkv') == 3


def test_invalid_boxes_are_counted_and_left_out(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / 'out')
    recording = recorded.recording
    recording.add_image('/image_raw', image(0))
    bad = [detection(size=nan), detection(size=1e30), detection(size=-inf), detection(score=nan),
           Detection2D()]
    fine = [detection(), detection(size=1e6), detection(size=-1e6), detection(label='x' * 10_000)]
    recording.add_detections(Detection2DArray(header=header(0), detections=bad + fine))
    answer(recording, 0, '/image_raw', '', detections=True)
    many = Detection2DArray(header=header(1), detections=[detection()] * 1500)
    recording.add_image('/image_raw', image(1))
    recording.add_detections(many)
    answer(recording, 1, '/image_raw', '', detections=True)
    recording.close()
    assert recording.unsound == len(bad) + 500
    assert [len(frame.labels) for frame in recorded.frames] == [len(fine), 1000]
    assert max(map(len, recorded.frames[0].labels)) <= 200
    assert all(RecordedFrame.from_line(frame.to_line()) == frame for frame in recorded.frames)
    assert pictures(tmp_path / 'out' / 'annotated.mkv') == 2


@pytest.mark.parametrize('recorded_cameras', [('/left', '/right'), ('/left',), ('/right',)])
def test_cameras_in_step_get_their_own_answers(
        tmp_path: Path, recorded_cameras: tuple[str, ...]) -> None:
    recorded = Recorded(tmp_path / 'out', *recorded_cameras)
    for index in range(30):
        for camera in recorded_cameras:
            recorded.recording.add_image(camera, image(index))
        # The detector always serves both cameras, with the same stamp and frame_id.
        answer(recorded.recording, index, '/left', 'cat')
        answer(recorded.recording, index, '/right', 'dog')
    recorded.recording.close()
    alone = len(recorded_cameras) == 1
    assert len(recorded.frames) == 30 * len(recorded_cameras)
    # The second camera is unknown until its first answer.
    for frame in recorded.frames[2:]:
        camera = recorded_cameras[0] if alone else frame.camera
        assert frame.labels == ('cat' if camera == '/left' else 'dog',)
    names = ['annotated.mkv'] if alone else ['annotated.left.mkv', 'annotated.right.mkv']
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [*names, 'bag']
    assert [pictures(tmp_path / 'out' / name) for name in names] == [30] * len(names)


def test_answers_of_the_only_camera_may_have_another_name(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / 'out')
    for index in range(3):
        recorded.recording.add_image('/image_raw', image(index))
        answer(recorded.recording, index, '/relay/image_raw/compressed', 'cat')
    recorded.recording.close()
    assert [frame.labels for frame in recorded.frames] == [('cat',)] * 3


KILLED = """
import importlib.util, os, signal, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location('recordings', sys.argv[2])
recordings = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recordings)
recorded = recordings.Recorded(Path(sys.argv[1]))
recordings.fill(recorded.recording, 100)
recorded.recording.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def fill(recording: Recording, frames: int) -> None:
    """Record frames with one message each in the bag."""
    recording.bag.add_topic('/detections', Detection2DArray, DETECTIONS_QOS)
    recording.bag.add_topic('/decision', DiagnosticArray, DECISION_QOS)
    for index in range(frames):
        recording.add_image('/image_raw', image(index, index % 200))
        answer(recording, index, '/image_raw', 'cat')
        recording.bag.write('/detections', serialize_message(
            Detection2DArray(header=header(index), detections=[detection()])), index)


def test_killed_recording_can_be_read_and_is_kept(tmp_path: Path) -> None:
    out = tmp_path / 'out'
    process = subprocess.run(
        [sys.executable, '-c', KILLED, str(out), __file__], check=False,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).resolve().parents[2])})
    assert process.returncode == -9
    # The last second, 20 pictures, may be lost; messages are kept up to the last flush.
    assert pictures(out / 'annotated.part.mkv') >= 75
    copy = shutil.copytree(out / '.bag.part' / 'bag', tmp_path / 'copy')
    with ImageBag(copy) as bag:
        assert len(bag.messages('/detections', 'vision_msgs/msg/Detection2DArray')) == 100

    second = Recorded(out)
    assert [path.name for path in second.recording.remains] == [
        'annotated.unfinished-1.mkv', 'bag.unfinished-1']
    fill(second.recording, 20)
    second.recording.close()
    assert sorted(path.name for path in out.iterdir()) == [
        'annotated.mkv', 'annotated.unfinished-1.mkv', 'bag', 'bag.unfinished-1']
    assert pictures(out / 'annotated.unfinished-1.mkv') >= 75
    assert pictures(out / 'annotated.mkv') == 20
    # The bag was completed, so that any reader can open it.
    with AnyReader([out / 'bag.unfinished-1' / 'bag.mcap']) as reader:
        assert reader.message_count == 100
    with pytest.raises(RecordingError, match='holds a recording already'):
        Recorded(out)


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """Limit files to `most` bytes; CPython ignores the signal, so that writing fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_is_one_line_for_the_bag(tmp_path: Path) -> None:
    recording = Recorded(tmp_path / 'out').recording
    recording.bag.add_topic('/detections', Detection2DArray, DETECTIONS_QOS)
    with full_disk(50_000):
        with pytest.raises(BagError) as refusal:
            for index in range(1000):
                recording.bag.write('/detections', bytes(1000), index)
                recording.flush()
        recording.close()  # Closes the rest; does not repeat the bag's error.
    assert str(refusal.value) == (f'{tmp_path / "out" / "bag"}: cannot be written: '
                                  'File too large')
    assert not (tmp_path / 'out' / 'bag').exists()


def test_full_disk_is_one_line_for_the_video(tmp_path: Path) -> None:
    recording = Recorded(tmp_path / 'out').recording
    noise = np.random.default_rng(0)
    with full_disk(50_000), pytest.raises(VideoError, match='annotated.mkv: cannot be written'):
        for index in range(200):
            message = image(index)
            message.data = array('B', noise.bytes(len(message.data)))
            recording.add_image('/image_raw', message)
            answer(recording, index, '/image_raw', 'cat')
        recording.close()
    with pytest.raises(VideoError):
        recording.close()
    assert not (tmp_path / 'out' / 'annotated.mkv').exists()
    # The bag is complete.
    assert (tmp_path / 'out' / 'bag' / 'metadata.yaml').is_file()
