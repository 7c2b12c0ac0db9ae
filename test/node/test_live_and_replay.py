# SPDX-License-Identifier: Apache-2.0
"""Check that live node and replay give the same boxes and decisions on the same images."""
from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
import subprocess
import sys
from typing import Any

import cv2
from forecast_detector_ros.detector.policy import AlternatePolicy, parse_policy
from forecast_detector_ros.jobs.engine import Interrupt
from forecast_detector_ros.node.camera import IMAGE_QOS
from forecast_detector_ros.recording.output_files import bag_qos, BagFile, vision_typestore
from forecast_detector_ros.recording.result_messages import read_decision
from forecast_detector_ros.replay.bag_replay import BagJob, prepare_replay, ReplayOptions
import numpy as np
import pytest
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from .graph import Graph, picture_message

COUNT = 12
#: Measured values, which differ from run to run.
MEASURED = ('latency_ms', 'preprocess_ms', 'inference_ms', 'image_age_ms')


def write(path: Path, sent: Sequence[tuple[str, Any]]) -> Path:
    """Write messages into a bag, ten per second."""
    bag = BagFile(path)
    kinds = {topic: f'sensor_msgs/msg/{type(message).__name__}' for topic, message in sent}
    for topic, kind in kinds.items():
        bag.connect(topic, kind, vision_typestore(), bag_qos(1, 10, 1, 2))
    for number, (topic, message) in enumerate(sent):
        bag.write(topic, serialize_message(message), 10**12 + number * 10**8)
    bag.close()
    return path


def replay(path: Path, checkpoint: Path, policy: Any, ahead: bool = False) -> list[Any]:
    """Replay a bag; return its detections and decisions."""
    folder = path.with_name(f'{path.name} {policy}')
    work = prepare_replay(ReplayOptions(checkpoint, changes={'policy': policy}, ahead=ahead))
    work(BagJob(path, 'replayed', folder), lambda done, total: None, Interrupt())
    return read(folder / 'bag')


def read(path: Path, topics: Sequence[str] = ('/detections', '/decision')) -> list[Any]:
    """Return the messages in a bag, in the order in which they were written."""
    with AnyReader([path], default_typestore=vision_typestore()) as reader:
        return [reader.deserialize(data, connection.msgtype)
                for connection, _, data in reader.messages()
                if connection.topic in topics]


def told(messages: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return the contents of detections, and of decisions without measured values."""
    boxes, decisions = [], []
    for message in messages:
        header = (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id)
        if hasattr(message, 'detections'):
            boxes.append((header, [
                (item.bbox.center.position.x, item.bbox.center.position.y, item.bbox.size_x,
                 item.bbox.size_y, item.results[0].hypothesis.class_id,
                 item.results[0].hypothesis.score, item.id) for item in message.detections]))
        else:
            (status,) = message.status
            decisions.append((header, bytes([status.level[0] if isinstance(
                status.level, bytes) else status.level]), status.name, status.message,
                status.hardware_id, [(pair.key, pair.value) for pair in status.values
                                     if pair.key not in MEASURED]))
    return boxes, decisions


def middle_policy(path: Path, checkpoint: Path) -> Any:
    """Return a threshold policy that forecasts after half of a bag's read frames."""
    decisions = [read_decision(message) for message in
                 replay(path, checkpoint, AlternatePolicy(1)) if hasattr(message, 'status')]
    # The confidence in a decision is that of the frame before.
    confidence = [after['confidence'] for before, after in zip(decisions, decisions[1:])
                  if before['kind'] == 'read' and after['confidence'] is not None]
    return parse_policy(f'threshold({np.median(confidence):.6f})')


def compare(live: Sequence[Any], offline: Sequence[Any], answers: int) -> set[tuple[str, str]]:
    """Assert that both are equal; return the pairs of decision and reason that occurred."""
    live_boxes, live_decisions = told(live)
    boxes, decisions = told(offline)
    assert len(live_decisions) == len(live_boxes) == answers
    assert live_decisions == decisions
    assert live_boxes == boxes
    assert sum(len(items) for _, items in boxes) > answers
    values = [dict(item[-1]) for item in decisions]
    return {(item['decision'], item['reason']) for item in values}


@pytest.mark.slow
def test_recorder_and_replay_are_equal(active: Callable[..., Graph], tmp_path: Path) -> None:
    # The images have a jump in time, a change of size, and a malformed image.
    images = [picture_message(n, stamp_ns=10**12 + n * 10**8 + (n > 7) * 3 * 10**9,
                              size=(60, 90) if n > 9 else (48, 80)) for n in range(COUNT)]
    images[5].data = array('B', bytes(10))
    sent = [('/image_raw', message) for message in images]
    bag = write(tmp_path / 'input', sent)
    graph = active(backend='auto')
    policy = middle_policy(bag, graph.checkpoint)
    (answer,) = graph.detector.set_parameters([Parameter('policy', value=str(policy))])
    assert answer.successful
    recorder = subprocess.Popen(
        [sys.executable, '-m', 'forecast_detector_ros.node.recorder_node', '--ros-args', '-p',
         f'output:={tmp_path / "recording"}', '-p', 'stop_with_camera:=true'],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        camera = graph.client.create_publisher(Image, 'image_raw', IMAGE_QOS)
        graph.spin_until(lambda: camera.get_subscription_count() == 2
                         and graph.detector.count_publishers('image_raw') > 0
                         and all(graph.detector.count_subscribers(topic) == 2
                                 for topic in ('detections', 'decision')))
        # Endpoints are counted shortly before they are matched.
        graph.spin_for(1.0)
        for number, message in enumerate(images):
            if number == 5:
                # The malformed image gets no answer, and the next one must not replace it.
                camera.publish(message)
                graph.spin_for(0.5)
            else:
                graph.send(camera, message)
        # The recorder ends by itself after the last answers.
        graph.client.destroy_publisher(camera)
        graph.spin_until(lambda: recorder.poll() is not None)
        assert recorder.returncode == 0, recorder.stderr and recorder.stderr.read()
    finally:
        recorder.kill()
        recorder.communicate()
    offline = replay(bag, graph.checkpoint, policy)
    reasons = compare(read(tmp_path / 'recording/bag'), offline, COUNT - 1)
    compare([*graph.detections, *graph.decisions], offline, COUNT - 1)
    assert {('read', 'first_frame'), ('read', 'gap'), ('read', 'size_changed'),
            ('forecast', 'scheduler')} <= reasons


def test_two_compressed_cameras(active: Callable[..., Graph], tmp_path: Path) -> None:
    sent = []
    for number in range(COUNT):
        side = ('left', 'right')[number % 2]
        header = picture_message(number).header
        header.frame_id = side
        pixels = np.random.default_rng(number).integers(0, 256, (48, 80, 3), np.uint8)
        data = cv2.imencode('.png', pixels)[1].tobytes()
        sent.append((f'/{side}/image_raw/compressed', CompressedImage(
            header=header, format='png', data=array('B', data))))
    bag = write(tmp_path / 'input', sent)
    graph = active(image_topics=['/left/image_raw', '/right/image_raw'],
                   image_transport='compressed', policy='alternate(2)', backend='auto',
                   publish_ahead=True)
    heard = graph.listen(Detection2DArray, 'detections_ahead')
    cameras = {topic: graph.camera(topic) for topic in dict(sent)}
    for topic, message in sent:
        graph.send(cameras[topic], message)
    offline = replay(bag, graph.checkpoint, AlternatePolicy(2), ahead=True)
    reasons = compare([*graph.detections, *graph.decisions], offline, COUNT)
    # Each camera has a message from its fourth image on.
    graph.spin_until(lambda: len(heard) == COUNT - 6)
    foreseen = read(tmp_path / 'input alternate(2)' / 'bag', ['/detections_ahead'])
    assert told(heard) == told(foreseen)
    assert all(message.detections for message in heard)
    assert reasons == {('read', 'first_frame'), ('forecast', 'policy'), ('read', 'policy')}
