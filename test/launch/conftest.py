# SPDX-License-Identifier: Apache-2.0
"""Read launch files as modules, and run them."""
from collections.abc import Callable
import importlib.util
import os
from pathlib import Path
import shutil
import subprocess
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / 'launch'


@pytest.fixture
def launch_file() -> Callable[[str], ModuleType]:
    """Return a function that loads a launch file as a module."""
    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(
            f'{name}_launch', FOLDER / f'{name}.launch.py')
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return load


@pytest.fixture
def run_launch() -> Callable[..., str]:
    """Return a function that runs a launch file to its end and returns the output."""
    ros2 = shutil.which('ros2')
    if ros2 is None:
        pytest.skip('ros2 is not installed')

    def run(name: str, *arguments: str, **environment: str) -> str:
        result = subprocess.run(
            [ros2, 'launch', str(FOLDER / f'{name}.launch.py'), *arguments],
            env={**os.environ, **environment}, text=True, timeout=600,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return result.stdout
    return run
