# SPDX-License-Identifier: Apache-2.0
"""Run the recorder as a process beside a camera and a detector that the test plays."""
from array import array
from collections.abc import Callable, Iterator
import json
from math import nan
from pathlib import Path
import resource
import signal
import subprocess
import sys
import time

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from forecast_detector_ros.detector.detector import StepResult
from forecast_detector_ros.detector.policy import Decision
from forecast_detector_ros.detector.processing import Detections
from forecast_detector_ros.images.bag_images import ImageBag
from forecast_detector_ros.images.frame import SourceError
from forecast_detector_ros.node.camera import IMAGE_QOS
from forecast_detector_ros.node.recorder import DECISION_QOS
from forecast_detector_ros.recording.recorded_frame import RecordedFrame
from forecast_detector_ros.recording.result_messages import decision_values, MessageBuilder
import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

PATIENCE_S = 180.0
RATE = 20.0
WIDTH, HEIGHT = 160, 120
LABELS = ('bicycle',)


class Stage(Node):
    """Camera and detector in one node, moved by the test."""

    def __init__(self) -> None:
        """Advertise what a camera and a detector advertise."""
        super().__init__('stage')
        self.images = self.create_publisher(Image, 'image_raw', IMAGE_QOS)
        self.jpegs = self.create_publisher(CompressedImage, 'image_raw/compressed', IMAGE_QOS)
        self.detections = self.create_publisher(
            Detection2DArray, 'detections', QoSProfile(depth=10))
        self.decisions = self.create_publisher(DiagnosticArray, 'decision', DECISION_QOS)
        self._build = MessageBuilder()

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Spin until something is true; fail when that takes too long."""
        end = time.monotonic() + PATIENCE_S
        while not ready():
            assert time.monotonic() < end, 'waited too long'
            rclpy.spin_once(self, timeout_sec=0.02)

    def header(self, index: int):
        """Return the header of frame `index`."""
        header = Image().header
        stamp = 1_000_000_000_000 + round(index * 1e9 / RATE)
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        header.frame_id = 'camera'
        return header

    def show(self, index: int) -> None:
        """Publish image `index`, raw, of a grey of its own."""
        data = array('B', bytes([4 * index % 256]) * (WIDTH * HEIGHT * 3))
        self.images.publish(Image(
            header=self.header(index), width=WIDTH, height=HEIGHT, step=3 * WIDTH,
            encoding='bgr8', data=data))

    def show_jpeg(self, index: int, data: bytes | None = None) -> None:
        """Publish image `index` as JPEG, or as the bytes given."""
        if data is None:
            picture = np.full((HEIGHT, WIDTH, 3), 4 * index, np.uint8)
            data = cv2.imencode('.jpg', picture)[1].tobytes()
        self.jpegs.publish(CompressedImage(header=self.header(index), format='jpeg',
                                           data=array('B', data)))

    def answer(self, index: int, kind: str) -> None:
        """Publish one detection and the decision on image `index`."""
        found = Detections(np.array([[40, 50, 100, 90]], np.float32), np.array([0]),
                           np.array([0.5], np.float32))
        decision = Decision(kind, 'scheduler' if index else 'first_frame',
                            0.75 if index else nan, 0.5, int(kind == 'forecast'))
        header = self.header(index)
        self.detections.publish(self._build.detections(header, found, LABELS))
        self.decisions.publish(self._build.decision(
            header, 'stage: camera', '/image_raw', decision,
            decision_values(StepResult(found, decision, 1.0, 10.0), 12.0, 15.0, 0)))

    def leave(self) -> None:
        """Take the camera away."""
        self.destroy_publisher(self.images)
        self.destroy_publisher(self.jpegs)


@pytest.fixture
def stage(ros_domain: int) -> Iterator[Stage]:
    """Return camera and detector on the graph of this test."""
    rclpy.init()
    stage = Stage()
    yield stage
    stage.destroy_node()
    rclpy.try_shutdown()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return the folder to record into."""
    return tmp_path / 'recording'


def start(output: Path, **parameters: object) -> subprocess.Popen:
    """Start the recorder."""
    command = [sys.executable, '-m', 'forecast_detector_ros.node.recorder_node', '--ros-args',
               '-p', f'output:={output}', '-p', "frame_log:='-'"]
    for name, value in parameters.items():
        command += ['-p', f'{name}:={value}']
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(recorder: subprocess.Popen) -> tuple[int, list[RecordedFrame], str]:
    """Wait for the end; return exit code, frames and log."""
    frames, log = recorder.communicate(timeout=PATIENCE_S)
    return (recorder.returncode,
            [RecordedFrame.from_line(line) for line in frames.splitlines()], log)


def pictures(path: Path) -> list[np.ndarray]:
    """Read a video."""
    capture = cv2.VideoCapture(str(path))
    found = []
    while (read := capture.read())[0]:
        found.append(read[1])
    return found


def is_red(picture: np.ndarray) -> bool:
    """Tell whether a picture has a red border at its foot."""
    blue, green, red = picture[-2, WIDTH // 2].astype(int)
    return bool(red > 180 and blue < 90 and green < 90)


def play(stage: Stage, frames: int, dropped: tuple[int, ...] = ()) -> list[str]:
    """Play so many frames, every other one a forecast; return the decisions."""
    kinds = []
    for index in range(frames):
        stage.show(index)
        kind = 'dropped' if index in dropped else ('forecast' if index % 2 else 'read')
        kinds.append(kind)
        if kind != 'dropped':
            stage.answer(index, kind)
        rclpy.spin_once(stage, timeout_sec=0.01)
    return kinds


def test_recording_holds_every_frame_with_its_decision(stage: Stage, output: Path) -> None:
    recorder = start(output, stop_with_camera='true')
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    kinds = play(stage, 20, dropped=(7, 8))
    stage.images.wait_for_all_acked(rclpy.duration.Duration(seconds=5))
    stage.leave()
    stage.wait_until(lambda: recorder.poll() is not None)
    code, frames, log = finish(recorder)
    assert code == 0, log
    assert [frame.kind for frame in frames] == kinds
    assert [frame.labels for frame in frames] == [
        () if kind == 'dropped' else ('bicycle',) for kind in kinds]
    assert frames[1].confidence == 0.75
    assert frames[0].confidence is None
    assert sorted(path.name for path in output.iterdir()) == ['annotated.mkv', 'bag']

    video = pictures(output / 'annotated.mkv')
    assert [is_red(picture) for picture in video] == [kind == 'forecast' for kind in kinds]
    # The background tells that no picture changed its place.
    grey = [picture[100:110, 120:150].mean() for picture in video]
    np.testing.assert_allclose(grey, 4.0 * np.arange(20), atol=5)
    assert cv2.VideoCapture(str(output / 'annotated.mkv')).get(cv2.CAP_PROP_FPS) == RATE

    with AnyReader([output / 'bag']) as reader:
        stamps: dict[str, list[int]] = {}
        for connection, _, data in reader.messages():
            stamp = reader.deserialize(data, connection.msgtype).header.stamp
            stamps.setdefault(connection.topic, []).append(stamp.sec * 10**9 + stamp.nanosec)
    answered = [frame.stamp_ns for frame in frames if not frame.dropped]
    assert stamps == {'/detections': answered, '/decision': answered}


def test_what_is_expected_is_recorded_from_when_it_comes(stage: Stage, output: Path) -> None:
    ahead = stage.create_publisher(Detection2DArray, 'detections_ahead', 10)
    recorder = start(output)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1
                     and ahead.get_subscription_count() == 1)
    play(stage, 3)
    # The bag is in the middle of what it had from the start, and was flushed in between.
    time.sleep(1.5)
    for index in (3, 4):
        ahead.publish(Detection2DArray(header=stage.header(index)))
    ahead.wait_for_all_acked(rclpy.duration.Duration(seconds=5))
    # What is published arrives within this time.
    time.sleep(0.5)
    recorder.send_signal(signal.SIGINT)
    code, frames, log = finish(recorder)
    assert code == 0, log
    with AnyReader([output / 'bag']) as reader:
        headers = [reader.deserialize(data, connection.msgtype).header
                   for connection, _, data in reader.messages()
                   if connection.topic == '/detections_ahead']
    assert [header.stamp.sec * 10**9 + header.stamp.nanosec for header in headers] == [
        10**12 + round(index * 1e9 / RATE) for index in (3, 4)]
    # They belong to no image.
    assert [frame.labels for frame in frames] == [('bicycle',)] * 3
    assert '2 /detections_ahead' in log


def test_bag_carries_the_type_hash_of_the_live_topic(stage: Stage, output: Path) -> None:
    recorder = start(output)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    live = {}
    for topic in ('/detections', '/decision'):
        live[topic] = str(stage.get_publishers_info_by_topic(topic)[0].topic_type_hash)
    play(stage, 2)
    recorder.send_signal(signal.SIGINT)
    code, _, log = finish(recorder)
    assert code == 0, log
    with AnyReader([output / 'bag']) as reader:
        recorded = {connection.topic: connection.digest for connection in reader.connections}
    for topic, digest in live.items():
        assert recorded[topic].startswith('RIHS01_')
        assert recorded[topic].removeprefix('RIHS01_') in digest


def test_interrupted_recording_is_whole_up_to_there(stage: Stage, output: Path) -> None:
    recorder = start(output)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    play(stage, 6)
    stage.images.wait_for_all_acked(rclpy.duration.Duration(seconds=5))
    stage.wait_until(lambda: stage.detections.wait_for_all_acked(
        rclpy.duration.Duration(seconds=0.1)))
    time.sleep(0.5)
    assert not (output / 'annotated.mkv').exists()
    recorder.send_signal(signal.SIGINT)
    code, frames, log = finish(recorder)
    assert code == 0, log
    assert 'Traceback' not in log
    assert len(frames) == len(pictures(output / 'annotated.mkv')) == 6
    with AnyReader([output / 'bag']) as reader:
        assert reader.message_count == 12


def stamps_in(bag: Path) -> list[list[int]]:
    """Return the stamps of the detections and of the decisions in a bag that was not closed."""
    try:
        with ImageBag(bag) as opened:
            headers = [[message.header for message in opened.messages(topic, kind)]
                       for topic, kind in (('/detections', 'vision_msgs/msg/Detection2DArray'),
                                           ('/decision', 'diagnostic_msgs/msg/DiagnosticArray'))]
    except SourceError:
        return []
    return [[header.stamp.sec * 10**9 + header.stamp.nanosec for header in each]
            for each in headers]


def test_bag_of_a_killed_recorder_has_what_came_before_the_last_flush(
        stage: Stage, output: Path) -> None:
    recorder = start(output)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    play(stage, 6)
    expected = [[10**12 + round(index * 1e9 / RATE) for index in range(6)]] * 2
    bag, sizes = output / '.bag.part' / 'bag', [0]

    def all_there() -> bool:
        sizes.append((bag / 'bag.mcap').stat().st_size)
        return sizes[-1] != sizes[-2] and stamps_in(bag) == expected

    # So little fills no chunk: what brings it to the disk is that a second has passed.
    try:
        stage.wait_until(all_there)
    finally:
        recorder.kill()
    recorder.communicate(timeout=PATIENCE_S)
    assert recorder.returncode == -signal.SIGKILL
    assert stamps_in(bag) == expected
    assert not (output / 'bag').exists()


def test_images_wait_for_a_detector(stage: Stage, output: Path) -> None:
    stage.destroy_publisher(stage.detections)
    recorder = start(output)
    stage.wait_until(lambda: stage.decisions.get_subscription_count() == 1)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        rclpy.spin_once(stage, timeout_sec=0.05)
        assert stage.images.get_subscription_count() == 0
    recorder.send_signal(signal.SIGINT)
    code, frames, log = finish(recorder)
    assert (code, frames) == (0, []), log
    assert 'waiting for a detector on /detections and /decision' in log


def test_compressed_images_are_recorded_and_a_broken_one_is_left_out(
        stage: Stage, output: Path) -> None:
    recorder = start(output, image_transport='compressed', rate=RATE, stop_with_camera='true')
    stage.wait_until(lambda: stage.jpegs.get_subscription_count() == 1)
    for index in range(5):
        stage.show_jpeg(index, b'broken' if index == 2 else None)
        stage.answer(index, 'read')
    stage.jpegs.wait_for_all_acked(rclpy.duration.Duration(seconds=5))
    stage.leave()
    stage.wait_until(lambda: recorder.poll() is not None)
    code, frames, log = finish(recorder)
    assert (code, len(frames)) == (0, 5), log
    assert len(pictures(output / 'annotated.mkv')) == 4
    assert '1 images could not be decoded' in log


@pytest.mark.parametrize(('parameters', 'complaint'), [
    ({'image_transport': 'smoke'}, "neither 'raw' nor 'compressed'"),
    ({'rate': '-2.0'}, 'rate out of range'),
    ({'output': '/dev/null/here'}, '/dev/null/here'),
    ({'output': 'USED'}, 'holds a recording already'),
])
def test_bad_input_is_one_line_and_exit_code_2(
        output: Path, parameters: dict[str, str], complaint: str) -> None:
    output.mkdir()
    (output / 'annotated.mkv').write_text('precious')
    given = {name: value for name, value in parameters.items() if name != 'output'}
    folder = {'USED': output, None: output.with_name('other')}.get(
        parameters.get('output'), Path('/dev/null/here'))
    code, _, log = finish(start(folder, **given))
    assert code == 2
    assert complaint in log
    assert len(log.strip().splitlines()) == 1
    assert (output / 'annotated.mkv').read_text() == 'precious'


def test_frame_lines_are_plain_json(stage: Stage, output: Path) -> None:
    recorder = start(output, rate=RATE)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    play(stage, 1)
    assert recorder.stdout is not None
    line = json.loads(recorder.stdout.readline())
    assert line['kind'] == 'read'
    assert line['latency_ms'] == 12.0
    recorder.send_signal(signal.SIGINT)
    assert finish(recorder)[0] == 0


def test_full_disk_is_one_line_and_exit_code_2(
        stage: Stage, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # coverage writes a file, too, which would not fit.
    monkeypatch.delenv('COVERAGE_PROCESS_CONFIG', raising=False)
    recorder = start(output, rate=RATE)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    # From here on no file grows beyond it; before, Fast DDS makes its shared memory of files.
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    index = 0
    while recorder.poll() is None:
        stage.show(index)
        stage.answer(index, 'read')
        index += 1
        rclpy.spin_once(stage, timeout_sec=0.02)
        assert index < 5000, 'it goes on and on'
    code, _, log = finish(recorder)
    assert code == 2, log
    lines = [line for line in log.strip().splitlines() if '[INFO]' not in line]
    assert len(lines) == 1 and 'File too large' in lines[0], log


def test_foreign_message_does_not_end_the_recorder(stage: Stage, output: Path) -> None:
    recorder = start(output, rate=RATE)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    foreign = DiagnosticArray(header=stage.header(0))
    stage.decisions.publish(foreign)
    play(stage, 3)
    stage.images.wait_for_all_acked(rclpy.duration.Duration(seconds=5))
    time.sleep(0.5)
    recorder.send_signal(signal.SIGINT)
    code, frames, log = finish(recorder)
    assert (code, len(frames)) == (0, 3), log
    assert '1 messages are not of the detector' in log
