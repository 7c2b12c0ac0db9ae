# SPDX-License-Identifier: Apache-2.0
"""Plots of a benchmark: the time of a frame and of its parts, and of other detectors."""
from __future__ import annotations

from collections.abc import Callable, Sequence
import io
from pathlib import Path
from typing import Any

from .document import own_build, Run
from ..files import write_atomically

OWN, OTHER, BATCH = 'tab:blue', 'tab:gray', 'tab:orange'


def write_plots(run: Run, folder: Path) -> list[str]:
    """
    Write the plots for which the run has figures as PNG files, atomically.

    :returns: the names of the files
    :raises ImportError: if matplotlib, which is imported here, is missing
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawings: dict[str, tuple[Callable[[Run, Any], bool], float]] = {
        'benchmark_steps.png': (_steps, 0.28), 'benchmark_parts.png': (_parts, 0.28),
        'benchmark_batches.png': (_batches, 0.0), 'benchmark_graph.png': (_graph, 0.28)}
    written = []
    for name, (draw, height) in drawings.items():
        bars = len(run['timings']) if height else 0
        # A dollar in a name must not begin a formula.
        with rc_context({'text.parse_math': False}):
            figure = Figure(figsize=(9, max(4.0, min(9.0, height * bars))), layout='constrained')
            FigureCanvasAgg(figure)
            if not draw(run, figure.subplots()):
                continue
            data = io.BytesIO()
            figure.savefig(data, format='png', dpi=110)
        write_atomically(folder / name, data.getvalue())
        written.append(name)
    return written


def _bars(axes: Any, names: Sequence[str], values: Sequence[float],
          colours: str | Sequence[str], errors: Sequence[Sequence[float]] | None = None) -> None:
    axes.barh(range(len(names)), values, color=colours, xerr=errors, ecolor='0.3')
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    for place, value in enumerate(values):
        axes.text(value, place, f' {value:.3g}', va='center', fontsize=8)
    axes.margins(x=0.12)


def _steps(run: Run, axes: Any) -> bool:
    rows = sorted((row for row in run['timings'] if row['group'] in ('step', 'peer')),
                  key=lambda row: row['median_ms'])
    if not rows:
        return False
    medians = [row['median_ms'] for row in rows]
    _bars(axes, [row['name'] for row in rows], medians,
          [OWN if row['group'] == 'step' else OTHER for row in rows],
          [[0.0] * len(rows), [max(0.0, row['p95_ms'] - row['median_ms']) for row in rows]])
    axes.set(xlabel='ms, median and p95', title='Blue: this detector; grey: others')
    _logarithmic(axes)
    return True


def _parts(run: Run, axes: Any) -> bool:
    rows = [row for row in run['timings'] if row['group'] == 'part']
    if not rows:
        return False
    _bars(axes, [row['name'] for row in rows], [row['median_ms'] for row in rows], OWN)
    axes.set(xlabel='ms, median', title='Parts of a frame')
    _logarithmic(axes)
    return True


def _logarithmic(axes: Any) -> None:
    axes.set_xscale('log')
    # The default labels are formulas.
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter('')


def _batches(run: Run, axes: Any) -> bool:
    label = own_build(run)
    shown = False
    for step, colour in (('read step', OWN), ('forecast step', BATCH)):
        rows = [row for row in run['timings'] if row['name'] == f'{step} {label}'
                or row['name'].startswith(f'{step} {label} x')]
        if len(rows) > 1:
            single = next(row['median_ms'] for row in rows if row['batch'] == 1)
            rows.sort(key=lambda row: row['batch'])
            axes.plot([row['batch'] for row in rows],
                      [row['median_ms'] / row['batch'] / single for row in rows],
                      marker='o', color=colour, label=step)
            shown = True
    axes.axhline(1.0, color='0.6', linestyle='--')
    axes.set(xlabel='streams in a batch', ylabel='cost of a stream, 1: alone', ylim=(0, None))
    if shown:
        axes.legend()
    return shown


def _graph(run: Run, axes: Any) -> bool:
    rows = run.get('graph') or []
    if not rows:
        return False
    _bars(axes, [f"{row['node']}, {row['size']}, {row['transport']}, {row['policy']}"
                 for row in rows], [row['cpu_ms_per_frame'] for row in rows],
          [OWN if row['node'] == 'detector' else OTHER for row in rows])
    axes.set(xlabel='CPU ms per frame of the process', title='End to end')
    return True
