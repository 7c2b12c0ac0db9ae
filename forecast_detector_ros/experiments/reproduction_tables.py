# SPDX-License-Identifier: Apache-2.0
"""Means and standard deviations of a reproduction, as tables and as a picture."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, TYPE_CHECKING

import numpy as np

from .figure_files import AMBER, BLUE, GREEN, INK, new_figure, RED, SOFT
from .paper_figures import fixed_rules_at
from .reproduction import ALWAYS, BASELINE, ROWS
from ..evaluation.sequences import EvaluationError
from ..layout import markdown, mean_and_deviation
from ..metrics.average_precision import GROUPS
from ..plain_values import PlainJsonError, read_plain_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: ``results[seed][row][policy][figure]``.
Results = dict[str, dict[str, dict[str, dict[str, float | None]]]]


def mean_and_spread(values: Sequence[float | None], sign: bool = False) -> str:
    """
    Format AP50 in points: the mean over seeds, and the standard deviation of the sample.

    One seed has no deviation; ``-`` if a seed has no value. `sign` writes a plus sign, too.
    """
    average, deviation = mean_and_deviation([value and 100 * value for value in values])
    if average is None:
        return '-'
    first = f'{average:{"+" if sign else ""}.1f}'
    return first if deviation is None else f'{first} ± {deviation:.1f}'


def _figures(results: Results, row: str, policy: str, figure: str) -> list[float | None]:
    return [rows[row][policy][figure] for rows in results.values()]


def _first(results: Results) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the figures of one seed; all seeds have the same rows and policies."""
    return next(iter(results.values()))


def _gains(values: Sequence[float | None], others: Sequence[float | None]
           ) -> list[float | None]:
    return [None if a is None or b is None else a - b for a, b in zip(values, others)]


def components_table(results: Results) -> list[list[str]]:
    """
    Make Table 2: AP50 of every row with each frame read, all boxes and by motion.

    The last column is the difference to the baseline of the same seed.
    """
    table = [['network', 'AP50', *GROUPS, 'over baseline']]
    # Rows that hold features differ only on frames that are not read.
    same = {row.name for row in ROWS if row.hold}
    for row in _first(results):
        if row not in same:
            whole = _figures(results, row, ALWAYS, 'ap50')
            gains = _gains(whole, _figures(results, BASELINE, ALWAYS, 'ap50'))
            table.append([row, mean_and_spread(whole),
                          *(mean_and_spread(_figures(results, row, ALWAYS, figure))
                            for figure in GROUPS),
                          '' if row == BASELINE else mean_and_spread(gains, True)])
    return table


def skipping_table(results: Results) -> list[list[str]]:
    """Make the comparison of forecasts: AP50 of every row by fixed rule."""
    rows = _first(results)
    rules = list(dict.fromkeys(policy for policies in rows.values() for policy in policies
                               if policy.startswith('alternate')))
    table = [['network', ALWAYS, *rules]]
    for row, policies in rows.items():
        if rules and rules[0] in policies:
            table.append([row, *(mean_and_spread(_figures(results, row, policy, 'ap50'))
                                 for policy in (ALWAYS, *rules))])
    return table


def sweep_table(results: Results) -> list[list[str]]:
    """
    Make the table of Fig. 5: AP50 and read ratio by threshold, of rows with a trained scheduler.

    The last column is the difference to fixed rules of the same seed at the same read ratio.
    """
    table = [['network', 'rule', 'read ratio', 'AP50', 'over fixed rules']]
    for row, policies in _first(results).items():
        if not any(policy.startswith('threshold') for policy in policies):
            continue
        for policy in policies:
            ratios = [value or 0.0 for value in _figures(results, row, policy, 'read_ratio')]
            accuracy = _figures(results, row, policy, 'ap50')
            gains = ''
            if policy.startswith('threshold'):
                gains = mean_and_spread(_gains(accuracy, [
                    fixed_rules_at(ratio, _points(rows[row]))
                    for ratio, rows in zip(ratios, results.values())]), True)
            table.append([row, policy, f'{mean(ratios):.2f}', mean_and_spread(accuracy), gains])
    return table


def _points(policies: dict[str, dict[str, float | None]]
            ) -> dict[str, tuple[float, float | None]]:
    return {name: (found['read_ratio'] or 0.0, found['ap50'])
            for name, found in policies.items()}


def reproduction_markdown(report: dict[str, Any]) -> str:
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


FIGURES = ('ap50', *GROUPS)

#: Colours of the rows, in the order of `ROWS`.
COLOURS = (SOFT, INK, BLUE, AMBER, GREEN, '#7c3aed', '#0891b2', '#db2777', RED)


def load_reproduction(path: Path) -> dict[str, Any]:
    """
    Read the ``results.json`` of `reproduce`.

    :raises EvaluationError: if the file has another form
    """
    try:
        report = read_plain_json(path)
    except PlainJsonError as error:
        raise EvaluationError(str(error)) from None
    if not isinstance(report, dict) or not report.get('results'):
        raise EvaluationError(f'{path}: has no results; it must be results.json of reproduce')
    for key, kind in (('results', dict), ('seeds', list), ('frames', int)):
        if not isinstance(report.get(key), kind):
            raise EvaluationError(f'{path}: {key} is missing or no {kind.__name__}; it must be '
                                  'results.json of reproduce')
    return report


def reproduction_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Return means and standard deviations (of the sample) over seeds as plain values.

    :returns: one per row and policy: `row`, `policy`, `seeds`, and the means of `read_ratio`,
        `ap50` and the `GROUPS`. Keys that end in ``_sd`` have the deviation. None if a seed has no
        value, or if there is only one seed.
    """
    seeds = list(report['results'].values())
    rows = []
    for row, policies in seeds[0].items():
        for policy in policies:
            found: dict[str, Any] = {'row': row, 'policy': policy, 'seeds': len(seeds)}
            for key in ('read_ratio', *FIGURES):
                found[key], found[f'{key}_sd'] = mean_and_deviation(
                    [seed[row][policy][key] for seed in seeds])
            rows.append(found)
    return rows


def draw_reproduction(report: Mapping[str, Any]) -> 'Figure':
    """Draw Table 2 as bars, and accuracy over the read ratio."""
    rows = reproduction_rows(report)
    order = [row.name for row in ROWS]
    colours = dict(zip(order, COLOURS))
    figure = new_figure(11, 4.8)
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    held = {row.name for row in ROWS if row.hold}
    bars = [row for row in rows if row['policy'] == ALWAYS and row['row'] not in held]
    width = 0.8 / len(bars)
    for number, row in enumerate(bars):
        places = np.arange(len(FIGURES)) + (number - (len(bars) - 1) / 2) * width
        heights = [100 * (row[key] or 0.0) for key in FIGURES]
        spreads = [100 * (row[f'{key}_sd'] or 0.0) for key in FIGURES]
        left.bar(places, heights, width * 0.92, yerr=spreads, color=colours[row['row']],
                 ecolor=INK, error_kw={'linewidth': 0.8})
    left.set_xticks(range(len(FIGURES)), ['all', *GROUPS])
    left.set(ylabel='AP50, points', title='every frame read, by motion of the objects')
    left.grid(False, axis='x')
    for name in order:
        fixed = [row for row in rows if row['row'] == name and row['ap50'] is not None
                 and not row['policy'].startswith('threshold')]
        swept = [row for row in rows if row['row'] == name and row['ap50'] is not None
                 and row['policy'].startswith('threshold')]
        for part, style, label in ((fixed, 's--', name), (swept, 'o-', f'{name}: threshold(p)')):
            part.sort(key=lambda row: row['read_ratio'])
            if part:
                right.errorbar([row['read_ratio'] for row in part],
                               [100 * row['ap50'] for row in part],
                               yerr=[100 * (row['ap50_sd'] or 0.0) for row in part], fmt=style,
                               color=colours[name], markersize=4, linewidth=1.1, label=label,
                               elinewidth=0.7)
    right.invert_xaxis()
    right.set(xlabel='read ratio', ylabel='AP50, points',
              title='frames skipped; squares: always_read, alternate(k)')
    figure.legend(*right.get_legend_handles_labels(), loc='outside lower center', ncols=3)
    figure.suptitle(f'{report["recipe"]}: {len(report["seeds"])} seeds, {report["frames"]} '
                    'frames held out; bars are standard deviations', fontsize=10)
    return figure
