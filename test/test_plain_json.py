# SPDX-License-Identifier: Apache-2.0
"""JSON is read, or one line says why not."""
import json
from pathlib import Path

from forecast_detector_ros.plain_json import parse_plain_json, PlainJsonError, read_plain_json
from hypothesis import given
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
def test_what_cannot_be_used_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(PlainJsonError, match=reason):
        parse_plain_json(text)
    path = tmp_path / 'odd.json'
    path.write_text(text)
    with pytest.raises(PlainJsonError) as caught:
        read_plain_json(path)
    assert str(caught.value).startswith(f'{path}: ')
    assert len(str(caught.value)) < 400 and '\n' not in str(caught.value)


def test_long_digits_within_a_text_are_no_number() -> None:
    assert parse_plain_json(f'{{"{"1" * 400}": 1}}') == {'1' * 400: 1}


def test_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / 'binary').write_bytes(b'\xff\xfe')
    for name, reason in (('none', 'cannot be read: No such file'), ('', 'cannot be read: Is a'),
                         ('binary', 'not UTF-8 text')):
        with pytest.raises(PlainJsonError, match=reason):
            read_plain_json(tmp_path / name)
