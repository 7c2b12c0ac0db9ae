# SPDX-License-Identifier: Apache-2.0
"""Check detector.launch.py with the installed launch system."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ..helpers.pages import keys, section

launch = pytest.importorskip('launch')
launch_ros = pytest.importorskip('launch_ros')

PARAMETERS = Path(__file__).resolve().parents[2] / 'config' / 'detector.yaml'


@pytest.fixture
def module(launch_file: Callable[[str], ModuleType]) -> ModuleType:
    """Return the launch file as a module."""
    return launch_file('detector')


def node_of(module: ModuleType, **given: str) -> Any:
    """Return the node with these arguments."""
    context = launch.LaunchContext()
    configurations = context.launch_configurations
    configurations.update(params_file=str(PARAMETERS), **given)
    for argument in module.arguments():
        argument.execute(context)
    (node,) = module.detector(context)
    node._perform_substitutions(context)
    return node


def overrides_of(module: ModuleType, **given: str) -> dict[str, Any]:
    """Return the parameters that the node gets after those of the file."""
    node = node_of(module, **given)
    files = [item[0] for item in node._Node__expanded_parameter_arguments]
    assert files[0] == str(PARAMETERS)
    # launch_ros adds a YAML tag to lists, which ROS ignores.
    text = Path(files[1]).read_text().replace('!!python/tuple', '')
    (section,) = yaml.safe_load(text).values()
    return section['ros__parameters']


def test_every_argument_is_described_and_on_the_page(module: ModuleType) -> None:
    declared = module.arguments()
    assert sorted(argument.name for argument in declared) == sorted(keys(
        section('reference/ros.md', 'Launch: `detector.launch.py`')))
    for argument in declared:
        assert len(argument.description) > 10, argument.name


def test_only_given_arguments_override_the_file(module: ModuleType) -> None:
    assert overrides_of(module) == {'autostart': True}


def test_given_arguments_arrive_with_their_types(module: ModuleType) -> None:
    assert overrides_of(
        module, image_topic='/camera/image', image_transport='compressed', threshold='1',
        device='cpu', backend='torch', checkpoint='12', publish_ahead='true',
        use_sim_time='true', autostart='false') == {
            'image_topics': ['/camera/image'], 'image_transport': 'compressed', 'threshold': 1.0,
            'device': 'cpu', 'backend': 'torch', 'checkpoint': '12', 'publish_ahead': True,
            'use_sim_time': True, 'autostart': False}


def test_threshold_that_is_not_a_number_is_refused(module: ModuleType) -> None:
    with pytest.raises(RuntimeError, match='^threshold: .*high'):
        overrides_of(module, threshold='high')


def test_file_of_parameters_that_is_missing_stops_the_launch(module: ModuleType) -> None:
    context = launch.LaunchContext()
    context.launch_configurations.update(params_file='/nope.yaml')
    for argument in module.arguments():
        argument.execute(context)
    with pytest.raises(RuntimeError, match='params_file: /nope.yaml: no such file'):
        module.detector(context)


@pytest.mark.parametrize('given, namespace, level, respawns', [
    ({}, '/', 'info', False),
    ({'namespace': 'robot', 'log_level': 'debug', 'use_respawn': 'True'}, '/robot', 'debug',
     True)])
def test_node_is_started_as_asked(module: ModuleType, given: dict[str, str], namespace: str,
                                  level: str, respawns: bool) -> None:
    node = node_of(module, **given)
    assert node.node_name == f'{namespace.rstrip("/")}/forecast_detector'
    # Other parts of the command are known only when the process runs.
    command = [part.text for item in node.cmd for part in item if hasattr(part, 'text')]
    assert command[command.index('--log-level') + 1] == level
    assert node._ExecuteLocal__respawn is respawns


@pytest.mark.parametrize('name, value', [
    ('image_transport', 'theora'), ('use_sim_time', 'yes'), ('autostart', 'no'),
    ('use_respawn', '1'), ('publish_ahead', 'yes')])
def test_value_that_is_not_a_choice_is_refused(module: ModuleType, name: str, value: str) -> None:
    with pytest.raises(RuntimeError, match=f'{name}.*{value}'):
        node_of(module, **{name: value})
