# SPDX-License-Identifier: Apache-2.0
"""Detector nodes in their own processes, and a client that sends pictures and gets answers."""
from __future__ import annotations

from collections.abc import Callable, Mapping
import os
from pathlib import Path
import re
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from forecast_detector_ros.cli.graph import Child, environment, node_command
from lifecycle_msgs.srv import ChangeState, GetState
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from .judgement import Answers, Sample

PATIENCE_S = 300.0  #: Longest time to wait for an answer, even on a busy machine

#: Depths of the queues of pictures and of answers, so that none is lost.
DEPTH, ANSWERS = 500, 50

NAME = 'forecast_detector'

CONFIGURE, ACTIVATE = 1, 3
UNCONFIGURED, INACTIVE, ACTIVE = 1, 2, 3  #: Transitions and states of lifecycle_msgs

_POLL_S = 0.05
_SAMPLE_S = 1.0  #: Seconds between two samples of the node's memory

_SETTLE_S = 5.0

_KNOCK_S = 0.2  #: Seconds between two pictures to a node that may not receive yet


_OWN_MEMORY = re.compile(r'^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB', re.MULTILINE)


class TrialError(Exception):
    """A trial cannot continue; the message is one line."""


def reliable(transport: str, namespace: str) -> dict[str, object]:
    """Return parameters with which a node and its camera lose no message."""
    images = f'{namespace}/image_raw' + '/compressed' * (transport == 'compressed')
    ends = {f'{images}.subscription': DEPTH, f'{namespace}/detections.publisher': ANSWERS,
            f'{namespace}/decision.publisher': ANSWERS}
    return {f'qos_overrides.{end}.{policy}': value for end, depth in ends.items()
            for policy, value in (('reliability', 'reliable'), ('depth', depth))}


def set_environment(domain: int | None, folder: Path) -> int:
    """Give this process and its children their own ROS graph; return its domain."""
    os.environ.update(environment(folder, domain))
    return int(os.environ['ROS_DOMAIN_ID'])


class NodeProcess(Child):
    """A detector node that configures and activates itself."""

    def __init__(self, namespace: str, folder: Path, parameters: Mapping[str, object]) -> None:
        """Start it in `namespace` with `parameters`; its log goes into `folder`."""
        command = node_command('detector_node', {'autostart': 'true', **parameters})
        super().__init__('detector', [*command, '-r', f'__ns:={namespace}'],
                         folder / f'{namespace.strip("/")}.log', os.environ)

    def memory(self) -> float:
        """
        Return the memory in bytes, without mapped files; 0 if the process has ended.

        The number of pages of libraries depends on other programs (proc(5), status).
        """
        try:
            text = Path(f'/proc/{self.pid}/status').read_text()
        except OSError:
            return 0.0
        return 1024.0 * sum(map(int, _OWN_MEMORY.findall(text)))

    def text(self) -> str:
        """Return its output so far."""
        return self.log.read_text(errors='replace')


class Client:
    """The trial's own end of the graph."""

    def __init__(self) -> None:
        """Join the graph of the environment."""
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node('trial', start_parameter_services=False, enable_rosout=False)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def spin_until(self, done: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
        """Spin until `done`; return whether that was in time."""
        deadline = monotonic() + patience_s
        while not done():
            left_s = deadline - monotonic()
            if left_s <= 0.0:
                return False
            self._executor.spin_once(timeout_sec=min(left_s, _POLL_S))
        return True

    def spin_for(self, seconds: float) -> None:
        """Receive messages for a while."""
        self.spin_until(lambda: False, seconds)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


class Subject:
    """A node under trial, as the client sees it."""

    def __init__(self, client: Client, process: NodeProcess, namespace: str, transport: str,
                 depth: int = DEPTH) -> None:
        """Subscribe to the node in `namespace`; its camera keeps `depth` pictures."""
        self.client, self.process, self.transport = client, process, transport
        self.namespace = namespace
        self.answers = Answers()
        self.silent: list[str] = []
        self.slowest_request_s = 0.0
        self.slowest_transition_s = 0.0
        self.memory: list[Sample] = []
        #: Called with the name of a picture, the topic, and the answer.
        self.on_answer: Callable[[str, str, Any], None] | None = None
        self._clients: dict[str, Any] = {}
        compressed = transport == 'compressed'
        qos = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)
        node = client.node
        self.camera = node.create_publisher(
            CompressedImage if compressed else Image,
            f'{namespace}/image_raw' + '/compressed' * compressed, qos)
        listen = QoSProfile(depth=ANSWERS, reliability=ReliabilityPolicy.RELIABLE)
        for kind, topic in ((Detection2DArray, 'detections'), (DiagnosticArray, 'decision')):
            node.create_subscription(kind, f'{namespace}/{topic}', self._hearer(topic), listen)

    def _hearer(self, topic: str) -> Callable[[Any], None]:
        def heard(message: Any) -> None:
            picture = message.header.frame_id
            self.answers.hear(picture, topic, monotonic())
            if self.on_answer is not None:
                self.on_answer(picture, topic, message)
        return heard

    def expect(self, message: Any) -> str:
        """Send a picture that must be answered; return its name, which is its frame_id."""
        picture = message.header.frame_id
        self.answers.expect(picture, monotonic())
        self.camera.publish(message)
        return picture

    def wait_for(self, picture: str) -> None:
        """Wait for the answers to a picture; raises TrialError if they do not come."""
        if not self.client.spin_until(lambda: not self.answers.waits_for(picture)
                                      or self.process.exit_code is not None):
            self.answers.give_up()
            raise TrialError(f'no answer to {picture} within {PATIENCE_S:g} s')
        self.check()

    def knock(self, make: Callable[[], Any]) -> None:
        """Send pictures of `make` until one is answered; later pictures are not lost."""
        self.client.spin_until(lambda: self.camera.get_subscription_count() > 0
                               or self.process.exit_code is not None)
        deadline, sent, before = monotonic() + PATIENCE_S, [], self.answers.complete
        while self.answers.complete == before:
            self.check()
            if monotonic() > deadline:
                raise TrialError('the node answers no picture')
            sent.append(self.expect(make()))
            self.client.spin_until(lambda: self.answers.complete > before, _KNOCK_S)
        # Answers come in order, so the newest picture is answered last.
        self.client.spin_until(lambda: not self.answers.waits_for(sent[-1]), _SETTLE_S)
        for picture in sent:
            self.answers.forgive(picture)

    def request(self, kind: type, name: str, request: Any, timed: bool = True) -> Any:
        """Call a service of the node; return its response, or None without one."""
        response, took = self._call(kind, f'{NAME}/{name}', request)
        if timed:
            self.slowest_request_s = max(self.slowest_request_s, took)
        return response

    def _call(self, kind: type, name: str, request: Any) -> tuple[Any, float]:
        if name not in self._clients:
            self._clients[name] = self.client.node.create_client(
                kind, f'{self.namespace}/{name}')
        service = self._clients[name]
        if not self.client.spin_until(lambda: service.service_is_ready()
                                      or self.process.exit_code is not None):
            raise TrialError(f'the service {name} is not offered')
        begin = monotonic()
        future = service.call_async(request)
        if not self.client.spin_until(lambda: future.done()
                                      or self.process.exit_code is not None):
            self.silent.append(f'{name} {request}'[:200])
            service.remove_pending_request(future)
        self.check()
        return future.result() if future.done() else None, monotonic() - begin

    def transition(self, request: ChangeState.Request) -> Any:
        """Request a transition, which may take as long as loading a network."""
        response, took = self._call(ChangeState, f'{NAME}/change_state', request)
        self.slowest_transition_s = max(self.slowest_transition_s, took)
        return response

    def state(self) -> int:
        """Return the number of the node's state."""
        response = self.request(GetState, 'get_state', GetState.Request())
        return 0 if response is None else response.current_state.id

    def bring_to_active(self) -> None:
        """Configure and activate as needed; raises TrialError if that fails."""
        for before, number in ((UNCONFIGURED, CONFIGURE), (INACTIVE, ACTIVATE)):
            if self.state() == before:
                request = ChangeState.Request()
                request.transition.id = number
                self.transition(request)
        state = self.state()
        if state != ACTIVE:
            raise TrialError(f'the node is in state {state} and cannot be brought to active')

    def sample(self) -> None:
        """Sample the node's memory, at most once per second."""
        now = monotonic()
        if not self.memory or now - self.memory[-1].time_s >= _SAMPLE_S:
            size = self.process.memory()
            if size:
                self.memory.append(Sample(now, size))

    def check(self) -> None:
        """Raise TrialError if the process has ended."""
        code = self.process.exit_code
        if code is not None:
            raise TrialError(f'the process has ended with exit code {code}')
