# SPDX-License-Identifier: Apache-2.0
"""Provide the counterpart of the detector node in tests: cameras and a listener."""
from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from forecast_detector_ros.node.detector_lifecycle import DetectorNode
import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

#: Timeout in seconds, long enough for a busy machine.
PATIENCE_S = 180.0

_IMAGE_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


def picture_message(index: int = 0, size: tuple[int, int] = (48, 80), seed: int | None = None,
                    stamp_ns: int | None = None) -> Image:
    """Return a bgr8 image of random pixels; without `stamp_ns`, images are 0.1 s apart."""
    height, width = size
    message = Image(height=height, width=width, encoding='bgr8', step=3 * width)
    pixels = np.random.default_rng(index if seed is None else seed).bytes(3 * width * height)
    message.data = array('B', pixels)
    stamp = 1_000_000_000_000 + index * 100_000_000 if stamp_ns is None else stamp_ns
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
    message.header.frame_id = f'camera_{index}'
    return message


def values_of(message: DiagnosticArray) -> dict[str, str]:
    """Return the values of a message's only status."""
    (status,) = message.status
    return {item.key: item.value for item in status.values}


class Graph:
    """Executor and client node, with the detectors that were added."""

    def __init__(self, checkpoint: Path) -> None:
        """Create the client; rclpy must be initialised."""
        self.checkpoint = checkpoint
        self.detector: DetectorNode
        self.client = Node('client')
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.client)
        self.detections: list[Detection2DArray] = []
        self.decisions: list[DiagnosticArray] = []
        self._detectors: list[DetectorNode] = []

    def add_detector(self, overrides: list[Parameter], *remappings: str) -> DetectorNode:
        """Make a detector node, unconfigured, with remappings such as ``left:=right``."""
        # PyTorch starts fastest, because the other back-ends first make graphs.
        given = {'checkpoint': str(self.checkpoint), 'diagnostics_period': 0.1,
                 'backend': 'torch'}
        given.update((item.name, item.value) for item in overrides)
        self.detector = DetectorNode('forecast_detector', parameter_overrides=[
            Parameter(name, value=value) for name, value in given.items()],
            cli_args=['--ros-args', *(part for rule in remappings for part in ('-r', rule))])
        self._detectors.append(self.detector)
        self.executor.add_node(self.detector)
        return self.detector

    def activate(self) -> None:
        """Activate the detector and subscribe to its detections and decisions."""
        assert self.detector.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.detector.trigger_activate() == TransitionCallbackReturn.SUCCESS
        for kind, topic, heard in ((Detection2DArray, 'detections', self.detections),
                                   (DiagnosticArray, 'decision', self.decisions)):
            self.client.create_subscription(kind, topic, heard.append, _IMAGE_QOS)
            self.spin_until(lambda topic=topic: self.client.count_publishers(topic) > 0
                            and self.detector.count_subscribers(topic) > 0)

    def camera(self, topic: str = 'image_raw') -> Any:
        """Return a publisher to which the detector is subscribed."""
        kind = CompressedImage if topic.endswith('/compressed') else Image
        publisher = self.client.create_publisher(kind, topic, _IMAGE_QOS)
        self.spin_until(lambda: publisher.get_subscription_count() > 0)
        # The publisher has found the detector; the detector must also find the publisher.
        self.spin_until(lambda: self.detector.count_publishers(topic) > 0)
        self.spin_for(0.1)
        return publisher

    def send(self, camera: Any, *messages: Any) -> list[dict[str, str]]:
        """Send messages, each after the answer to the one before."""
        before = len(self.decisions)
        for number, message in enumerate(messages, 1):
            camera.publish(message)
            self.spin_until(lambda wanted=before + number: len(self.decisions) == wanted
                            and len(self.detections) == wanted)
        return [values_of(message) for message in self.decisions[before:]]

    def spin_until(self, condition: Callable[[], bool]) -> None:
        """Spin until `condition` holds; fail if that takes too long."""
        deadline = monotonic() + PATIENCE_S
        while not condition():
            assert monotonic() < deadline, 'waited in vain'
            self.executor.spin_once(timeout_sec=0.02)

    def spin_for(self, seconds: float) -> None:
        """Spin for a while, to check that nothing happens."""
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service of the detector and return the response."""
        client = self.client.create_client(service_type, f'forecast_detector/{name}')
        self.spin_until(client.service_is_ready)
        future = client.call_async(request)
        self.spin_until(future.done)
        self.client.destroy_client(client)
        return future.result()

    def listen(self, kind: Any, topic: str, qos: QoSProfile | int = 10) -> list[Any]:
        """Subscribe and return the list that receives the messages."""
        heard: list[Any] = []
        self.client.create_subscription(kind, topic, heard.append, qos)
        return heard

    def close(self) -> None:
        """Destroy everything."""
        self.executor.shutdown()
        for node in self._detectors:
            node.close()
            node.destroy_node()
        self.client.destroy_node()
