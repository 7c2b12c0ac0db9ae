# SPDX-License-Identifier: Apache-2.0
"""Picture of streaming accuracy over frame rates, and its numbers as rows."""

from collections.abc import Mapping
from typing import Any, TYPE_CHECKING

from .figure_files import AMBER, BLUE, GREEN, INK, new_figure, RED
from ..evaluation.accuracy import HEADS, KEYS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Of policies, in turn.
COLOURS = (INK, BLUE, AMBER, GREEN, RED, '#7c3aed', '#0891b2', '#db2777')


def streaming_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turn the result of `streaming.sweep` into rows, one a policy and rate."""
    rows = []
    for run in result['runs']:
        row = {key: run[key] for key in ('policy', 'rate', 'processed', 'read_ratio',
                                         'unanswered', 'age_ms', 'mean_recall')}
        rows.append(row | {KEYS[name]: run[KEYS[name]]['mean'] for name in KEYS
                           if KEYS[name] in run})
    return rows


def draw_streaming(result: Mapping[str, Any], title: str) -> 'Figure':
    """Draw accuracy and age of what is known over the frame rate, a line a policy."""
    rows = streaming_rows(result)
    measure = next((key for key in KEYS.values() if key in rows[0]), 'mean_recall')
    heads = {KEYS[name]: f'streaming {head}' for name, head in HEADS.items()}
    figure = new_figure(9, 4)
    panels = figure.subplots(1, 2)
    policies = list(dict.fromkeys(row['policy'] for row in rows))
    for axes, key in zip(panels, (measure, 'age_ms')):
        for policy, colour in zip(policies, COLOURS * len(policies)):
            mine = [row for row in rows if row['policy'] == policy and row[key] is not None]
            mine.sort(key=lambda row: row['rate'])
            axes.plot([row['rate'] for row in mine], [row[key] for row in mine], 'o-',
                      color=colour, markersize=4, linewidth=1.4, label=policy)
        rates = sorted({row['rate'] for row in rows})
        axes.set_xscale('log')
        axes.set_xticks(rates, [f'{rate:g}' for rate in rates])
        axes.minorticks_off()
        axes.set_xlabel('frames per second of the camera')
    panels[0].set_ylabel(heads.get(measure, 'streaming recall'))
    panels[1].set_ylabel('mean age of what is known, ms')
    panels[1].set_ylim(bottom=0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', ncols=4)
    figure.suptitle(title, fontsize=10)
    return figure
