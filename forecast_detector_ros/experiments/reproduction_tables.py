# SPDX-License-Identifier: Apache-2.0
"""Means and spreads of a reproduction, as the tables of its documentation."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from .equal_ratio import fixed_rules_at
from .reproduction import ALWAYS, BASELINE, ROWS
from ..layout import markdown
from ..metrics.vid_ap import GROUPS

Results = dict[str, dict[str, dict[str, dict[str, float | None]]]]
"""``results[seed][row][policy][figure]``."""


def spread(values: Sequence[float | None], sign: bool = False) -> str:
    """
    Write AP50 in points: the mean over seeds, and the standard deviation of the sample.

    One seed has no spread; a figure that a seed lacks is ``-``.  `sign` writes a plus, too.
    """
    known = [100 * value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return '-'
    first = f'{mean(known):{"+" if sign else ""}.1f}'
    return f'{first} ± {stdev(known):.1f}' if len(known) > 1 else first


def _figures(results: Results, row: str, policy: str, figure: str) -> list[float | None]:
    return [rows[row][policy][figure] for rows in results.values()]


def _rows(results: Results) -> list[str]:
    return list(next(iter(results.values())))


def _gains(values: Sequence[float | None], others: Sequence[float | None]
           ) -> list[float | None]:
    return [None if a is None or b is None else a - b for a, b in zip(values, others)]


def components_table(results: Results) -> list[list[str]]:
    """
    Make Table 2: AP50 of every row with each frame read, all boxes and by motion.

    The last column is the difference to the baseline of the same seed.
    """
    table = [['network', 'AP50', *GROUPS, 'over baseline']]
    # Who holds features differs on frames that are not read alone.
    same = {row.name for row in ROWS if row.hold}
    for row in _rows(results):
        if row not in same:
            whole = _figures(results, row, ALWAYS, 'ap50')
            gains = _gains(whole, _figures(results, BASELINE, ALWAYS, 'ap50'))
            table.append([row, spread(whole), *(spread(_figures(results, row, ALWAYS, figure))
                                                for figure in GROUPS),
                          '' if row == BASELINE else spread(gains, True)])
    return table


def skipping_table(results: Results) -> list[list[str]]:
    """Make the comparison of forecasts: AP50 of every row by fixed rule."""
    rows = _rows(results)
    rules = [policy for policy in _policies(results, rows) if policy.startswith('alternate')]
    table = [['network', ALWAYS, *rules]]
    for row in rows:
        if rules and rules[0] in next(iter(results.values()))[row]:
            table.append([row, *(spread(_figures(results, row, policy, 'ap50'))
                                 for policy in (ALWAYS, *rules))])
    return table


def sweep_table(results: Results) -> list[list[str]]:
    """
    Make Fig. 5's numbers: AP50 and read ratio over thresholds, of the rows that were swept.

    The last column is the difference to fixed rules of the same seed at the same read ratio.
    """
    table = [['network', 'rule', 'read ratio', 'AP50', 'over fixed rules']]
    for row in _rows(results):
        policies = list(next(iter(results.values()))[row])
        if not any(policy.startswith('threshold') for policy in policies):
            continue
        for policy in policies:
            ratios = [value or 0.0 for value in _figures(results, row, policy, 'read_ratio')]
            accuracy = _figures(results, row, policy, 'ap50')
            gains = ''
            if policy.startswith('threshold'):
                gains = spread(_gains(accuracy, [
                    fixed_rules_at(ratio, _points(rows[row]))
                    for ratio, rows in zip(ratios, results.values())]), True)
            table.append([row, policy, f'{mean(ratios):.2f}', spread(accuracy), gains])
    return table


def _points(policies: dict[str, dict[str, float | None]]
            ) -> dict[str, tuple[float, float | None]]:
    return {name: (found['read_ratio'] or 0.0, found['ap50'])
            for name, found in policies.items()}


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
            parts.append(f'{title}:\n\n' + markdown(table))
    return '\n\n'.join(parts) + '\n'
