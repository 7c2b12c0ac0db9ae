# SPDX-License-Identifier: Apache-2.0
"""Hold the rooms of the package to their order: imports point one way."""
import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'forecast_detector_ros'

#: Each room may import from itself and from those before it.
ROOMS = ('model', 'runtime', 'data', 'training', 'evaluation', 'benchmark', 'cli',
         'node')

#: What only node/ knows.
GRAPH = {
    'cv_bridge', 'diagnostic_msgs', 'lifecycle_msgs', 'rcl_interfaces', 'rclpy', 'sensor_msgs',
    'std_msgs', 'std_srvs', 'vision_msgs',
}


def imports(path: Path) -> Iterator[str]:
    """Yield the absolute names of the modules that a file of the package imports."""
    here = path.relative_to(PACKAGE.parent).with_suffix('').parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(here[:-node.level]) if node.level else ''
            module = '.'.join(part for part in (base, node.module) if part)
            yield module
            yield from (f'{module}.{alias.name}' for alias in node.names)


def rooms_of(names: Iterator[str]) -> set[str]:
    """Return the rooms that modules of the package belong to."""
    parts = [name.split('.') for name in names]
    return {part[1] for part in parts if part[0] == PACKAGE.name and len(part) > 1} & set(ROOMS)


def test_every_room_has_its_place_in_the_order() -> None:
    assert {path.parent.name for path in PACKAGE.glob('*/__init__.py')} == set(ROOMS)


@pytest.mark.parametrize('room', ROOMS)
def test_room_imports_only_from_rooms_below(room: str) -> None:
    allowed = set(ROOMS[:ROOMS.index(room) + 1])
    wrong = {
        f'{path.name}: {above}'
        for path in (PACKAGE / room).rglob('*.py') for above in rooms_of(imports(path)) - allowed
    }
    assert wrong == set()


@pytest.mark.parametrize('room', [room for room in ROOMS if room != 'node'])
def test_room_knows_no_ros(room: str) -> None:
    wrong = {
        f'{path.name}: {name}'
        for path in (PACKAGE / room).rglob('*.py') for name in imports(path)
        if name.split('.')[0] in GRAPH
    }
    assert wrong == set()
