# SPDX-License-Identifier: Apache-2.0
"""Check the errors of detector.launch.py with stand-ins for the launch system."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

PARAMETERS = str(Path(__file__).resolve().parents[2] / 'config' / 'detector.yaml')
GIVEN = {
    'params_file': PARAMETERS, 'namespace': '', 'image_topic': '', 'image_transport': '',
    'threshold': '', 'device': '', 'backend': '', 'checkpoint': '', 'publish_ahead': '',
    'use_sim_time': '', 'autostart': 'true', 'use_respawn': 'false', 'log_level': 'info'}


class LaunchConfiguration:
    """Look up a value, like the class of this name in launch."""

    def __init__(self, name: str) -> None:
        self.name = name

    def perform(self, context: dict[str, str]) -> str:
        """Return the value in the context, which is a dictionary here."""
        return context[self.name]


@pytest.fixture
def parameters(launch_file: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
               ) -> Callable[..., list[Any]]:
    """Return a function that returns the node's parameters for some launch arguments."""
    names = {
        'launch': ('LaunchContext', 'LaunchDescription'), 'launch.action': ('Action',),
        'launch.actions': ('DeclareLaunchArgument', 'OpaqueFunction'),
        'launch.substitutions': ('LaunchConfiguration', 'PathJoinSubstitution'),
        'launch_ros': (), 'launch_ros.actions': ('Node',),
        'launch_ros.parameter_descriptions': ('ParameterValue',),
        'launch_ros.substitutions': ('FindPackageShare',)}
    for name, members in names.items():
        module = ModuleType(name)
        for member in members:
            setattr(module, member, LaunchConfiguration if member == 'LaunchConfiguration'
                    else SimpleNamespace)
        monkeypatch.setitem(sys.modules, name, module)
    # ParameterValue takes a positional argument.
    sys.modules['launch_ros.parameter_descriptions'].__dict__['ParameterValue'] = (
        lambda value, value_type: (value.name, value_type))
    module = launch_file('detector')

    def start(**given: str) -> list[Any]:
        (node,) = module.detector({**GIVEN, **given})
        found: list[Any] = node.parameters
        return found
    return start


@pytest.mark.parametrize('text', ['abc', '0,5', 'half'])
def test_threshold_that_is_not_a_number_names_the_argument(
        parameters: Callable[..., list[Any]], text: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        parameters(threshold=text)
    assert str(caught.value) == f"threshold: '{text}' is no number; it is 0.0 to 1.0"


@pytest.mark.parametrize('path', ['/nope.yaml', '', str(Path(PARAMETERS).parent)])
def test_file_of_parameters_that_is_missing_stops_the_launch(
        parameters: Callable[..., list[Any]], path: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        parameters(params_file=path)
    assert str(caught.value) == f'params_file: {path}: no such file'


def test_valid_arguments_start_the_node(parameters: Callable[..., list[Any]]) -> None:
    file, overrides = parameters(threshold='0.25', image_topic='/camera')
    assert file.name == 'params_file'
    assert overrides == {'autostart': True, 'image_topics': ['/camera'],
                         'threshold': ('threshold', float)}
    assert parameters()[1] == {'autostart': True}
