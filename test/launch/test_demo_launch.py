# SPDX-License-Identifier: Apache-2.0
"""Check demo.launch.py where the launch system is installed."""
import importlib.util
from pathlib import Path
import subprocess
import sys

import pytest

launch = pytest.importorskip('launch')
launch_ros = pytest.importorskip('launch_ros')

LAUNCH_FILE = Path(__file__).resolve().parents[2] / 'launch' / 'demo.launch.py'


@pytest.fixture
def description() -> 'launch.LaunchDescription':
    """Return what the launch file describes."""
    spec = importlib.util.spec_from_file_location('demo_launch', LAUNCH_FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def test_every_argument_is_described(description: 'launch.LaunchDescription') -> None:
    declared = [entity for entity in description.entities
                if isinstance(entity, launch.actions.DeclareLaunchArgument)]
    assert {argument.name for argument in declared} == {
        'video', 'rate', 'loop', 'output', 'image_transport', 'namespace', 'threshold', 'device',
        'checkpoint', 'log_level'}
    for argument in declared:
        assert len(argument.description) > 10, argument.name


def test_camera_recorder_and_detector_are_started(description: 'launch.LaunchDescription') -> None:
    nodes = [entity for entity in description.entities if isinstance(entity, launch_ros.actions.Node)]
    assert sorted(node.node_executable for node in nodes) == ['camera_node', 'recorder_node']
    included = [entity for entity in description.entities
                if isinstance(entity, Includelaunch.LaunchDescription)]
    assert len(included) == 1


def test_missing_video_ends_the_launch_with_the_cameras_line(tmp_path: Path) -> None:
    pytest.importorskip('ros2launch')
    result = subprocess.run(
        [sys.executable, '-m', 'ros2cli.cli', 'launch', str(LAUNCH_FILE),
         'video:=/nowhere/clip.mp4', f'output:={tmp_path / "recording"}'],
        capture_output=True, text=True, timeout=120, check=False)
    said = result.stdout + result.stderr
    assert 'no such file' in said, said
    assert not (tmp_path / 'recording' / 'annotated.mp4').exists()
