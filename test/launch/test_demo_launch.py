# SPDX-License-Identifier: Apache-2.0
"""Check demo.launch.py where the launch system is installed."""
import importlib.util
import os
from pathlib import Path
import shutil
import subprocess
from typing import Any

import pytest

launch = pytest.importorskip('launch')
launch_ros = pytest.importorskip('launch_ros')
launch_actions = pytest.importorskip('launch.actions')
launch_ros_actions = pytest.importorskip('launch_ros.actions')

LAUNCH_FILE = Path(__file__).resolve().parents[2] / 'launch' / 'demo.launch.py'
ROS2 = shutil.which('ros2')


@pytest.fixture
def entities() -> list[Any]:
    """Return what the launch file describes."""
    spec = importlib.util.spec_from_file_location('demo_launch', LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description().entities


def of_kind(entities: list[Any], kind: type) -> list[Any]:
    """Return the entities of a class."""
    return [entity for entity in entities if isinstance(entity, kind)]


def test_every_argument_is_described(entities: list[Any]) -> None:
    declared = of_kind(entities, launch_actions.DeclareLaunchArgument)
    assert {argument.name for argument in declared} == {
        'video', 'rate', 'loop', 'output', 'image_transport', 'namespace', 'threshold', 'device',
        'checkpoint', 'log_level'}
    for argument in declared:
        assert len(argument.description) > 10, argument.name


def test_camera_recorder_and_detector_are_started(entities: list[Any]) -> None:
    nodes = of_kind(entities, launch_ros_actions.Node)
    assert sorted(node.node_executable for node in nodes) == ['camera_node', 'recorder_node']
    assert len(of_kind(entities, launch_actions.IncludeLaunchDescription)) == 1


def run_launch(*arguments: str) -> str:
    """Launch the demo with these arguments until it ends; return all that was said."""
    assert ROS2 is not None
    result = subprocess.run(
        [ROS2, 'launch', str(LAUNCH_FILE), *arguments], env=os.environ, text=True, timeout=240,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return result.stdout


@pytest.mark.skipif(ROS2 is None, reason='ros2 is not installed')
def test_arguments_are_shown() -> None:
    said = run_launch('--show-args')
    assert "'video'" in said
    assert 'no_description_given' not in said


@pytest.mark.slow
@pytest.mark.skipif(ROS2 is None, reason='ros2 is not installed')
def test_missing_video_ends_the_launch_with_the_cameras_line(tmp_path: Path) -> None:
    said = run_launch('video:=/nowhere/clip.mp4', f'output:={tmp_path / "recording"}')
    assert 'no such file' in said, said
    assert 'exit code 2' in said, said
    assert not (tmp_path / 'recording' / 'annotated.mp4').exists()
