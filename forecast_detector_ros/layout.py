# SPDX-License-Identifier: Apache-2.0
"""Plain values for JSON, and tables of text for people."""

from collections.abc import Sequence
import math
import statistics
from typing import Any


def plain(value: float) -> float | None:
    """Return a number for JSON: None for NaN."""
    return None if math.isnan(value) else float(value)


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are neither None nor NaN; None if there are none."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return sum(known) / len(known) if known else None


def mean_and_deviation(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """
    Return the mean and the standard deviation of a sample, which is not empty.

    Both are None if a value is None. The deviation of a single value is None.
    """
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None, None
    return statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], digits: int = 3,
          title: str = '', left: int = 1) -> str:
    """Write a table as text; the first `left` columns are left-aligned, and None is a dash."""
    def cell(value: Any) -> str:
        if value is None:
            return '-'
        return f'{value:.{digits}f}' if isinstance(value, float) else str(value)

    cells = [list(head), *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ['  '.join(text.ljust(width) if i < left else text.rjust(width)
                       for i, (text, width) in enumerate(zip(row, widths))).rstrip()
             for row in cells]
    lines.insert(1, '  '.join('-' * width for width in widths))
    return '\n'.join([title, *lines] if title else lines)


def markdown(rows: Sequence[Sequence[Any]], right: bool = False) -> str:
    """
    Write rows as a table in Markdown; the first row is the head, and None is an empty cell.

    With `right`, all columns except the first are right-aligned.
    """
    lines = ['| ' + ' | '.join('' if cell is None else str(cell) for cell in row) + ' |'
             for row in rows]
    rule = '| --- |' + (' ---: |' if right else ' --- |') * (len(rows[0]) - 1)
    return '\n'.join([lines[0], rule, *lines[1:]])
