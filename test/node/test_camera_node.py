# SPDX-License-Identifier: Apache-2.0
"""Run the camera as a process and check its images; check that its schedule does not drift."""
from collections.abc import Iterator
import json
from pathlib import Path
import signal
import subprocess
import sys
import time

import cv2
from forecast_detector_ros.node.camera import FrameSchedule
import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data, QoSProfile
from sensor_msgs.msg import CompressedImage, Image

PATIENCE_S = 180.0


@pytest.fixture
def node(ros_domain: int) -> Iterator[Node]:
    """Return a node on the graph of this test."""
    rclpy.init()
    node = Node('watcher')
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Return a video of 30 frames of 64 x 48 pixels at 50 Hz that get brighter."""
    path = tmp_path / 'clip.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), 50.0, (64, 48))
    for index in range(30):
        writer.write(np.full((48, 64, 3), 7 * index, np.uint8))
    writer.release()
    return path


def start(**parameters: object) -> subprocess.Popen:
    """Start the camera with these parameters."""
    command = [sys.executable, '-m', 'forecast_detector_ros.node.camera_node', '--ros-args']
    for name, value in parameters.items():
        command += ['-p', f'{name}:={value}']
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(camera: subprocess.Popen) -> tuple[int, str]:
    """Wait for the end of the camera; return its exit code and its messages."""
    said, _ = camera.communicate(timeout=PATIENCE_S)
    return camera.returncode, said


def spin_while(node: Node, camera: subprocess.Popen) -> None:
    """Spin the node until the camera has ended."""
    end = time.monotonic() + PATIENCE_S
    while camera.poll() is None and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.05)


def stamp_s(message: Image) -> float:
    """Return the stamp in seconds."""
    return message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec


def test_every_frame_arrives_with_exact_stamps_and_the_camera_ends(
        node: Node, clip: Path, tmp_path: Path) -> None:
    reliable: list[Image] = []
    best_effort: list[Image] = []
    node.create_subscription(Image, 'image_raw', reliable.append, QoSProfile(depth=40))
    node.create_subscription(Image, 'image_raw', best_effort.append, qos_profile_sensor_data)
    camera = start(source=clip, frame_id='left_eye', wait_for_subscribers=2,
                   report=tmp_path / 'report.json')
    spin_while(node, camera)
    code, said = finish(camera)
    assert code == 0, said
    assert len(reliable) == 30
    assert len(best_effort) == 30
    first = reliable[0]
    assert (first.width, first.height, first.step) == (64, 48, 192)
    assert (first.encoding, first.header.frame_id) == ('bgr8', 'left_eye')
    brightness = [np.frombuffer(message.data, np.uint8).mean() for message in reliable]
    np.testing.assert_allclose(brightness, 7.0 * np.arange(30), atol=4)
    steps = np.diff([stamp_s(message) for message in reliable])
    assert steps.mean() == pytest.approx(0.02, rel=0.01)
    assert json.loads((tmp_path / 'report.json').read_text()) == {
        'source': str(clip), 'published': 30, 'rate': 50.0, 'loss': None}


def test_compressed_frames_are_jpeg(node: Node, clip: Path) -> None:
    messages: list[CompressedImage] = []
    node.create_subscription(
        CompressedImage, 'image_raw/compressed', messages.append, QoSProfile(depth=40))
    camera = start(source=clip, image_transport='compressed', wait_for_subscribers=1, rate='200.0')
    spin_while(node, camera)
    assert finish(camera)[0] == 0
    assert len(messages) == 30
    assert messages[0].format == 'bgr8; jpeg compressed bgr8'
    picture = cv2.imdecode(np.frombuffer(messages[20].data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (48, 64, 3)
    assert picture.mean() == pytest.approx(140, abs=4)


def test_looping_camera_runs_until_it_is_interrupted(node: Node, clip: Path) -> None:
    messages: list[Image] = []
    node.create_subscription(Image, 'image_raw', messages.append, QoSProfile(depth=40))
    camera = start(source=clip, loop='true', rate='300.0', wait_for_subscribers=1)
    end = time.monotonic() + PATIENCE_S
    while len(messages) < 70 and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.05)
    assert camera.poll() is None
    camera.send_signal(signal.SIGINT)
    spin_while(node, camera)
    code, said = finish(camera)
    assert len(messages) >= 70
    assert (code, 'Traceback' in said) == (0, False)
    stamps = [stamp_s(message) for message in messages]
    assert stamps == sorted(stamps)


def test_camera_that_waits_for_subscribers_can_be_interrupted(clip: Path) -> None:
    camera = start(source=clip, wait_for_subscribers=1)
    assert camera.stdout is not None
    for line in camera.stdout:
        if 'waiting for 1 subscription(s) of /image_raw' in line:
            break
    camera.send_signal(signal.SIGINT)
    code, said = finish(camera)
    assert code == 0
    assert '0 frames published' in said


def test_truncated_video_is_played_and_the_loss_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 25.0, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(40):
        writer.write(rng.integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    code, said = finish(start(source=path, rate='500.0'))
    assert code == 0
    assert [line for line in said.splitlines() if 'broke off after' in line and 'of 40' in line]


def test_report_that_cannot_be_written_is_one_line(clip: Path) -> None:
    code, said = finish(start(source=clip, rate='500.0', report='/nowhere/report.json'))
    assert code == 2
    line = said.splitlines()[-1]
    assert 'Traceback' not in said
    assert line.endswith('report: /nowhere/report.json: No such file or directory')


def test_camera_publishes_before_simulated_time_begins(clip: Path) -> None:
    code, said = finish(start(source=clip, rate='500.0', use_sim_time='true'))
    assert (code, '30 frames published' in said) == (0, True), said


@pytest.mark.parametrize(('parameters', 'complaint'), [
    ({}, 'source is not set'),
    ({'source': '/nowhere/clip.mp4'}, 'no such file'),
    ({'source': '/dev/null'}, 'cannot be opened'),
    ({'source': 'CLIP', 'image_transport': 'smoke'}, "neither 'raw' nor 'compressed'"),
    ({'source': 'CLIP', 'rate': '-1.0'}, 'rate out of range'),
    ({'source': 'CLIP', 'jpeg_quality': '101'}, 'jpeg_quality out of range'),
    ({'source': 'CLIP', 'rate': 'fast'}, "set parameter 'rate' to 'fast'"),
    ({'source': 'FOLDER'}, 'has no rate of its own'),
    ({'source': 'CLIP', 'qos_overrides./image_raw.publisher.reliability': 'eventually'},
     'qos_overrides: Unexpected QoS override'),
])
def test_bad_input_is_one_line_and_exit_code_2(
        clip: Path, parameters: dict[str, str], complaint: str) -> None:
    folder = clip.parent / 'folder'
    folder.mkdir()
    cv2.imwrite(str(folder / '1.png'), np.zeros((8, 8, 3), np.uint8))
    names = {'CLIP': str(clip), 'FOLDER': str(folder)}
    code, said = finish(start(**{key: names.get(value, value)
                                 for key, value in parameters.items()}))
    assert code == 2
    assert complaint in said
    assert len(said.strip().splitlines()) == 1


def test_lateness_does_not_add_up() -> None:
    schedule = FrameSchedule(25.0, origin=100.0)
    for _ in range(1000):
        assert schedule.advance(schedule.due + 0.01) == pytest.approx(0.01)
    assert schedule.due == pytest.approx(100.0 + 1000 / 25.0)
    assert schedule.stalls == 0


def test_stall_delays_all_later_frames() -> None:
    schedule = FrameSchedule(10.0, origin=0.0)
    schedule.advance(0.0)
    assert schedule.advance(5.0) == 0.0
    assert schedule.due == pytest.approx(5.1)
    assert schedule.stalls == 1


def test_early_frame_is_not_late() -> None:
    schedule = FrameSchedule(10.0, origin=1.0)
    assert schedule.advance(0.9) == 0.0
