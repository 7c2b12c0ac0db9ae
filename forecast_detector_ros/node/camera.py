# SPDX-License-Identifier: Apache-2.0
"""
Publish a video file, a folder of images or a V4L2 device as a camera.

No camera_info is published, because the calibration of the source is unknown.
"""
from __future__ import annotations

from array import array
from pathlib import Path
import time

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image

from .program import (
    declare_fixed,
    GuardedExecutor,
    SafeParameterService,
    warn_of_unknown_parameters,
)
from .stop_signal import StopSignal
from ..errors import cut
from ..files import write_json
from ..images.frame import encode_jpeg, FrameError
from ..images.video_source import Device, open_source, SourceError, VideoSource


class FrameSchedule:
    """
    An absolute schedule: frame n is due at origin + n * period, so delays do not add up.

    A frame that is late by more than a period moves the origin, so that the next frames keep
    their distance. Of a burst the receivers would keep only the last frame.
    """

    def __init__(self, rate: float, origin: float) -> None:
        """Plan `rate` frames a second (> 0), the first at `origin` (seconds, steady clock)."""
        self._period = 1.0 / rate
        self._origin = origin
        self._count = 0
        self.stalls = 0  #: How often the origin was moved

    @property
    def due(self) -> float:
        """Due time of the next frame, seconds of the steady clock."""
        return self._origin + self._count * self._period

    def advance(self, now: float) -> float:
        """
        Count one frame, sent at `now`, and return its delay in seconds (>= 0).

        The delay is 0 if the frame moved the origin.
        """
        late = max(0.0, now - self.due)
        if late > self._period:
            self._origin += late
            self.stalls += 1
            late = 0.0
        self._count += 1
        return late


# A reliable publisher matches reliable and best-effort subscriptions. Over shared memory it
# delivered 60 of 60 images at 480p, best effort 5 to 12.
IMAGE_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10,
                       reliability=ReliabilityPolicy.RELIABLE)

# Discovery is not simultaneous: a subscriber that is matched here may not have matched this
# publisher yet, and then discards its messages.
SETTLE_S = 0.5
ACKNOWLEDGE_S = 5.0
SIGNAL_LATENCY_S = 0.1

# Pauses between two attempts to open a device again; each is twice the one before.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0


class CameraNode(Node):
    """Publishes pictures with stamps on `image_raw` or `image_raw/compressed`."""

    def __init__(self) -> None:
        """Declare the parameters and create the publisher; raises SourceError for a bad value."""
        super().__init__('camera', start_parameter_services=False)
        self._parameter_services = SafeParameterService(self)
        self.source: str = declare_fixed(
            self, 'source', '',
            'Video file, folder of images, or V4L2 device such as /dev/video0')
        self.rate: float = declare_fixed(
            self, 'rate', 0.0, 'Frames per second; 0.0 is the rate of the source itself',
            (0.0, 1000.0), 'A folder of images has no rate of its own.')
        self.loop: bool = declare_fixed(
            self, 'loop', False, 'Start over at the end instead of exiting with code 0')
        self.transport: str = declare_fixed(
            self, 'image_transport', 'raw', 'What is published: raw or compressed (JPEG)',
            constraints='raw | compressed')
        self._quality: int = declare_fixed(
            self, 'jpeg_quality', 90, 'JPEG quality of the compressed transport', (1, 100))
        self._frame_id: str = declare_fixed(
            self, 'frame_id', 'camera', 'frame_id of every header')
        self.wait_for_subscribers: int = declare_fixed(
            self, 'wait_for_subscribers', 0,
            'Number of subscriptions to wait for before the first frame',
            (0, 1000))
        self.reconnect_s: float = declare_fixed(
            self, 'reconnect_s', 10.0,
            'Seconds of attempts to open a device again after it stops delivering pictures; 0.0: '
            'no attempt', (0.0, 3600.0))
        self.report: str = declare_fixed(
            self, 'report', '',
            'File for the number of frames and the rate, written as JSON at the end; empty: none')
        warn_of_unknown_parameters(self)
        if self.transport not in ('raw', 'compressed'):
            raise SourceError(
                f"image_transport: '{cut(self.transport)}' is neither 'raw' nor 'compressed'")
        compressed = self.transport == 'compressed'
        self._message = CompressedImage() if compressed else Image()
        self._message.header.frame_id = self._frame_id
        self._pixels: np.ndarray = np.empty((0, 0, 3), np.uint8)
        try:
            self.images = self.create_publisher(
                type(self._message), 'image_raw/compressed' if compressed else 'image_raw',
                IMAGE_QOS, qos_overriding_options=QoSOverridingOptions.with_default_policies())
        except RuntimeError as error:
            raise SourceError(f'qos_overrides: {error}') from None
        self.published = 0

    def prepare(self, picture: np.ndarray) -> None:
        """
        Put `picture` (BGR, uint8, (H, W, 3)) into the message that `publish` sends next.

        The message and its buffer are reused, because `publish` serialises at once. rclpy checks
        each byte of any type but array.array. Raises SourceError if JPEG encoding fails.
        """
        if self.transport == 'compressed':
            try:
                encoded = encode_jpeg(picture, self._quality)
            except FrameError as error:
                raise SourceError(f'{self.source}: {error}') from None
            self._message.format = 'bgr8; jpeg compressed bgr8'
            self._message.data = array('B', encoded.tobytes())
            return
        if picture.shape != self._pixels.shape:
            self._message.height, self._message.width = picture.shape[:2]
            self._message.encoding = 'bgr8'
            self._message.step = 3 * picture.shape[1]
            self._message.data = array('B', bytes(picture.size))
            self._pixels = np.frombuffer(self._message.data, np.uint8).reshape(picture.shape)
        np.copyto(self._pixels, picture)

    def publish(self, late_s: float = 0.0) -> None:
        """Send the prepared message; its stamp is `late_s` seconds before now."""
        # Simulated time starts at 0, and stamps are not negative.
        stamp_ns = max(0, self.get_clock().now().nanoseconds - int(late_s * 1e9))
        self._message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
        self.images.publish(self._message)
        self.published += 1

    def write_report(self, source: VideoSource, rate: float | None) -> None:
        """Write the file `report` if the parameter is set; raises SourceError if that fails."""
        if not self.report:
            return
        try:
            write_json(Path(self.report), {
                'source': source.name, 'published': self.published, 'rate': rate,
                'loss': source.loss()}, indent=None)
        except OSError as error:
            raise SourceError(f'report: {cut(self.report)}: {error.strerror or error}') from None


class _Player:
    """Publishes the pictures of the source at the right times."""

    def __init__(self, node: CameraNode, source: VideoSource, stop: StopSignal) -> None:
        self._node = node
        self._source = source
        self._stop = stop
        self._executor = GuardedExecutor('camera')
        self._executor.add_node(node)

    def wait_for_subscribers(self) -> None:
        """Spin until enough subscriptions are matched or a signal arrives."""
        wanted = self._node.wait_for_subscribers
        if not wanted:
            return
        self._node.get_logger().info(
            f'waiting for {wanted} subscription(s) of {self._node.images.topic_name}')
        while not self._stop and self._node.images.get_subscription_count() < wanted:
            self._executor.spin_once(timeout_sec=0.02)
        self.spin_until(time.monotonic() + SETTLE_S)

    def spin_until(self, instant: float) -> None:
        """Spin until `instant`, seconds of the steady clock, or until a signal arrives."""
        while not self._stop:
            remaining = instant - time.monotonic()
            if remaining <= 0:
                return
            self._executor.spin_once(timeout_sec=min(remaining, SIGNAL_LATENCY_S))

    def play_live(self, device: Device) -> None:
        """Publish each picture of the device when it arrives."""
        while not self._stop:
            picture: np.ndarray | None
            try:
                picture = device.read()
            except SourceError as error:
                picture = self._picture_after(error, device)
            if picture is None:
                return
            taken = time.monotonic()
            self._node.prepare(picture)
            self._node.publish(late_s=time.monotonic() - taken)
            self._executor.spin_once(timeout_sec=0)

    def _picture_after(self, outage: SourceError, device: Device) -> np.ndarray | None:
        """
        Open a stopped device again and return its next picture; None after a signal.

        Raises SourceError if no picture comes within `reconnect_s`, or if none ever came.
        """
        limit_s, log = self._node.reconnect_s, self._node.get_logger()
        if not (limit_s and self._node.published):
            raise outage
        log.warning(f'{outage}; trying for {limit_s:g} s to open it again')
        began, pause = time.monotonic(), FIRST_PAUSE_S
        while True:
            self.spin_until(min(time.monotonic() + pause, began + limit_s))
            if self._stop:
                return None
            try:
                device.reopen()
                picture = device.read()
            except SourceError as error:
                if time.monotonic() - began >= limit_s:
                    raise SourceError(
                        f'{outage} and did not come back within {limit_s:g} s ({error})') from None
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                log.info(f'{device.name}: delivers pictures again, '
                         f'after {time.monotonic() - began:.1f} s')
                return picture

    def play(self, rate: float) -> None:
        """Publish a recording at `rate`, Hz; each picture is prepared before its due time."""
        schedule = FrameSchedule(rate, time.monotonic())
        while not self._stop:
            picture = self._source.read()
            if picture is None:
                if not self._node.loop:
                    break
                loss = self._source.loss()
                if loss and self._node.published == 0:
                    raise SourceError(loss)
                self._source.rewind()
                continue
            self._node.prepare(picture)
            self.spin_until(schedule.due)
            if self._stop:
                break
            self._node.publish(schedule.advance(time.monotonic()))
        if schedule.stalls:
            self._node.get_logger().warning(
                f'{self._source.name}: read too slowly for {rate:g} Hz; '
                f'{schedule.stalls} frame(s) were sent late by more than a period')
        # The last picture also lasts a period; the receivers process it in this time.
        self.spin_until(schedule.due)
        self._node.images.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_S))


def run(stop: StopSignal) -> int:
    """Play the source until its end or a signal; raises SourceError if it is unreadable."""
    node = CameraNode()
    try:
        source = open_source(node.source, node.rate)
        try:
            _play(node, source, stop)
        finally:
            source.close()
    finally:
        node.destroy_node()
    return 0


def _play(node: CameraNode, source: VideoSource, stop: StopSignal) -> None:
    rate = node.rate or source.rate
    if not (rate or source.live):
        raise SourceError(f'{source.name}: has no rate of its own; set one, '
                          'for example rate:=10.0')
    player = _Player(node, source, stop)
    player.wait_for_subscribers()
    node.get_logger().info(
        f'publishing {source.name} on {node.images.topic_name}'
        + (f' at {rate:g} Hz' if rate else ''))
    if isinstance(source, Device):
        player.play_live(source)
    elif rate:
        player.play(rate)
    loss = source.loss()
    if loss and not stop:
        node.get_logger().warning(loss)
    node.write_report(source, rate)
    node.get_logger().info(f'{node.published} frames published')
