# SPDX-License-Identifier: Apache-2.0
"""Check that the reference lists all keys, names and defaults of the code, and no others."""
import ast
from dataclasses import fields, is_dataclass, MISSING
from fractions import Fraction
import inspect
from pathlib import Path
import re
from typing import Any

import forecast_detector_ros
from forecast_detector_ros.annotations.findings import Kind
from forecast_detector_ros.annotations.sources import FORMATS, SourceConfig
from forecast_detector_ros.clips.augment import AugmentConfig
from forecast_detector_ros.detector.backends.registry import BACKENDS
from forecast_detector_ros.detector.checkpoint import Card
from forecast_detector_ros.detector.policy import REASONS
from forecast_detector_ros.evaluation.accuracy import KEYS as PROTOCOLS
from forecast_detector_ros.evaluation.forecast_quality import ROWS
from forecast_detector_ros.evaluation.streaming import OUTPUTS
from forecast_detector_ros.images.image_messages import ENCODINGS
from forecast_detector_ros.model.config import NetworkConfig, PRESETS, VARIANTS
from forecast_detector_ros.training.config import (
    CARD_KEYS,
    GroupConfig,
    GROUPS,
    Recipe,
    StageConfig,
    ValidationConfig,
)
from forecast_detector_ros.training.losses import LossConfig
import pytest

from .helpers.pages import code, keys, rows, section

ROOT = Path(__file__).resolve().parents[1]
RECIPES, CARD, NETWORK = 'reference/recipes.md', 'reference/card.md', 'design/network.md'


def names(kind: Any) -> list[str]:
    """Return the fields of a dataclass, sorted."""
    return sorted(item.name for item in fields(kind))


@pytest.mark.parametrize(('page', 'heading', 'kind'), [
    (RECIPES, "A recipe's keys", Recipe), (RECIPES, 'Keys of a source', SourceConfig),
    (RECIPES, 'Keys of a stage', StageConfig), (RECIPES, 'The losses', LossConfig),
    (RECIPES, 'Augmentation', AugmentConfig), (CARD, 'Keys of the network', NetworkConfig)])
def test_page_lists_every_key(page: str, heading: str, kind: Any) -> None:
    # Tables under subheadings list other keys.
    text = section(page, heading).split('\n### ')[0]
    assert sorted(keys(text)) == names(kind)


def test_card_lists_every_key() -> None:
    table = rows(section(CARD).split('\n## ')[0])
    assert {code(first)[0]: needed == 'yes' for first, needed, _ in table} == {
        'format': True,
        **{item.name: item.default is MISSING and item.default_factory is MISSING
           for item in fields(Card)}}


@pytest.mark.parametrize(('heading', 'key', 'wanted'), [
    ("A recipe's keys", 'card', CARD_KEYS),
    ("A recipe's keys", 'validation', names(ValidationConfig)),
    ('Keys of a stage', 'groups', (*names(GroupConfig), *GROUPS))])
def test_row_lists_the_keys_within(heading: str, key: str, wanted: tuple[str, ...]) -> None:
    (row,) = (row for row in rows(section(RECIPES, heading)) if code(row[0]) == [key])
    assert sorted(code(row[2])) == sorted(wanted)


def test_augmentation_has_the_defaults() -> None:
    said = {name: Fraction(value) for first, defaults, _ in rows(section(RECIPES, 'Augmentation'))
            for name, value in zip(code(first), defaults.split(', '), strict=True)}
    assert {name: float(value) for name, value in said.items()} == vars(AugmentConfig())


def test_presets_are_those_of_the_code() -> None:
    text = section(NETWORK, 'Presets')
    (head,) = re.findall(r'^\| key \|.*', text, re.MULTILINE)
    assert sorted(code(head)) == sorted(PRESETS)
    for first, *cells in rows(text):
        (key,) = code(first)
        for name, cell in zip(code(head), cells, strict=True):
            numbers = re.findall(r'[\d.]+', cell)
            value = getattr(PRESETS[name], key)
            if cell in ('yes', 'no'):
                assert value is (cell == 'yes'), (name, key)
            elif numbers:
                told = value if isinstance(value, tuple) else (value,)
                assert list(map(float, numbers)) == list(told), (name, key)
            elif cell != '-':
                assert code(cell) == [value], (name, key)


def test_variants_formats_and_rows_are_those_of_the_code() -> None:
    assert keys(section(NETWORK, 'Variants')) == list(VARIANTS)
    assert set(FORMATS) <= set(code(section('reference/data.md')))
    evaluation = 'reference/evaluation.md'
    assert sorted(keys(section(evaluation, 'Forecasts'))) == sorted(ROWS)
    assert keys(section(evaluation, 'Average precision')) == list(PROTOCOLS)
    assert re.findall(r'^- `(\w+)`:', section(evaluation, 'Streaming accuracy'),
                      re.MULTILINE) == list(OUTPUTS)


def test_every_finding_of_check_data_is_explained() -> None:
    table = {name: severity for severity, kinds, _ in (
        row for row in rows(section('reference/data.md', 'Checking data')) if len(row) == 3)
        for name in code(kinds)}
    assert table == {kind.title: kind.severity for kind in Kind}


def test_back_ends_have_the_precisions_of_the_code() -> None:
    table = {code(first)[0]: code(precisions) for first, _, _, precisions in
             rows(section('reference/backends.md').split('\n## ')[0])}
    assert set(table) == set(BACKENDS)
    for name, kind in BACKENDS.items():
        wanted = {precision for group in kind.precisions.values() for precision in group}
        assert set(table['torch' if table[name] == ['torch'] else name]) == wanted, name


def test_reasons_and_encodings_are_listed() -> None:
    page = 'reference/ros.md'
    reasons = section(page, 'Values of a `decision`').partition('| reason |')[2]
    assert sorted(keys(reasons)) == sorted(REASONS)
    assert set(ENCODINGS) <= set(code(section(page, 'What an image may be')))


def test_api_page_shows_every_name() -> None:
    shown = re.findall(r'forecast_detector_ros\.(\w+)$', section('reference/api.md'), re.MULTILINE)
    assert sorted(shown) == sorted(forecast_detector_ros.__all__)


def undocumented(kind: type) -> list[str]:
    """Return the public attributes of a class without a `#:` comment."""
    source = inspect.getsource(kind)
    lines = source.splitlines()
    found = []
    for node in ast.walk(ast.parse(source)):
        target = node.target if isinstance(node, ast.AnnAssign) else (
            node.targets[0] if isinstance(node, ast.Assign) else None)
        name = getattr(target, 'attr', None) or getattr(target, 'id', '')
        member = isinstance(target, ast.Attribute) or (
            is_dataclass(kind) and name in kind.__dataclass_fields__)
        if member and not name.startswith('_') and not (
                '#:' in lines[node.lineno - 1] or '#:' in lines[node.lineno - 2]):
            found.append(name)
    return found


@pytest.mark.parametrize('name', [
    name for name in forecast_detector_ros.__all__
    if isinstance(getattr(forecast_detector_ros, name), type)])
def test_every_attribute_of_the_api_is_described(name: str) -> None:
    assert undocumented(getattr(forecast_detector_ros, name)) == []
