# SPDX-License-Identifier: Apache-2.0
"""Record cameras that publish reliably or best effort."""
from collections.abc import Iterator
from pathlib import Path
from select import select
import signal

import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from .recorder_stage import finish, on_stage, RATE, Stage, start

OVERRIDE = 'qos_overrides./image_raw.subscription.reliability'
LINE = '/image_raw: the camera publishes best effort'


@pytest.fixture
def stage(ros_domain: int) -> Iterator[Stage]:
    """Return a detector, still without a camera, on the graph of this test."""
    with on_stage() as stage:
        stage.destroy_publisher(stage.images)
        yield stage


def enter(stage: Stage, reliability: ReliabilityPolicy) -> None:
    """Add a camera that publishes with this reliability."""
    stage.images = stage.create_publisher(
        Image, 'image_raw', QoSProfile(depth=10, reliability=reliability))


def asked(stage: Stage) -> list[ReliabilityPolicy]:
    """Return the reliability of each subscription to the images."""
    return [info.qos_profile.reliability
            for info in stage.get_subscriptions_info_by_topic('/image_raw')]


@pytest.mark.parametrize('first', ['camera', 'recorder'])
def test_best_effort_camera_is_recorded_without_an_override(
        stage: Stage, tmp_path: Path, first: str) -> None:
    if first == 'camera':
        enter(stage, ReliabilityPolicy.BEST_EFFORT)
    recorder = start(tmp_path / 'there', rate=RATE, stop_with_camera='true')
    if first == 'recorder':
        stage.wait_until(lambda: asked(stage) == [ReliabilityPolicy.RELIABLE])
        enter(stage, ReliabilityPolicy.BEST_EFFORT)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    # The graph may list the first subscription for a moment after its end.
    stage.wait_until(lambda: asked(stage) == [ReliabilityPolicy.BEST_EFFORT])
    # With best effort, some images may be lost.
    index = 0
    while not select([recorder.stdout], [], [], 0.02)[0]:
        stage.show(index)
        stage.answer(index, 'read')
        index += 1
        assert index < 5000, 'nothing is recorded'
    stage.leave()
    stage.wait_until(lambda: recorder.poll() is not None)
    code, frames, log = finish(recorder)
    assert code == 0, log
    assert len(frames) > 0, log
    assert log.count(LINE) == 1, log
    assert 'incompatible QoS' not in log, log


def test_reliable_camera_is_subscribed_reliably(stage: Stage, tmp_path: Path) -> None:
    enter(stage, ReliabilityPolicy.RELIABLE)
    recorder = start(tmp_path / 'there')
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    assert asked(stage) == [ReliabilityPolicy.RELIABLE]
    recorder.send_signal(signal.SIGINT)
    code, _, log = finish(recorder)
    assert code == 0 and LINE not in log, log


@pytest.mark.parametrize('first', ['camera', 'recorder'])
def test_override_for_reliable_has_priority_and_a_warning(
        stage: Stage, tmp_path: Path, first: str) -> None:
    if first == 'camera':
        enter(stage, ReliabilityPolicy.BEST_EFFORT)
    recorder = start(tmp_path / 'there', **{OVERRIDE: 'reliable'})
    stage.wait_until(lambda: asked(stage) == [ReliabilityPolicy.RELIABLE])
    if first == 'recorder':
        enter(stage, ReliabilityPolicy.BEST_EFFORT)
    assert recorder.stderr is not None
    for line in recorder.stderr:
        if 'qos_overrides asks for reliable' in line:
            break
    assert asked(stage) == [ReliabilityPolicy.RELIABLE]
    recorder.send_signal(signal.SIGINT)
    code, frames, log = finish(recorder)
    assert (code, frames) == (0, []), log


def test_override_for_best_effort_has_priority(stage: Stage, tmp_path: Path) -> None:
    enter(stage, ReliabilityPolicy.RELIABLE)
    recorder = start(tmp_path / 'there', **{OVERRIDE: 'best_effort'})
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    assert asked(stage) == [ReliabilityPolicy.BEST_EFFORT]
    recorder.send_signal(signal.SIGINT)
    code, _, log = finish(recorder)
    assert code == 0 and LINE not in log, log
