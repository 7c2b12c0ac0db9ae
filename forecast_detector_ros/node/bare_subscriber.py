# SPDX-License-Identifier: Apache-2.0
"""
A node that receives images and does not process them, for `benchmark`.

It shows the cost of receiving alone, with the detector's subscription and allocator settings.
"""
from __future__ import annotations

import sys
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from .program import declare_fixed, GuardedExecutor, run_program, SafeParameterService
from .stop_signal import StopSignal
from ..detector.host import keep_large_blocks

_NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)

_POLL_S = 0.1


class BareSubscriber(Node):
    """Counts the images that it receives."""

    def __init__(self) -> None:
        super().__init__('bare_subscriber', start_parameter_services=False)
        self._parameter_services = SafeParameterService(self)
        transport = declare_fixed(self, 'image_transport', 'raw', 'raw or compressed')
        if declare_fixed(self, 'tune_allocator', True, 'As the parameter of the detector'):
            keep_large_blocks()
        compressed = transport == 'compressed'
        self.received = 0
        self.create_subscription(
            CompressedImage if compressed else Image,
            'image_raw/compressed' if compressed else 'image_raw', self._on_image, _NEWEST)

    def _on_image(self, message: Any) -> None:
        self.received += 1
        np.frombuffer(message.data, np.uint8)


def _run(stop: StopSignal) -> int:
    node = BareSubscriber()
    executor = GuardedExecutor('bare_subscriber')
    executor.add_node(node)
    try:
        while not stop:
            executor.spin_once(timeout_sec=_POLL_S)
    finally:
        executor.shutdown()
        node.destroy_node()
    return 0


def main(args: list[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; return the exit code."""
    return run_program('bare_subscriber', _run, args)


if __name__ == '__main__':
    sys.exit(main())
