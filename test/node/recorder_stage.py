# SPDX-License-Identifier: Apache-2.0
"""Act as camera and detector for a recorder that runs as a process."""
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import nan
from pathlib import Path
import subprocess
import sys
import time

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from forecast_detector_ros.detector.detector import StepResult
from forecast_detector_ros.detector.policy import Decision
from forecast_detector_ros.detector.processing import Detections
from forecast_detector_ros.node.camera import IMAGE_QOS
from forecast_detector_ros.node.recorder import DECISION_QOS
from forecast_detector_ros.recording.recorded_frame import RecordedFrame
from forecast_detector_ros.recording.result_messages import decision_values, MessageBuilder
import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

PATIENCE_S = 180.0
RATE = 20.0
WIDTH, HEIGHT = 160, 120
LABELS = ('bicycle',)


class Stage(Node):
    """Camera and detector in one node, controlled by the test."""

    def __init__(self) -> None:
        """Advertise the topics of a camera and a detector."""
        super().__init__('stage')
        self.images = self.create_publisher(Image, 'image_raw', IMAGE_QOS)
        self.jpegs = self.create_publisher(CompressedImage, 'image_raw/compressed', IMAGE_QOS)
        self.detections = self.create_publisher(
            Detection2DArray, 'detections', QoSProfile(depth=10))
        self.decisions = self.create_publisher(DiagnosticArray, 'decision', DECISION_QOS)
        self._build = MessageBuilder()

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Spin until a condition holds; fail if that takes too long."""
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
        """Publish raw image `index`, whose grey value depends on `index`."""
        data = array('B', bytes([4 * index % 256]) * (WIDTH * HEIGHT * 3))
        self.images.publish(Image(
            header=self.header(index), width=WIDTH, height=HEIGHT, step=3 * WIDTH,
            encoding='bgr8', data=data))

    def show_jpeg(self, index: int, data: bytes | None = None) -> None:
        """Publish image `index` as JPEG, or publish the given bytes."""
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
        """Destroy the camera's publishers."""
        self.destroy_publisher(self.images)
        self.destroy_publisher(self.jpegs)


@contextmanager
def on_stage() -> Iterator[Stage]:
    """Create camera and detector on the graph of the test."""
    rclpy.init()
    stage = Stage()
    yield stage
    stage.destroy_node()
    rclpy.try_shutdown()


def start(output: Path, **parameters: object) -> subprocess.Popen:
    """Start the recorder as a process."""
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


def play(stage: Stage, frames: int, dropped: tuple[int, ...] = ()) -> list[str]:
    """Publish frames and answers, every other one a forecast; return the decisions."""
    kinds = []
    for index in range(frames):
        stage.show(index)
        kind = 'dropped' if index in dropped else ('forecast' if index % 2 else 'read')
        kinds.append(kind)
        if kind != 'dropped':
            stage.answer(index, kind)
        rclpy.spin_once(stage, timeout_sec=0.01)
    return kinds
