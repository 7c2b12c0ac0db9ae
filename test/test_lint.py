# SPDX-License-Identifier: Apache-2.0
"""Check the code with the linters of ROS 2 and with a type checker."""
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACES = ('dev', 'forecast_detector_ros', 'launch', 'setup.py', 'test')
LICENCE = '# SPDX-License-Identifier: Apache-2.0'
#: A longer file rarely holds only one concept.
MOST_LINES = 400


def python_files() -> list[Path]:
    """Return the Python files of the checkout."""
    return [
        path for place in PLACES for path in
        ([ROOT / place] if place.endswith('.py') else sorted((ROOT / place).rglob('*.py')))
    ]


@pytest.mark.parametrize('command', [
    # The configuration of ament: 99 columns, single quotes, import order of Google.
    pytest.param(['ament_flake8.main', *PLACES], id='flake8'),
    pytest.param(['ament_pep257.main', *PLACES], id='pep257'),
    pytest.param(['ruff', 'check', *PLACES], id='ruff'),
    pytest.param(['mypy'], id='mypy', marks=pytest.mark.slow),
])
def test_linter_finds_nothing(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, '-m', *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f'{result.stdout}\n{result.stderr}'


def test_every_file_names_the_licence_at_its_top() -> None:
    unnamed = [
        str(path.relative_to(ROOT)) for path in python_files()
        if LICENCE not in path.read_text().splitlines()[:2]
    ]
    assert unnamed == []


def test_no_file_is_overlong() -> None:
    overlong = [
        str(path.relative_to(ROOT)) for path in python_files()
        if len(path.read_text().splitlines()) > MOST_LINES
    ]
    assert overlong == []
