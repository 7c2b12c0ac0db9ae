# SPDX-License-Identifier: Apache-2.0
"""Check replay.launch.py where the launch system is installed."""
from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

launch = pytest.importorskip('launch')
launch_ros = pytest.importorskip('launch_ros')
launch_actions = pytest.importorskip('launch.actions')
launch_ros_actions = pytest.importorskip('launch_ros.actions')

LAUNCH_FILE = Path(__file__).resolve().parents[2] / 'launch' / 'replay.launch.py'


@pytest.fixture
def module() -> ModuleType:
    """Return the launch file as a module."""
    spec = importlib.util.spec_from_file_location('replay_launch', LAUNCH_FILE)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def context(module: ModuleType) -> Any:
    """Return a context with every argument at its default."""
    made = launch.LaunchContext()
    made.launch_configurations['params_file'] = 'parameters.yaml'
    for argument in module.arguments():
        if argument.name not in ('bag', 'params_file'):
            argument.execute(made)
    return made


def started(module: ModuleType, context: Any, **given: Any) -> list[Any]:
    """Return what the launch file starts with these arguments."""
    context.launch_configurations.update({key: str(value) for key, value in given.items()})
    return module.replay(context)


def test_every_argument_is_described(module: ModuleType) -> None:
    declared = module.arguments()
    assert {argument.name for argument in declared} == {
        'bag', 'image_topic', 'image_transport', 'output', 'play_rate', 'play_arguments',
        'reliability', 'use_sim_time', 'namespace', 'params_file', 'threshold', 'device',
        'checkpoint'}
    for argument in declared:
        assert len(argument.description) > 10, argument.name


def test_missing_bag_is_one_line(module: ModuleType, context: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match='bag: .*none: no such file or folder'):
        started(module, context, bag=tmp_path / 'none')


def test_recorder_listens_to_the_topic_of_the_bag(module: ModuleType, context: Any,
                                                  tmp_path: Path) -> None:
    entities = started(module, context, bag=tmp_path, image_topic='camera/image_raw',
                       image_transport='compressed', reliability='reliable',
                       use_sim_time='false', output='there')
    (recorder,) = (item for item in entities if isinstance(item, launch_ros_actions.Node))
    recorder._perform_substitutions(context)
    (file,) = (item[0] for item in recorder._Node__expanded_parameter_arguments)
    (section,) = yaml.safe_load(Path(file).read_text()).values()
    assert section['ros__parameters'] == {
        'image_transport': 'compressed', 'output': 'there', 'stop_with_camera': True,
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
    assert command == ['ros2', 'bag', 'play', str(tmp_path), '--rate', '0.5',
                       *(['--clock'] if sim_time == 'true' else []), '--loop', '--topics', '/a']
    assert say('detector_node-1', b'active: again') == []


@pytest.mark.parametrize('code, ends', [(0, False), (1, True)])
def test_a_process_that_fails_ends_the_launch(module: ModuleType, context: Any, code: int,
                                              ends: bool) -> None:
    event = SimpleNamespace(returncode=code, process_name='ros2-3')
    assert bool(module._end_after_failure(event, context)) == ends
