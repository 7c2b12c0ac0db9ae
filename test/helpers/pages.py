# SPDX-License-Identifier: Apache-2.0
"""Read tables of the documentation, to compare them with the code."""
from collections.abc import Iterator
from pathlib import Path
import re
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / 'docs'
#: Keys of outputs whose values are by names, such as those of classes, sequences or libraries.
BY_NAME = {'boxes_per_class', 'cameras', 'classes', 'files', 'held', 'inputs', 'maps', 'moving',
           'outputs', 'reasons', 'results', 'rows', 'sequences', 'shapes', 'versions'}
#: Other pages have the keys of the network and of parameters; checkpoints and weights have names.
ELSEWHERE = {'checkpoints', 'detector_parameters', 'network', 'overrides', 'weights'}


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


def written(document: Any) -> Iterator[str]:
    """Yield the keys of a document that are no names."""
    for key, value in document.items() if isinstance(document, dict) else ():
        yield key
        if key not in ELSEWHERE:
            by_name = key in BY_NAME and isinstance(value, dict)
            for item in value.values() if by_name else [value]:
                yield from written(item)
    for item in document if isinstance(document, list) else ():
        yield from written(item)


def undocumented(document: Any, *headings: str) -> set[str]:
    """Return the keys that neither these sections nor the beginning of the page of outputs has."""
    page = 'reference/outputs.md'
    parts = [section(page).partition('\n## ')[0], *(section(page, name) for name in headings)]
    # The standard deviation of a key is named after it.
    return {key.removesuffix('_sd') for key in written(document)} - {*code('\n'.join(parts))}
