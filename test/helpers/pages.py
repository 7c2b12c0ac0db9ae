# SPDX-License-Identifier: Apache-2.0
"""Read tables of the documentation, to compare them with the code."""
from pathlib import Path
import re

DOCS = Path(__file__).resolve().parents[2] / 'docs'


def section(page: str, heading: str = '') -> str:
    """Return a page below docs/, or the part of it under a heading, with smaller headings."""
    text = (DOCS / page).read_text()
    if not heading:
        return text
    level, _, rest = text.partition(f'# {heading}\n')
    depth = len(level) - len(level.rstrip('#')) + 1
    assert rest, f'docs/{page} has no heading {heading!r}'
    return re.split(rf'^#{{1,{depth}}} ', rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all rows of tables but their heads and rules."""
    lines = text.splitlines()
    return [[cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
            for line, following in zip(lines, [*lines[1:], ''])
            if line.startswith('| ') and not line.startswith('| ---')
            and not following.startswith('| ---')]


def code(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r'`([^`]+)`', text)


def keys(text: str) -> list[str]:
    """Return what stands in backticks in the first cells of the rows."""
    return [name for first, *_ in rows(text) for name in code(first)]
