# SPDX-License-Identifier: Apache-2.0
"""Record cameras that publish reliably and others that publish best effort."""
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
    """Return a detector on the graph of this test; its camera comes when the test calls it."""
    with on_stage() as stage:
        stage.destroy_publisher(stage.images)
        yield stage


def enter(stage: Stage, reliability: ReliabilityPolicy) -> None:
    """Let a camera come that publishes in this way."""
    stage.images = stage.create_publisher(
        Image, 'image_raw', QoSProfile(depth=10, reliability=reliability))


def asked(stage: Stage) -> list[ReliabilityPolicy]:
    """Return how the images are subscribed."""
    return [info.qos_profile.reliability
            for info in stage.get_subscriptions_info_by_topic('/image_raw')]


@pytest.mark.parametrize('first', ['camera', 'recorder'])
def test_best_effort_camera_is_recorded_without_being_told(
        stage: Stage, tmp_path: Path, first: str) -> None:
    if first == 'camera':
        enter(stage, ReliabilityPolicy.BEST_EFFORT)
    recorder = start(tmp_path / 'there', rate=RATE, stop_with_camera='true')
    if first == 'recorder':
        stage.wait_until(lambda: asked(stage) == [ReliabilityPolicy.RELIABLE])
        enter(stage, ReliabilityPolicy.BEST_EFFORT)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    # The graph may list the subscription that was given up a moment longer.
    stage.wait_until(lambda: asked(stage) == [ReliabilityPolicy.BEST_EFFORT])
    # Best effort: one image or the other may be lost.
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
def test_override_for_reliable_wins_and_the_log_says_what_it_costs(
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


def test_override_for_best_effort_wins(stage: Stage, tmp_path: Path) -> None:
    enter(stage, ReliabilityPolicy.RELIABLE)
    recorder = start(tmp_path / 'there', **{OVERRIDE: 'best_effort'})
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    assert asked(stage) == [ReliabilityPolicy.BEST_EFFORT]
    recorder.send_signal(signal.SIGINT)
    code, _, log = finish(recorder)
    assert code == 0 and LINE not in log, log
