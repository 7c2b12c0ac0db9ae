# SPDX-License-Identifier: Apache-2.0
"""Check which rooms of the package import from which."""
import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'forecast_detector_ros'

#: Modules beside the rooms. Every room may import them; they import only one another.
TOOLS = {'boxes', 'errors', 'files', 'layout', 'plain_values'}

#: Entry points of programs and verbs; their names may repeat.
ENTRIES = {'main', 'make_parser', 'run'}

#: Other rooms that each room may import from, lowest room first.
ALLOWED = {
    'model': '',
    'images': '',
    'jobs': '',
    'detector': 'images model',
    'recording': 'detector images',
    'annotations': 'images',
    'clips': 'annotations',
    'metrics': 'annotations detector',
    'labelling': 'detector images jobs',
    'training': 'annotations clips detector model',
    'report': 'detector images metrics recording',
    'evaluation': 'annotations detector images jobs metrics model recording report training',
    'replay': 'annotations detector evaluation images jobs metrics recording report',
    'benchmark': 'detector images model recording',
    'experiments': 'benchmark detector evaluation images labelling metrics model report '
                   'training',
    'node': 'detector images recording',
    'cli': 'annotations benchmark clips detector evaluation experiments images jobs '
           'labelling metrics model recording replay report training',
}

#: A shorter file rarely holds a concept of its own.
FEWEST_LINES = 40

#: Files that may be shorter, with the reason; `__init__.py` always may.
SHORT = {
    'cli/__main__.py': 'Python looks for this name',
    'node/camera_node.py': 'an executable, which takes signals before it imports ROS',
    'node/recorder_node.py': 'likewise',
}

#: Packages of ROS that only node/ imports.
GRAPH = {
    'cv_bridge', 'diagnostic_msgs', 'lifecycle_msgs', 'rcl_interfaces', 'rclpy', 'sensor_msgs',
    'std_msgs', 'std_srvs', 'vision_msgs',
}


def imports(path: Path) -> Iterator[str]:
    """Yield the absolute names of the modules that a file imports."""
    here = path.relative_to(PACKAGE.parent).with_suffix('').parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(here[:-node.level]) if node.level else ''
            module = '.'.join(part for part in (base, node.module) if part)
            yield module
            yield from (f'{module}.{alias.name}' for alias in node.names)


def files_of(room: str) -> list[Path]:
    """Return the Python files of a room."""
    return sorted((PACKAGE / room).rglob('*.py'))


def rooms_of(names: Iterator[str]) -> set[str]:
    """Return the rooms of modules of the package."""
    parts = [name.split('.') for name in names]
    inner = {part[1] for part in parts if part[0] == PACKAGE.name and len(part) > 1}
    return inner & {*ALLOWED, *TOOLS}


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob('*/__init__.py')}
    assert rooms == set(ALLOWED)
    assert {path.stem for path in PACKAGE.glob('*.py')} - {'__init__'} == TOOLS


def test_order_has_no_cycle() -> None:
    """A room may import only from rooms before it in `ALLOWED`."""
    order = list(ALLOWED)
    for room, below in ALLOWED.items():
        assert set(below.split()) <= set(order[:order.index(room)]), room


@pytest.mark.parametrize('room', ALLOWED)
def test_room_imports_only_from_rooms_below(room: str) -> None:
    allowed = {room, *TOOLS, *ALLOWED[room].split()}
    wrong = {
        f'{path.name}: {above}'
        for path in files_of(room) for above in rooms_of(imports(path)) - allowed
    }
    assert wrong == set()


@pytest.mark.parametrize('tool', sorted(TOOLS))
def test_tool_imports_no_room(tool: str) -> None:
    assert rooms_of(imports(PACKAGE / f'{tool}.py')) <= TOOLS


@pytest.mark.parametrize('room', [room for room in ALLOWED if room != 'node'])
def test_only_the_node_room_imports_ros(room: str) -> None:
    wrong = {
        f'{path.name}: {name}'
        for path in files_of(room) for name in imports(path)
        if name.split('.')[0] in GRAPH
    }
    assert wrong == set()


def test_public_names_are_unique() -> None:
    """Public classes and functions have unique names, except entry points."""
    places: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != '_':
                places.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: found for name, found in places.items()
            if len(found) > 1 and name not in ENTRIES} == {}


def test_short_files_have_a_reason() -> None:
    short = {
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob('*.py')
        if path.name != '__init__.py' and len(path.read_text().splitlines()) < FEWEST_LINES
    }
    assert short == set(SHORT)


def test_the_documented_tree_matches_the_code() -> None:
    text = (PACKAGE.parent / 'docs' / 'design' / 'rooms.md').read_text()
    assert tree() in text, f'docs/design/rooms.md must have this tree:\n{tree()}'


def tree() -> str:
    """Return rooms, highest first, and modules, each with the first line of its docstring."""
    rows = [(f'{room}/', PACKAGE / room / '__init__.py') for room in reversed(ALLOWED)]
    rows += [(f'{tool}.py', PACKAGE / f'{tool}.py') for tool in sorted(TOOLS)]
    width = max(len(name) for name, _ in rows) + 2
    return '\n'.join(
        name.ljust(width) + (ast.get_docstring(ast.parse(path.read_text())) or '').splitlines()[0]
        for name, path in rows)
