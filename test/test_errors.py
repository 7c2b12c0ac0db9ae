# SPDX-License-Identifier: Apache-2.0
"""Check messages of one line, and quoted texts from outside."""

from time import process_time

from forecast_detector_ros.errors import cut, one_line
from hypothesis import given, strategies as st


def test_message_becomes_one_line():
    assert one_line(ValueError('broken\n   at  line 3')) == 'broken at line 3'
    assert one_line(KeyError()) == 'KeyError'
    assert len(one_line(ValueError(1000 * 'x'))) <= 300


@given(st.text(), st.integers(60, 300))
def test_any_text_becomes_one_short_printable_line(text: str, most: int) -> None:
    line = cut(text * 20, most)
    assert len(line) <= most
    assert line.isprintable()


def test_short_text_stays_and_long_text_keeps_both_ends() -> None:
    assert cut(ValueError('out of\n range')) == 'out of range'
    line = cut('begin' + 'x' * 100_000 + 'end')
    assert line.startswith('begin') and line.endswith('end')
    assert '100008 characters' in line


def test_very_long_text_takes_no_time() -> None:
    text = 'x' * 50_000_000
    start = process_time()
    cut(text)
    assert process_time() - start < 0.1
