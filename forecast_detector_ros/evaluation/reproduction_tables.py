# SPDX-License-Identifier: Apache-2.0
"""Means and spreads of a reproduction, as the tables of its documentation."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from .reproduction import ALWAYS
from .vid_ap import GROUPS

Results = dict[str, dict[str, dict[str, dict[str, float | None]]]]
"""``results[seed][row][policy][figure]``."""


def spread(values: Sequence[float | None]) -> str:
    """
    Write AP50 in points: the mean over seeds, and the standard deviation of the sample.

    One seed has no spread; a figure that a seed lacks is ``-``.
    """
    known = [100 * value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return '-'
    return f'{mean(known):.1f} ± {stdev(known):.1f}' if len(known) > 1 else f'{known[0]:.1f}'


def _figures(results: Results, row: str, policy: str, figure: str) -> list[float | None]:
    return [rows[row][policy][figure] for rows in results.values()]


def _rows(results: Results) -> list[str]:
    return list(next(iter(results.values())))


def components_table(results: Results) -> list[list[str]]:
    """Make Table 2: AP50 of every row with each frame read, all boxes and by motion."""
    table = [['network', 'AP50', *GROUPS]]
    for row in _rows(results):
        table.append([row, *(spread(_figures(results, row, ALWAYS, figure))
                             for figure in ('ap50', *GROUPS))])
    return table


def skipping_table(results: Results) -> list[list[str]]:
    """Make the comparison of forecasts: AP50 of every row that can skip frames, by rule."""
    rows = _rows(results)
    rules = [policy for policy in _policies(results, rows) if policy.startswith('alternate')]
    table = [['network', ALWAYS, *rules]]
    for row in rows:
        if rules and rules[0] in next(iter(results.values()))[row]:
            table.append([row, *(spread(_figures(results, row, policy, 'ap50'))
                                 for policy in (ALWAYS, *rules))])
    return table


def sweep_table(results: Results) -> list[list[str]]:
    """Make Fig. 5's numbers: AP50 and read ratio over thresholds, of the rows that were swept."""
    table = [['network', 'rule', 'read ratio', 'AP50']]
    for row in _rows(results):
        policies = list(next(iter(results.values()))[row])
        if any(policy.startswith('threshold') for policy in policies):
            for policy in policies:
                ratios = [value or 0.0 for value in _figures(results, row, policy, 'read_ratio')]
                table.append([row, policy, f'{mean(ratios):.2f}',
                              spread(_figures(results, row, policy, 'ap50'))])
    return table


def _policies(results: Results, rows: Sequence[str]) -> list[str]:
    first = next(iter(results.values()))
    return list(dict.fromkeys(policy for row in rows for policy in first[row]))


def as_markdown(report: dict[str, Any]) -> str:
    """Write all tables of a report of `reproduce` as Markdown."""
    results: Results = report['results']
    parts = [f'{len(report["seeds"])} seeds; {len(report["sequences"])} sequences held out, '
             f'{report["frames"]} frames, {report["boxes"]} boxes; AP50 in points, mean ± '
             'standard deviation over seeds.']
    for title, table in (('Every frame read', components_table(results)),
                         ('Frames skipped by a fixed rule', skipping_table(results)),
                         ('The scheduler', sweep_table(results))):
        if len(table) > 1:
            parts.append(f'{title}:\n\n' + _markdown(table))
    return '\n\n'.join(parts) + '\n'


def _markdown(table: Sequence[Sequence[str]]) -> str:
    lines = ['| ' + ' | '.join(row) + ' |' for row in table]
    return '\n'.join([lines[0], '|' + ' --- |' * len(table[0]), *lines[1:]])
