# SPDX-License-Identifier: Apache-2.0
"""Check that layouts and container files can be read and name existing things."""
from collections.abc import Iterator
import json
from pathlib import Path
import re
import subprocess
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LAYOUTS = ROOT / 'config/layouts'
REFERENCE = ROOT / 'docs/reference/ros.md'


def topics() -> set[str]:
    """Return the full topic names of the reference, without a namespace."""
    rows = re.findall(r'^\| (?:in|out) \|(.*?)\|', REFERENCE.read_text(), re.MULTILINE)
    names = {name for row in rows for name in re.findall(r'`([^`<]+)`', row)}
    return {name if name.startswith('/') else f'/{name}' for name in names} | {'/image_raw'}


def strings(value: Any) -> Iterator[str]:
    """Yield all strings in nested lists and dictionaries."""
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, str):
        yield value
    elif not isinstance(value, (int, float)):
        for item in value:
            yield from strings(item)


@pytest.mark.parametrize('path, wanted', [
    ('detector.rviz', {'/image_raw', '/image_annotated'}),
    ('detector.foxglove.json', {'/image_annotated', '/detections', '/decision', '/diagnostics'}),
])
def test_layout_shows_topics_that_exist(path: str, wanted: set[str]) -> None:
    text = (LAYOUTS / path).read_text()
    document = json.loads(text) if path.endswith('.json') else yaml.safe_load(text)
    named = {text for text in strings(document) if re.fullmatch(r'/[a-z_/]+', text)}
    assert named == wanted and named <= topics()


def test_foxglove_layout_places_every_panel_once() -> None:
    document = json.loads((LAYOUTS / 'detector.foxglove.json').read_text())
    placed = [text for text in strings(document['layout']) if '!' in text]
    assert sorted(placed) == sorted(document['configById'])


def test_container_copies_and_starts_what_exists() -> None:
    text = (ROOT / 'docker/Dockerfile').read_text()
    commands = re.sub('^(#|ARG DISTRO=).*', '', text, flags=re.MULTILINE)
    assert 'FROM ros:${DISTRO}-' in commands
    # Only the argument names the distribution.
    assert not re.search('jazzy|kilted|humble', commands.lower())
    for source in re.findall(r'^COPY (\S+) ', text, re.MULTILINE):
        assert (ROOT / source).exists(), source
    (launch,) = re.findall(r'"([a-z]+\.launch\.py)"', text)
    assert (ROOT / 'launch' / launch).is_file()


def test_containers_ignore_the_files_that_git_ignores() -> None:
    def patterns(name: str) -> list[str]:
        return [line for line in (ROOT / name).read_text().splitlines()
                if line and not line.startswith('#')]

    # Docker matches a pattern only at the root, unless it begins with `**/`.
    kept = [line[1:].rstrip('/') if line.startswith('/') else f"**/{line.rstrip('/')}"
            for line in patterns('.gitignore')]
    assert patterns('.dockerignore') == ['.git', *kept]


def test_compose_file_replays_with_arguments_that_exist() -> None:
    document = yaml.safe_load((ROOT / 'docker/compose.yaml').read_text())
    service = document['services']['replay']
    assert (ROOT / service['build']['dockerfile']).is_file()
    assert list(service['build']['args']) == ['DISTRO']
    command = service['command']
    (launch,) = re.findall(r'[a-z]+\.launch\.py', command)
    text = (ROOT / 'launch' / launch).read_text()
    for argument in re.findall(r'([a-z_]+):=', command):
        assert f"'{argument}'" in text, argument


def test_entrypoint_is_a_script() -> None:
    path = ROOT / 'docker/entrypoint.sh'
    assert path.stat().st_mode & 0o111
    assert subprocess.run(['sh', '-n', path], check=False).returncode == 0
