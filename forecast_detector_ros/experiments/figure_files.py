# SPDX-License-Identifier: Apache-2.0
"""Files of a figure: the picture, and its numbers beside it as CSV and JSON."""

from collections.abc import Mapping, Sequence
import csv
from io import BytesIO, StringIO
import json
from pathlib import Path
from typing import Any, TYPE_CHECKING

from ..evaluation.sequences import EvaluationError
from ..files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, LINE = '#1f2937', '#6b7280', '#e5e7eb'
BLUE, RED, GREEN, AMBER = '#2563eb', '#dc2626', '#16a34a', '#d97706'

STYLE: dict[Any, Any] = {
    'font.family': 'DejaVu Sans', 'font.size': 9, 'axes.edgecolor': SOFT, 'axes.labelcolor': INK,
    'xtick.color': INK, 'ytick.color': INK, 'text.color': INK, 'axes.spines.top': False,
    'axes.spines.right': False, 'axes.grid': True, 'grid.color': LINE, 'axes.axisbelow': True,
    'axes.titlesize': 10, 'legend.frameon': False, 'legend.fontsize': 8,
    # A dollar in a name begins no formula.
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
    """Write a figure as PNG, 150 dots an inch; whole or not at all. `none` is transparent."""
    buffer = BytesIO()
    figure.savefig(buffer, format='png', dpi=150, facecolor=ground)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def save_numbers(folder: Path, name: str, document: Mapping[str, Any],
                 rows: Sequence[Mapping[str, Any]]) -> None:
    """
    Write ``NAME.json`` and ``NAME.csv``.

    :param folder, name: where; the folder is made
    :param rows: for the CSV, all with the same keys; None becomes an empty cell
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f'{name}.json',
                     (json.dumps(document, indent=1, allow_nan=False) + '\n').encode())
    buffer = StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / f'{name}.csv', buffer.getvalue().encode())
