# SPDX-License-Identifier: Apache-2.0
"""What a check of training data found, in lines: findings, then tables of classes and sources."""
from __future__ import annotations

from dataclasses import asdict
import math
from typing import Any

from .check import CheckResult
from .errors import Kind, PROBLEM, REMARK, UNREADABLE
from ..layout import plain, table


def finding_lines(result: CheckResult) -> list[str]:
    """Return a line for each finding that was kept, gravest first, and how many more there are."""
    findings = result.findings
    lines = []
    for severity in (UNREADABLE, PROBLEM, REMARK):
        for kind in Kind:
            if kind.severity != severity or kind not in findings.counts:
                continue
            start = f'{severity}: {kind.title}: '
            kept = findings.lines[kind]
            lines += [start + text for text in kept]
            more = findings.counts[kind] - len(kept)
            if more:
                lines.append(f'{start}{more:,} {"more" if kept else "found"}')
    return lines


def class_table(result: CheckResult) -> list[str]:
    """
    Return the table of classes.

    Its last column is the median side of the boxes: root of area over area of the picture.
    """
    rows = [('class', 'videos', 'frames', 'boxes', 'cut-outs', 'median side')]
    for name, tally in result.classes.items():
        side = tally.median_side
        rows.append((name, f'{tally.videos:,}', f'{tally.frames:,}', f'{tally.boxes:,}',
                     f'{tally.cutouts:,}', '-' if math.isnan(side) else f'{100 * side:.1f} %'))
    return table(rows[0], rows[1:]).splitlines()


def source_table(result: CheckResult) -> list[str]:
    """Return the table of sources; `read` are the frames whose annotation was looked at."""
    rows = [('source', 'format', 'videos', 'frames', 'read', 'pictures', 'boxes', 'ignored',
             'empty', 'seconds')]
    rows += [(tally.name, tally.data_format, f'{tally.videos:,}', f'{tally.frames:,}',
              f'{tally.read:,}', f'{tally.pictures:,}', f'{tally.boxes:,}', f'{tally.ignored:,}',
              f'{tally.empty:,}', f'{tally.seconds:.1f}') for tally in result.sources]
    return table(rows[0], rows[1:], left=2).splitlines()


def summary_line(result: CheckResult) -> str:
    """Return the verdict."""
    count = result.findings.count
    unreadable = count(UNREADABLE)
    words = [f'{unreadable:,} unreadable'] if unreadable else []
    words += [_plural(count(PROBLEM), PROBLEM), _plural(count(REMARK), REMARK)]
    return ', '.join(words)


def report_lines(result: CheckResult) -> list[str]:
    """Return everything, as the command prints it."""
    findings = finding_lines(result)
    return [*findings, *([''] if findings else []), *class_table(result), '',
            *source_table(result), '', summary_line(result)]


def plain_values(result: CheckResult) -> dict[str, Any]:
    """Return everything for JSON: findings by kind with the lines that were kept, and counts."""
    findings = result.findings
    return {
        'findings': [{'severity': kind.severity, 'kind': kind.title,
                      'count': findings.counts[kind], 'lines': findings.lines[kind]}
                     for kind in Kind if kind in findings.counts],
        'classes': {name: {'videos': tally.videos, 'frames': tally.frames, 'boxes': tally.boxes,
                           'cutouts': tally.cutouts, 'median_side': plain(tally.median_side)}
                    for name, tally in result.classes.items()},
        'sources': [asdict(tally) for tally in result.sources]}


def _plural(count: int, word: str) -> str:
    return f'{count:,} {word}{"" if count == 1 else "s"}'
