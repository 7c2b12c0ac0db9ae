# SPDX-License-Identifier: Apache-2.0
"""Picture of a reproduction: Table 2 and Fig. 5 as means over seeds, with their spread."""

from collections.abc import Mapping
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TYPE_CHECKING

import numpy as np

from .figure_files import AMBER, BLUE, GREEN, INK, new_figure, RED, SOFT
from .reproduction import ALWAYS, ROWS
from ..evaluation.sequences import EvaluationError
from ..metrics.vid_ap import GROUPS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ('ap50', *GROUPS)

COLOURS = (SOFT, BLUE, AMBER, GREEN, '#7c3aed', '#0891b2', '#db2777', RED)
"""Of the rows, in the order of `ROWS`."""


def load_reproduction(path: Path) -> dict[str, Any]:
    """
    Read what `reproduce` wrote as ``results.json``.

    Raises
    ------
    EvaluationError
        If it is no such file.

    """
    try:
        report = json.loads(path.read_bytes())
    except OSError as error:
        raise EvaluationError(f'{path}: cannot be read: {error.strerror}') from None
    except ValueError as error:
        raise EvaluationError(f'{path}: not valid JSON: {error}') from None
    if not isinstance(report, dict) or not report.get('results'):
        raise EvaluationError(f'{path}: has no results; it must be results.json of reproduce')
    return report


def reproduction_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Give means and standard deviations (of the sample) over seeds as plain values.

    Returns
    -------
    list of dict
        One a row and policy: `row`, `policy`, `seeds`, and of `read_ratio`, `ap50` and the
        `GROUPS` the mean, with the deviation under the key with ``_sd`` behind; None where a seed
        has no figure, or there is one seed only.

    """
    seeds = list(report['results'].values())
    rows = []
    for row, policies in seeds[0].items():
        for policy in policies:
            found: dict[str, Any] = {'row': row, 'policy': policy, 'seeds': len(seeds)}
            for key in ('read_ratio', *FIGURES):
                values = [seed[row][policy][key] for seed in seeds]
                whole = None not in values
                found[key] = mean(values) if whole else None
                found[f'{key}_sd'] = stdev(values) if whole and len(values) > 1 else None
            rows.append(found)
    return rows


def draw_reproduction(report: Mapping[str, Any]) -> 'Figure':
    """Draw Table 2 as bars, and accuracy over the share of frames read."""
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
    right.set(xlabel='share of frames read', ylabel='AP50, points',
              title='frames skipped; squares: always_read, alternate(k)')
    figure.legend(*right.get_legend_handles_labels(), loc='outside lower center', ncols=3)
    figure.suptitle(f'{report["recipe"]}: {len(report["seeds"])} seeds, {report["frames"]} '
                    'frames held out; bars are standard deviations', fontsize=10)
    return figure
