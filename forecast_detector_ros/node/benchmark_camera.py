# SPDX-License-Identifier: Apache-2.0
"""
A camera that costs little and measures latency and CPU time of a detector, for `benchmark`.

It prepares all pictures before it sends the first, and prints the figures as JSON.
"""
from __future__ import annotations

from array import array
from collections.abc import Callable
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from .camera import FrameSchedule, IMAGE_QOS, SETTLE_S
from .program import declare_fixed, run_program
from .stop_signal import StopSignal
from ..images.video_source import open_source, SourceError

PICTURES = 4  #: Different pictures, which are sent in turn

#: Longest wait for the detector, which imports PyTorch and compiles a network first, seconds.
PATIENCE_S = 120.0

LAST_S = 0.5  #: Wait for the answer to the last picture, seconds

DETECTOR = 'forecast_detector'


class BenchmarkError(RuntimeError):
    """A measurement is not possible; the message is one line."""


class BenchmarkCamera(Node):
    """Publishes pictures and records the arrival times of the detections."""

    def __init__(self) -> None:
        """Declare the parameters; raises SourceError if `source` has no picture."""
        super().__init__('benchmark_camera')
        source = declare_fixed(self, 'source', '', 'Video file with the pictures')
        height = declare_fixed(self, 'height', 1080, 'Height of the pictures', (8, 8192))
        width = declare_fixed(self, 'width', 1920, 'Width of the pictures', (8, 8192))
        self.rate = declare_fixed(self, 'rate', 30.0, 'Pictures per second', (0.1, 1000.0))
        self.frames = declare_fixed(self, 'frames', 240, 'Pictures that are measured', (2, 100000))
        self.warm_up = declare_fixed(
            self, 'warm_up', 60, 'Pictures before them, which are not measured', (0, 100000))
        transport = declare_fixed(self, 'image_transport', 'raw', 'raw or compressed')
        self.policy = declare_fixed(
            self, 'policy', '', 'Policy to set in the detector; empty: only a subscriber runs')
        self.pid = declare_fixed(self, 'pid', 0, 'Process whose CPU time is read', (0, 2**22))
        self.messages = [_message(picture, transport == 'compressed')
                         for picture in _pictures(source, (height, width))]
        self.images = self.create_publisher(
            type(self.messages[0]),
            'image_raw/compressed' if transport == 'compressed' else 'image_raw', IMAGE_QOS)
        self.sent: dict[int, float] = {}
        self.latencies_ms: dict[int, float] = {}
        self.kinds: dict[int, str] = {}
        if self.policy:
            self.create_subscription(Detection2DArray, 'detections', self._on_detections, 100)
            self.create_subscription(DiagnosticArray, 'decision', self._on_decision, QoSProfile(
                depth=100, reliability=ReliabilityPolicy.BEST_EFFORT))

    def send(self, number: int) -> None:
        """Publish picture `number`, from 0 on, with the current time as stamp."""
        message = self.messages[number % len(self.messages)]
        now = self.get_clock().now()
        message.header.stamp = now.to_msg()
        self.sent[now.nanoseconds] = time.monotonic()
        self.images.publish(message)

    def _on_detections(self, message: Detection2DArray) -> None:
        stamp = Time.from_msg(message.header.stamp).nanoseconds
        if stamp in self.sent:
            self.latencies_ms[stamp] = (time.monotonic() - self.sent[stamp]) * 1e3

    def _on_decision(self, message: DiagnosticArray) -> None:
        self.kinds[Time.from_msg(message.header.stamp).nanoseconds] = message.status[0].message


def cpu_seconds(pid: int) -> float:
    """
    Return the CPU time of a process and its threads, user and system, in seconds.

    Raises BenchmarkError if there is no such process.
    """
    try:
        # The name, in brackets, may contain spaces (man 5 proc_pid_stat).
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError as error:
        raise BenchmarkError(f'pid {pid}: {error.strerror}') from None
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _pictures(source: str, size: tuple[int, int]) -> list[np.ndarray]:
    video = open_source(source, 30.0)
    try:
        found = [picture for picture in (video.read() for _ in range(PICTURES))
                 if picture is not None]
    finally:
        video.close()
    if not found:
        raise SourceError(f'{source}: has no picture')
    return [cv2.resize(picture, size[::-1]) for picture in found]


def _message(picture: np.ndarray, compressed: bool) -> Any:
    if compressed:
        _, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        return CompressedImage(format='bgr8; jpeg compressed bgr8',
                               data=array('B', data.tobytes()))
    height, width = picture.shape[:2]
    return Image(height=height, width=width, encoding='bgr8', step=3 * width,
                 data=array('B', picture.tobytes()))


class _Session:
    """One measurement, from the wait for the detector to the figures."""

    def __init__(self, camera: BenchmarkCamera, stop: StopSignal) -> None:
        self._camera = camera
        self._stop = stop
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(camera)

    def run(self) -> dict[str, Any]:
        camera = self._camera
        self._wait(lambda: camera.images.get_subscription_count() > 0, 'nobody subscribes')
        if camera.policy:
            self._choose_policy()
        self._spin(SETTLE_S)
        self._play(camera.warm_up)
        self._spin(LAST_S)
        camera.sent.clear()
        before, start = cpu_seconds(camera.pid), time.monotonic()
        self._play(camera.frames)
        duration = time.monotonic() - start
        self._spin(LAST_S)
        used = cpu_seconds(camera.pid) - before
        return self._figures(used, duration)

    def _figures(self, used: float, duration: float) -> dict[str, Any]:
        camera = self._camera
        stamps = sorted(camera.sent)
        answered = [stamp for stamp in stamps if stamp in camera.latencies_ms]
        figures: dict[str, Any] = {
            'published': len(stamps), 'cpu_ms_per_frame': used * 1e3 / len(stamps),
            'cores': used / (duration + LAST_S)}
        if camera.policy:
            latencies = [camera.latencies_ms[stamp] for stamp in answered]
            p50, p95 = np.percentile(latencies, (50, 95)).tolist() if latencies else (None, None)
            kinds = [camera.kinds[stamp] for stamp in stamps if stamp in camera.kinds]
            figures.update({
                'lost': len(stamps) - len(answered), 'latency_p50_ms': p50,
                'latency_p95_ms': p95,
                'read_ratio': kinds.count('read') / len(kinds) if kinds else None})
            if answered:
                figures['cpu_ms_per_frame'] = used * 1e3 / len(answered)
        return figures

    def _choose_policy(self) -> None:
        camera = self._camera
        # Set together: the limit must allow the forecasts of the policy.
        client: Any = camera.create_client(SetParametersAtomically,
                                           f'{DETECTOR}/set_parameters_atomically')
        self._wait(client.service_is_ready, 'there is no detector')
        all_forecast = camera.policy == 'forecast'
        request = SetParametersAtomically.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg() for name, value in (
                ('policy', 'alternate(1000)' if all_forecast else camera.policy),
                ('max_consecutive_forecasts', 1000 if all_forecast else 3))])
        future: Any = client.call_async(request)
        self._wait(future.done, 'the detector does not answer')
        answer = future.result().result
        if not answer.successful:
            raise BenchmarkError(f'the detector refuses the policy: {answer.reason}')
        self._wait(lambda: camera.count_publishers('detections') > 0, 'nobody detects')

    def _play(self, frames: int) -> None:
        schedule = FrameSchedule(self._camera.rate, time.monotonic())
        for number in range(frames):
            self._until(schedule.due)
            if self._stop:
                raise BenchmarkError('interrupted')
            self._camera.send(number)
            schedule.advance(time.monotonic())

    def _wait(self, condition: Callable[[], bool], else_: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if self._stop or time.monotonic() > deadline:
                raise BenchmarkError(f'{else_} within {PATIENCE_S:g} s')
            self._executor.spin_once(timeout_sec=0.02)

    def _spin(self, seconds: float) -> None:
        self._until(time.monotonic() + seconds)

    def _until(self, instant: float) -> None:
        while not self._stop:
            remaining = instant - time.monotonic()
            if remaining <= 0.0:
                return
            self._executor.spin_once(timeout_sec=remaining)


def _run(stop: StopSignal) -> int:
    camera = BenchmarkCamera()
    try:
        print(json.dumps(_Session(camera, stop).run()), flush=True)
    finally:
        camera.destroy_node()
    return 0


def main(args: list[str] | None = None) -> int:
    """Measure once; return exit code 0, or 2 with one line in the log if that is not possible."""
    return run_program('benchmark_camera', _run, args, mistakes=(SourceError, BenchmarkError))


if __name__ == '__main__':
    sys.exit(main())
