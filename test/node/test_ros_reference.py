# SPDX-License-Identifier: Apache-2.0
"""Hold the page on the ROS interface to what the camera and the recorder declare."""
import ast
from pathlib import Path
import re

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'reference' / 'ros.md'


def declared(program: str) -> dict[str, str]:
    """Return the parameters of a program with their defaults as a ROS user writes them."""
    module = ROOT / 'forecast_detector_ros/node' / f'{program.removesuffix("_node")}.py'
    tree = ast.parse(module.read_text())
    found = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, 'id', '') == 'declare_fixed':
            name, default = (ast.literal_eval(argument) for argument in call.args[1:3])
            found[name] = str(default).lower() if isinstance(default, bool) else str(default)
    return found


def described(program: str) -> dict[str, str]:
    """Return the parameters and defaults in the section of a program."""
    section = PAGE.read_text().split(f'(executable `{program}`)')[1].split('\n## ')[0]
    return {name: default.strip().strip('`').replace("''", '')
            for name, default in re.findall(r'^\| `(\w+)` \| ([^|]*) \|', section, re.MULTILINE)}


@pytest.mark.parametrize('program', ['camera_node', 'recorder_node'])
def test_page_lists_every_parameter_with_its_default(program: str) -> None:
    assert declared(program)
    assert described(program) == declared(program)
