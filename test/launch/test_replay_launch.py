# SPDX-License-Identifier: Apache-2.0
"""Check replay.launch.py with the installed launch system."""
from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rosbags.highlevel import AnyReader
import yaml

from ..helpers.bags import jpeg_message, write_bag
from ..helpers.pages import keys, section

launch = pytest.importorskip('launch')
launch_ros = pytest.importorskip('launch_ros')
launch_actions = pytest.importorskip('launch.actions')
launch_ros_actions = pytest.importorskip('launch_ros.actions')


@pytest.fixture
def module(launch_file: Callable[[str], ModuleType]) -> ModuleType:
    """Return the launch file as a module."""
    return launch_file('replay')


@pytest.fixture
def context(module: ModuleType) -> Any:
    """Return a launch context with the defaults of all arguments."""
    made = launch.LaunchContext()
    made.launch_configurations['params_file'] = 'parameters.yaml'
    for argument in module.arguments():
        if argument.name not in ('bag', 'params_file'):
            argument.execute(made)
    return made


def started(module: ModuleType, context: Any, **given: Any) -> list[Any]:
    """Return the entities that the launch file starts with these arguments."""
    context.launch_configurations.update({key: str(value) for key, value in given.items()})
    return module.replay(context)


def test_every_argument_is_described_and_on_the_page(module: ModuleType) -> None:
    declared = module.arguments()
    assert sorted(argument.name for argument in declared) == sorted(keys(
        section('guide/replay.md', 'Replay a bag live')))
    for argument in declared:
        assert len(argument.description) > 10, argument.name


def test_missing_bag_is_one_line(module: ModuleType, context: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match='bag: .*none: no such file or folder'):
        started(module, context, bag=tmp_path / 'none')


# YAML would read the first three as numbers and the next as a date.
@pytest.mark.parametrize('output', ['2026', '2024_10_05', '1.5', '2024-10-05', 'true', 'a: b'])
def test_recorder_listens_to_the_topic_of_the_bag(module: ModuleType, context: Any,
                                                  tmp_path: Path, output: str) -> None:
    entities = started(module, context, bag=tmp_path, image_topic='camera/image_raw',
                       image_transport='compressed', reliability='reliable',
                       use_sim_time='false', output=output)
    (recorder,) = (item for item in entities if isinstance(item, launch_ros_actions.Node))
    recorder._perform_substitutions(context)
    (file,) = (item[0] for item in recorder._Node__expanded_parameter_arguments)
    (section,) = yaml.safe_load(Path(file).read_text()).values()
    assert section['ros__parameters'] == {
        'image_transport': 'compressed', 'output': output, 'stop_with_camera': True,
        'use_sim_time': False,
        'qos_overrides./camera/image_raw/compressed.subscription.reliability': 'reliable'}
    assert ('image_raw', '/camera/image_raw') in recorder.expanded_remapping_rules
    assert len([item for item in entities
                if isinstance(item, launch_actions.IncludeLaunchDescription)]) == 1


@pytest.mark.parametrize('sim_time', ['true', 'false'])
def test_bag_is_played_once_both_listen(module: ModuleType, context: Any, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch, sim_time: str) -> None:
    made: list[Any] = []
    original = module._Start
    monkeypatch.setattr(module, '_Start', lambda player: made.append(original(player))
                        or made[-1])
    started(module, context, bag=tmp_path, use_sim_time=sim_time, play_rate='0.5',
            play_arguments='--loop --topics /a')
    (start,) = made

    def say(name: str, text: bytes) -> list[Any]:
        return start(SimpleNamespace(process_name=name, text=text))

    assert say('recorder_node-2', b'waiting for a detector') == []
    assert say('detector_node-1', b'recording nothing') == []
    assert say('recorder_node-2', b'[INFO] [recorder]: recording /image_raw into there') == []
    (player,) = say('detector_node-1', b'[INFO] [forecast_detector]: active: /image_raw -> x')
    command = [''.join(part.perform(context) for part in item) for item in player.cmd]
    assert command == ['ros2', 'bag', 'play', str(tmp_path), '--rate', '0.5', '--delay', '5.0',
                       *(['--clock'] if sim_time == 'true' else []), '--loop', '--topics', '/a']
    assert say('detector_node-1', b'active: again') == []


@pytest.mark.parametrize('code, ends', [(0, False), (1, True)])
def test_a_process_that_fails_ends_the_launch(module: ModuleType, context: Any, code: int,
                                              ends: bool) -> None:
    event = SimpleNamespace(returncode=code, process_name='ros2-3')
    assert bool(module._end_after_failure(event, context)) == ends


@pytest.fixture
def with_player(run_launch: Callable[..., str], tmp_path: Path) -> dict[str, str]:
    """Return the environment variables for `ros2 bag play`, or for a stand-in if it is missing."""
    help_ = subprocess.run(['ros2', 'bag', 'play', '--help'], capture_output=True, check=False)
    if help_.returncode == 0:
        return {}
    script = tmp_path / 'bin' / 'ros2'
    script.parent.mkdir()
    player = Path(__file__).with_name('bag_player.py')
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {player} "$@"\n')
    script.chmod(0o755)
    return {'PATH': f'{script.parent}:{os.environ["PATH"]}'}


@pytest.mark.slow
def test_whole_bag_is_recorded_by_its_clock(
        run_launch: Callable[..., str], with_player: dict[str, str], tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'walk', {
        '/camera/image_raw/compressed': [jpeg_message(number) for number in range(4)]})
    said = run_launch(
        'replay', f'bag:={bag}', 'image_topic:=/camera/image_raw', 'image_transport:=compressed',
        'reliability:=reliable', 'play_rate:=0.05', 'namespace:=robot', 'backend:=torch',
        f'output:={tmp_path / "there"}', **with_player)
    assert 'torch on cpu' in said, said
    assert '4 frames (0 dropped)' in said, said
    assert 'died' not in said, said
    assert (tmp_path / 'there' / 'annotated.mkv').is_file()
    with AnyReader([tmp_path / 'there' / 'bag']) as reader:
        decisions = [
            {item.key: item.value
             for item in reader.deserialize(data, kind.msgtype).status[0].values}
            for kind, _, data in reader.messages() if kind.topic == '/robot/decision']
    assert len(decisions) == 4
    # The bag received the images 100 s after their stamps.
    assert all(99e3 < float(item['image_age_ms']) < 102e3 for item in decisions), decisions


@pytest.mark.slow
def test_bag_without_such_images_ends_the_launch(
        run_launch: Callable[..., str], with_player: dict[str, str], tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'walk', {'/camera/image_raw/compressed': [jpeg_message(0)]})
    said = run_launch('replay', f'bag:={bag}', 'image_topic:=/camera/image_raw', 'backend:=torch',
                      f'output:={tmp_path / "there"}', **with_player)
    assert 'no image came on /camera/image_raw ' in said, said
    assert '0 frames (0 dropped)' in said, said
    assert 'died' not in said, said
