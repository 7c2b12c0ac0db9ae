# SPDX-License-Identifier: Apache-2.0
"""Convert plain values to dataclasses, or raise an error of one line."""
from __future__ import annotations

from dataclasses import asdict, dataclass, field
import json
from pathlib import Path
from typing import Any

from forecast_detector_ros.plain_values import (
    build,
    MOST_LEVELS,
    MOST_VALUES,
    parse_plain_json,
    PlainJsonError,
    PlainValueError,
    PlainYamlError,
    read_plain_json,
    read_plain_yaml,
)
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2**63 + 1, 2**63 - 1) | st.text()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@given(VALUES)
def test_values_come_back_as_they_were(values):
    assert parse_plain_json(json.dumps(values)) == values


@pytest.mark.parametrize(('text', 'reason'), [
    ('[1, 2', 'not valid JSON: line 1 column 6'),
    ('[' * 100_000, 'nested too deeply'), ('{"a":' * 100_000, 'nested too deeply'),
    ('[1' + '0' * 400 + ']', 'an integer of 401 digits'),
    ('[' + '9' * 10_000 + ']', 'an integer of 10000 digits'),
    ('{"a": -9223372036854775808}', 'below 2'), ('[9223372036854775808]', 'below 2')])
def test_unusable_value_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(PlainJsonError, match=reason):
        parse_plain_json(text)
    path = tmp_path / 'odd.json'
    path.write_text(text)
    with pytest.raises(PlainJsonError) as caught:
        read_plain_json(path)
    assert str(caught.value).startswith(f'{path}: ')
    assert len(str(caught.value)) < 400 and '\n' not in str(caught.value)


def test_long_digits_within_a_text_are_not_a_number() -> None:
    assert parse_plain_json(f'{{"{"1" * 400}": 1}}') == {'1' * 400: 1}


def test_unreadable_file_gives_the_reason(tmp_path: Path) -> None:
    (tmp_path / 'binary').write_bytes(b'\xff\xfe')
    for name, reason in (('none', 'cannot be read: No such file'), ('', 'cannot be read: Is a'),
                         ('binary', 'not UTF-8 text')):
        with pytest.raises(PlainJsonError, match=reason):
            read_plain_json(tmp_path / name)


@dataclass(frozen=True)
class Leaf:
    name: str
    corners: tuple[float, float]
    score: float | None = None


@dataclass(frozen=True)
class Tree:
    number: int
    free: dict[str, Any]
    leaves: tuple[Leaf, ...] = ()
    first: Leaf | None = None
    flag: bool = field(default=False)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.builds(Leaf, st.text(), st.tuples(NUMBERS, NUMBERS), st.none() | NUMBERS)
TREES = st.builds(Tree, st.integers(), st.dictionaries(st.text(), st.none() | NUMBERS),
                  st.lists(LEAVES, max_size=3).map(tuple), st.none() | LEAVES, st.booleans())


@settings(max_examples=40)
@given(TREES)
def test_json_comes_back_as_it_was(tree):
    assert build(Tree, json.loads(json.dumps(asdict(tree)))) == tree


LEAF = {'name': 'a', 'corners': [1, 2]}


def test_a_whole_number_is_a_number():
    assert build(Leaf, LEAF) == Leaf('a', (1.0, 2.0))
    assert type(build(Leaf, LEAF).corners[0]) is float


def test_a_part_may_be_built_already():
    leaf = Leaf('a', (1.0, 2.0))
    assert build(Tree, {'number': 1, 'free': {}, 'first': leaf}).first is leaf


@pytest.mark.parametrize('value, words', [
    ([], 'the document is [], must be a mapping'),
    ({}, 'number is missing'),
    ({'number': 1, 'free': {}, 'more': 2}, 'unknown key more'),
    ({'number': 1, 'free': {}, 'm' * 10_000: 2}, 'unknown key mmm'),
    ({'number': 1.5, 'free': {}}, 'number is 1.5, must be an integer'),
    ({'number': True, 'free': {}}, 'number is True, must be an integer'),
    ({'number': None, 'free': {}}, 'number is None'),
    ({'number': 1, 'free': []}, 'free is [], must be a mapping'),
    ({'number': 1, 'free': {}, 'flag': 1}, 'flag is 1'),
    ({'number': 1, 'free': {}, 'leaves': LEAF}, 'must be a list'),
    ({'number': 1, 'free': {}, 'leaves': [LEAF, {'name': 'b', 'corners': [1]}]},
     'leaves[1].corners is [1], must be a list of 2'),
    ({'number': 1, 'free': {}, 'first': {**LEAF, 'score': float('nan')}},
     'first.score is nan, must be a number'),
    ({'number': 1, 'free': {}, 'first': {**LEAF, 'name': 3}}, 'first.name is 3, must be a text'),
])
def test_value_of_the_wrong_type_is_named(value, words):
    with pytest.raises(PlainValueError) as caught:
        build(Tree, value)
    assert words in str(caught.value) and '\n' not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize('text', [
    '[' * 1000, '2020-99-99', '9' * 5000, '!!bool maybe', '!!timestamp soon', '!!int ""'])
@pytest.mark.parametrize('aliases', [False, True])
def test_invalid_yaml_is_one_line(tmp_path: Path, text: str, aliases: bool) -> None:
    path = tmp_path / 'odd.yaml'
    path.write_text(text)
    with pytest.raises(PlainYamlError, match='^cannot be read as YAML: .{5,250}$'):
        read_plain_yaml(path, aliases)


def test_aliases_are_followed_where_they_are_permitted(tmp_path: Path) -> None:
    path = tmp_path / 'some.yaml'
    path.write_text('a: &a {x: 1, y: 2}\nb: [*a, *a]\nc: {<<: *a, y: 3}')
    assert read_plain_yaml(path, aliases=True) == {
        'a': {'x': 1, 'y': 2}, 'b': [{'x': 1, 'y': 2}] * 2, 'c': {'x': 1, 'y': 3}}
    with pytest.raises(PlainYamlError, match='an alias .*not allowed here'):
        read_plain_yaml(path)


@pytest.mark.parametrize(('first', 'line'), [
    ('a0: &a0 [lol]', 'a{0}: &a{0} [*a{1}, *a{1}, *a{1}]'),
    # Merged mappings also multiply.
    ('a0: &a0 {x: 1}', 'a{0}: &a{0} {{<<: [*a{1}, *a{1}, *a{1}]}}')])
def test_number_of_values_from_aliases_is_limited(tmp_path: Path, first: str, line: str) -> None:
    path = tmp_path / 'many.yaml'
    path.write_text('\n'.join([first, *(line.format(n, n - 1) for n in range(1, 30))]))
    with pytest.raises(PlainYamlError, match=f'aliases .* more than {MOST_VALUES} values'):
        read_plain_yaml(path, aliases=True)


@pytest.mark.parametrize('text', ['&a [*a]', 'a: &a {b: [*a]}', '&a {? *a : 1}'])
def test_alias_within_itself_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'ring.yaml'
    path.write_text(text)
    with pytest.raises(PlainYamlError, match='an alias .* within what it stands for'):
        read_plain_yaml(path, aliases=True)


def test_depth_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / 'deep.yaml'
    path.write_text('[' * MOST_LEVELS + ']' * MOST_LEVELS)
    assert isinstance(read_plain_yaml(path), list)
    # Aliases nest values more deeply than the text itself is nested.
    path.write_text('\n'.join(['a0: &a0 []', *(f'a{n}: &a{n} [*a{n - 1}]'
                                               for n in range(1, 400))]))
    with pytest.raises(PlainYamlError, match=f'more deeply than {MOST_LEVELS} levels'):
        read_plain_yaml(path, aliases=True)
