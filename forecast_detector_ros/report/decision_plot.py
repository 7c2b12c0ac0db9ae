# SPDX-License-Identifier: Apache-2.0
"""Picture the decisions of a recording over time."""
from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np

from ..detector.policy import FORECAST, READ
from ..recording.frame_record import RecordedFrame

COLOURS = {READ: 'tab:blue', FORECAST: 'tab:red'}


def plot_decisions(records: Sequence[RecordedFrame], path: str | Path, title: str) -> None:
    """
    Write a PNG with three panels over time: confidence, boxes, latency.

    Blue marks are read frames, red ones forecast frames, grey lines dropped ones; the dashed
    line is the threshold. The file appears under its name only when it is whole.
    """
    # A dollar in a title begins no formula.
    with rc_context({'text.parse_math': False}):
        figure = _draw(records, title)
        partial = Path(path).with_suffix('.part.png')
        FigureCanvasAgg(figure).print_figure(partial, dpi=110)
    os.replace(partial, path)


def _draw(records: Sequence[RecordedFrame], title: str) -> Figure:
    start = records[0].stamp_ns if records else 0
    figure = Figure(figsize=(11, 7.5), layout='constrained')
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1.5, 2))
    times = {kind: _seconds(records, kind, start) for kind in COLOURS}
    _panel(panels[0], records, times, 'confidence')
    thresholds = [(1e-9 * (record.stamp_ns - start), record.threshold) for record in records
                  if record.threshold is not None]
    if thresholds:
        panels[0].plot(*zip(*thresholds), color='black', linestyle='--', linewidth=1,
                       label='threshold')
    panels[0].set(ylabel='confidence in the forecast', ylim=(-0.03, 1.03), title=title)
    for kind, colour in COLOURS.items():
        # On the first frame, and where a policy has no use for it, there is no confidence:
        # the ticks along the bottom show every decision.
        panels[0].plot(times[kind], np.full(len(times[kind]), -0.015), '|', color=colour,
                       markersize=7)
    panels[0].legend(loc='upper right', ncols=3)
    for kind, colour in COLOURS.items():
        boxes = [len(record.labels) for record in records if record.kind == kind]
        panels[1].bar(times[kind], boxes, width=_bar_width(records), color=colour)
    panels[1].set(ylabel='boxes')
    _panel(panels[2], records, times, 'latency_ms')
    panels[2].set(ylabel='latency, ms', xlabel='time, s')
    panels[2].set_ylim(bottom=0)
    for record in records:
        if record.dropped:
            for panel in panels:
                panel.axvline(1e-9 * (record.stamp_ns - start), color='0.8', linewidth=1,
                              zorder=0)
    return figure


def _panel(panel: Axes, records: Sequence[RecordedFrame], times: dict[str, np.ndarray],
           quantity: str) -> None:
    for kind, colour in COLOURS.items():
        values = np.array([np.nan if getattr(record, quantity) is None
                           else getattr(record, quantity)
                           for record in records if record.kind == kind], float)
        panel.plot(times[kind], values, '.', color=colour, label=f'{kind} ({len(values)})')
    panel.grid(alpha=0.3)


def _seconds(records: Sequence[RecordedFrame], kind: str, start: int) -> np.ndarray:
    return np.array([1e-9 * (record.stamp_ns - start) for record in records
                     if record.kind == kind])


def _bar_width(records: Sequence[RecordedFrame]) -> float:
    if len(records) < 2:
        return 0.1
    return 1e-9 * (records[-1].stamp_ns - records[0].stamp_ns) / (len(records) - 1)
