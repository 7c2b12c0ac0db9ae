# SPDX-License-Identifier: Apache-2.0
"""Check demo.launch.py with the installed launch system."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from ..helpers.pages import keys, section

pytest.importorskip('launch')
pytest.importorskip('launch_ros')
launch_actions = pytest.importorskip('launch.actions')
launch_ros_actions = pytest.importorskip('launch_ros.actions')


@pytest.fixture
def entities(launch_file: Callable[[str], ModuleType]) -> list[Any]:
    """Return the entities that the launch file describes."""
    return launch_file('demo').generate_launch_description().entities


def of_kind(entities: list[Any], kind: type) -> list[Any]:
    """Return the entities of a class."""
    return [entity for entity in entities if isinstance(entity, kind)]


def test_every_argument_is_described_and_on_the_page(entities: list[Any]) -> None:
    declared = of_kind(entities, launch_actions.DeclareLaunchArgument)
    assert sorted(argument.name for argument in declared) == sorted(keys(
        section('reference/ros.md', 'Launch: `demo.launch.py`')))
    for argument in declared:
        assert len(argument.description) > 10, argument.name


def test_camera_recorder_and_detector_are_started(entities: list[Any]) -> None:
    nodes = of_kind(entities, launch_ros_actions.Node)
    assert sorted(node.node_executable for node in nodes) == ['camera_node', 'recorder_node']
    assert len(of_kind(entities, launch_actions.IncludeLaunchDescription)) == 1


def test_arguments_are_shown(run_launch: Callable[..., str]) -> None:
    said = run_launch('demo', '--show-args')
    assert "'video'" in said
    assert 'no_description_given' not in said


@pytest.mark.slow
def test_missing_video_ends_the_launch_with_the_cameras_line(
        run_launch: Callable[..., str], tmp_path: Path) -> None:
    said = run_launch('demo', 'video:=/nowhere/clip.mp4', f'output:={tmp_path / "recording"}')
    assert 'no such file' in said, said
    assert 'exit code 2' in said, said
    assert not (tmp_path / 'recording' / 'annotated.mkv').exists()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder with three pictures."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f'{number}.png'), np.full((48, 80, 3), 80 * number, np.uint8))
    return folder


@pytest.mark.slow
def test_detector_that_fails_ends_the_launch(
        run_launch: Callable[..., str], pictures: Path, tmp_path: Path) -> None:
    said = run_launch('demo', f'video:={pictures}', 'rate:=1', 'backend:=slowest',
                      f'output:={tmp_path / "recording"}')
    assert "cannot configure: backend is 'slowest'" in said, said
    assert 'exit code 1' in said, said


@pytest.mark.slow
def test_every_picture_is_recorded(
        run_launch: Callable[..., str], pictures: Path, tmp_path: Path) -> None:
    said = run_launch('demo', f'video:={pictures}', 'rate:=0.5', 'namespace:=robot',
                      'image_transport:=compressed', 'backend:=torch', 'threshold:=1.0',
                      f'output:={tmp_path / "recording"}')
    assert 'torch on cpu' in said, said
    assert 'threshold(1.0)' in said, said
    assert '3 frames (0 dropped)' in said, said
    assert '3 /robot/detections, 3 /robot/decision' in said, said
    assert (tmp_path / 'recording' / 'annotated.mkv').is_file()
    assert 'died' not in said, said
