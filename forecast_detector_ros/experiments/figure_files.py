# SPDX-License-Identifier: Apache-2.0
"""Files of a figure: its picture and its numbers. The figure of streaming accuracy."""

from collections.abc import Mapping, Sequence
import csv
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, TYPE_CHECKING

from ..evaluation.accuracy import HEADS, KEYS
from ..evaluation.sequences import EvaluationError
from ..files import write_atomically, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, LINE = '#1f2937', '#6b7280', '#e5e7eb'
BLUE, RED, GREEN, AMBER = '#2563eb', '#dc2626', '#16a34a', '#d97706'

STYLE: dict[Any, Any] = {
    'font.family': 'DejaVu Sans', 'font.size': 9, 'axes.edgecolor': SOFT, 'axes.labelcolor': INK,
    'xtick.color': INK, 'ytick.color': INK, 'text.color': INK, 'axes.spines.top': False,
    'axes.spines.right': False, 'axes.grid': True, 'grid.color': LINE, 'axes.axisbelow': True,
    'axes.titlesize': 10, 'legend.frameon': False, 'legend.fontsize': 8,
    # A dollar in a name must not begin a formula.
    'text.parse_math': False}


def new_figure(width: float, height: float) -> 'Figure':
    """
    Make an empty figure in the common style.

    :param width, height: inches
    :raises EvaluationError: if matplotlib is missing
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise EvaluationError('pictures need matplotlib: pip install matplotlib') from None
    matplotlib.rcParams.update(STYLE)
    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: 'Figure', path: Path, ground: str = 'white') -> None:
    """Write a figure as PNG, 150 dots per inch, atomically; the ground `none` is transparent."""
    buffer = BytesIO()
    figure.savefig(buffer, format='png', dpi=150, facecolor=ground)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def save_numbers(folder: Path, name: str, document: Mapping[str, Any],
                 rows: Sequence[Mapping[str, Any]]) -> None:
    """
    Write ``NAME.json`` and ``NAME.csv``.

    :param folder, name: place of the files; the folder is made
    :param rows: for the CSV, all with the same keys; None becomes an empty cell
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f'{name}.json', document)
    buffer = StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    # The name of a sequence's folder need not be UTF-8.
    write_atomically(folder / f'{name}.csv', buffer.getvalue().encode(errors='surrogateescape'))


#: Colours of successive policies.
COLOURS = (INK, BLUE, AMBER, GREEN, RED, '#7c3aed', '#0891b2', '#db2777')


def streaming_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Convert the result of `streaming.sweep` to rows, one per policy and rate."""
    rows = []
    for run in result['runs']:
        row = {key: run[key] for key in ('policy', 'rate', 'processed', 'read_ratio',
                                         'unanswered', 'age_ms', 'mean_recall')}
        rows.append(row | {KEYS[name]: run[KEYS[name]]['mean'] for name in KEYS
                           if KEYS[name] in run})
    return rows


def draw_streaming(result: Mapping[str, Any], title: str) -> 'Figure':
    """Draw accuracy and age of the shown detections over the frame rate, a line per policy."""
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
    panels[1].set_ylabel('mean age of the shown detections, ms')
    panels[1].set_ylim(bottom=0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', ncols=4)
    figure.suptitle(title, fontsize=10)
    return figure
