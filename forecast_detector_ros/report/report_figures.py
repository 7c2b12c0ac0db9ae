# SPDX-License-Identifier: Apache-2.0
"""The figures of the report, and the plot of decisions and latency over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
import numpy as np

from .run_record import Accuracy, RunRecord, RunView
from ..detector.policy import FORECAST, READ
from ..files import write_atomically
from ..metrics.average_precision import RECALLS
from ..recording.recorded_frame import DROPPED, RecordedFrame

COLOURS = {READ: '#2563eb', FORECAST: '#dc2626', DROPPED: '#9ca3af'}
INK, SOFT, LINE = '#1f2937', '#6b7280', '#e5e7eb'
HEAT = LinearSegmentedColormap.from_list('boxes', ['#eff6ff', '#60a5fa', '#1e3a8a'])

MOST_CLASSES = 12  #: Most classes with their own row
MOST_CURVES = 8  #: Most classes with their own curve
#: With more frames, points are drawn as pixels in the SVG, to limit its size.
MOST_POINTS = 3000
STYLE: dict[Any, Any] = {
    'font.family': 'DejaVu Sans', 'font.size': 9, 'axes.edgecolor': LINE, 'axes.labelcolor': INK,
    'xtick.color': SOFT, 'ytick.color': SOFT, 'text.color': INK, 'axes.spines.top': False,
    'axes.spines.right': False, 'axes.grid': True, 'grid.color': '#f3f4f6', 'axes.axisbelow': True,
    'axes.titlesize': 10, 'axes.titleweight': 'bold', 'axes.titlelocation': 'left',
    'legend.frameon': False, 'svg.hashsalt': 'report', 'axes.linewidth': 0.8,
    'xtick.major.size': 3, 'ytick.major.size': 3,
    # A dollar in a name must not start a formula.
    'text.parse_math': False}

Draw = Callable[[RunRecord, float], Figure]  #: Draws a figure of a run; the width is in inches


def as_svg(draw: Draw, run: RunRecord, width: float) -> str:
    """Draw a figure of a run as SVG, `width` inches wide (96 CSS pixels per inch)."""
    with rc_context(STYLE):
        figure = draw(run, width)
        FigureCanvasSVG(figure)
        buffer = StringIO()
        figure.savefig(buffer, format='svg', metadata={'Date': None}, dpi=192)
    text = buffer.getvalue()
    return text[text.index('<svg'):]


def decisions(run: RunRecord, width: float) -> Figure:
    """Draw confidence, threshold and decisions over time, and the moving read ratio."""
    view = RunView.of(run)
    figure = Figure(figsize=(width, 4.3), layout='constrained')
    panels = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    confidence = view.values('confidence')
    raster = len(view.frames) > MOST_POINTS
    for kind, colour in COLOURS.items():
        rows = view.rows(kind)
        if not len(rows):
            continue
        size = 3 if len(view.frames) > 300 else 4
        if kind != DROPPED:
            panels[0].plot(view.x[rows], confidence[rows], 'o', color=colour, markersize=size,
                           markeredgewidth=0, rasterized=raster, label=f'{kind} ({len(rows)})')
        panels[0].plot(view.x[rows], np.full(len(rows), -0.06), '|', color=colour, markersize=6,
                       rasterized=raster, label=f'{kind} ({len(rows)})' if kind == DROPPED
                       else None)
    threshold = view.values('threshold')
    if np.isfinite(threshold).any():
        panels[0].plot(view.x, threshold, color=INK, linestyle='--', linewidth=1,
                       label='threshold')
    if not np.isfinite(confidence).any():
        panels[0].text(0.5, 0.5, 'no confidence was recorded', transform=panels[0].transAxes,
                       ha='center', color=SOFT)
    panels[0].set(ylim=(-0.11, 1.05), title='confidence in the forecast')
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside upper left',
                  ncols=2 if width < 5 else 4, handletextpad=0.4, columnspacing=1.2)
    place, ratio = view.read_ratio()
    panels[1].fill_between(place, ratio, color=COLOURS[READ], alpha=0.12, linewidth=0)
    panels[1].plot(place, ratio, color=COLOURS[READ], linewidth=1.2)
    panels[1].set(ylim=(0, 1.05), title='read ratio, moving', xlabel=view.unit)
    for panel in panels:
        _mark_sequences(panel, view, width, names=panel is panels[0])
    return figure


def latency(run: RunRecord, width: float) -> Figure:
    """Draw the histogram of latencies by decision, and latency over time."""
    view = RunView.of(run)
    wide = width > 6
    figure = Figure(figsize=(width, 3.0 if wide else 4.8), layout='constrained')
    spread, course = figure.subplots(*((1, 2) if wide else (2, 1)))
    values = view.values('latency_ms')
    known = values[np.isfinite(values)]
    # A single outlier must not move all other latencies into one bin.
    limit = float(np.percentile(known, 99.5)) * 1.1 if len(known) else 1.0
    edges = np.linspace(0, limit if limit > 0 else 1.0, 61)
    for kind in (READ, FORECAST):
        rows = view.rows(kind)
        mine = values[rows]
        mine = mine[np.isfinite(mine)]
        if not len(mine):
            continue
        spread.hist(np.minimum(mine, edges[-1]), edges, color=COLOURS[kind], alpha=0.75,
                    label=f'{kind}, p50 {np.median(mine):.1f} ms')
        spread.axvline(float(np.median(mine)), color=COLOURS[kind], linewidth=1)
        course.plot(view.x[rows], values[rows], 'o', color=COLOURS[kind], markersize=2.5,
                    markeredgewidth=0, rasterized=len(view.frames) > MOST_POINTS)
    spread.set(title='frames by latency', xlabel='latency, ms', xlim=(0, edges[-1]))
    course.set(title='latency over time, ms', xlabel=view.unit)
    course.set_ylim(0, None)
    figure.legend(*spread.get_legend_handles_labels(), loc='outside upper left',
                  ncols=1 if width < 4 else 2)
    _mark_sequences(course, view, width / 2 if wide else width)
    return figure


def classes(run: RunRecord, width: float) -> Figure:
    """Draw a heat map of the boxes per frame of each class over time."""
    view = RunView.of(run)
    labels = [label for label, _ in view.classes()[:MOST_CLASSES]]
    figure = Figure(figsize=(width, 1.3 + 0.27 * max(len(labels), 2)), layout='constrained')
    panel = figure.subplots()
    edges, density = view.density(labels, round(width * 20))
    panel.grid(False)
    if labels:
        mesh = panel.pcolormesh(edges, np.arange(len(labels) + 1) - 0.5, density, cmap=HEAT,
                                vmin=0, rasterized=True)
        figure.colorbar(mesh, ax=panel, label='boxes per frame', pad=0.01,
                        aspect=12).outline.set_visible(False)  # type: ignore[operator]
        panel.set_yticks(range(len(labels)), labels)
        panel.tick_params(axis='y', length=0, labelcolor=INK)
        panel.invert_yaxis()
        for row in range(1, len(labels)):
            panel.axhline(row - 0.5, color='white', linewidth=1.5)
    panel.set_xlabel(view.unit)
    _mark_sequences(panel, view, width)
    return figure


def precision_recall(run: RunRecord, width: float) -> Figure:
    """Draw precision over recall of the classes with most boxes, and the AP of all classes."""
    accuracy = run.accuracy or Accuracy(None, None)
    known = sorted((item for item in accuracy.classes if item.boxes and item.ap50 is not None),
                   key=lambda item: -item.boxes)
    wide = width > 6
    bars = 0.9 + 0.23 * len(known)
    figure = Figure(figsize=(width, max(3.4, bars) if wide else 3.4 + bars),
                    layout='constrained')
    curves, areas = (figure.subplots(1, 2) if wide else
                     figure.subplots(2, 1, height_ratios=(3.4, bars)))
    palette = ['#2563eb', '#dc2626', '#059669', '#d97706', '#7c3aed', '#0891b2', '#db2777',
               '#4d7c0f']
    colours = {}
    for item, colour in zip(known[:MOST_CURVES], palette):
        colours[item.label] = colour
        curves.plot(RECALLS, item.precision, color=colour, linewidth=1.3, label=item.label)
    if known:
        mean = np.mean([item.precision for item in known], axis=0)
        curves.plot(RECALLS, mean, color=INK, linewidth=2, label='mean')
        curves.legend(fontsize=8, loc='lower left', ncols=2, handlelength=1.2)
    curves.set(xlim=(0, 1), ylim=(0, 1.03), title='precision over recall, IoU 0.5',
               xlabel='recall')
    places = range(len(known))
    areas.barh(places, [item.ap50 or 0.0 for item in known], height=0.7,
               color=[colours.get(item.label, '#9ca3af') for item in known])
    for place, item in zip(places, known):
        areas.text((item.ap50 or 0.0) + 0.01, place, f'{item.ap50:.2f}  ({item.boxes})',
                   va='center', fontsize=8, color=SOFT)
    areas.set_yticks(places, [item.label for item in known])
    areas.tick_params(axis='y', length=0, labelcolor=INK)
    areas.invert_yaxis()
    areas.grid(axis='y', visible=False)
    areas.set(xlim=(0, 1.22), xticks=np.linspace(0, 1, 6), title='AP50 (annotated boxes)')
    return figure


def _mark_sequences(panel: Axes, view: RunView, width: float, names: bool = False) -> None:
    """Draw a line at the start of each sequence, and its name if there is space."""
    if len(view.starts) < 2:
        return
    ends = [*(start for _, start in view.starts[1:]), float(len(view.frames))]
    for _, start in view.starts[1:]:
        panel.axvline(start - 0.5, color='#cbd5e1', linewidth=0.8, zorder=0)
    for (name, start), end in zip(view.starts, ends):
        # A letter of this size is about 0.065 inches wide.
        if names and (end - start) / max(len(view.frames), 1) * width > 0.065 * len(name):
            panel.text((start + end) / 2, 1.01, name, fontsize=7, color=SOFT, ha='center',
                       va='bottom', transform=panel.get_xaxis_transform())
    panel.set_xlim(-0.5, len(view.frames) - 0.5)


#: Figures of a report by name.
FIGURES: dict[str, Draw] = {'decisions': decisions, 'latency': latency, 'classes': classes,
                            'precision_recall': precision_recall}


KIND_COLOURS = {READ: 'tab:blue', FORECAST: 'tab:red'}


def plot_decisions(records: Sequence[RecordedFrame], path: str | Path, title: str) -> None:
    """
    Write a PNG with three panels over time: confidence, boxes, latency.

    Blue marks are read frames, red marks forecast frames, and grey lines dropped frames. The
    dashed line is the threshold. The file is written atomically.
    """
    # A dollar in a title must not start a formula.
    with rc_context({'text.parse_math': False}):
        picture = BytesIO()
        FigureCanvasAgg(_draw(records, title)).print_figure(picture, dpi=110)
    write_atomically(Path(path), picture.getvalue())


def _draw(records: Sequence[RecordedFrame], title: str) -> Figure:
    start = records[0].stamp_ns if records else 0
    figure = Figure(figsize=(11, 7.5), layout='constrained')
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1.5, 2))
    times = {kind: _seconds(records, kind, start) for kind in KIND_COLOURS}
    _panel(panels[0], records, times, 'confidence')
    thresholds = [(1e-9 * (record.stamp_ns - start), record.threshold) for record in records
                  if record.threshold is not None]
    if thresholds:
        panels[0].plot(*zip(*thresholds), color='black', linestyle='--', linewidth=1,
                       label='threshold')
    panels[0].set(ylabel='confidence in the forecast', ylim=(-0.03, 1.03), title=title)
    for kind, colour in KIND_COLOURS.items():
        # Some frames have no confidence, such as the first one, so ticks at the bottom show all
        # decisions.
        panels[0].plot(times[kind], np.full(len(times[kind]), -0.015), '|', color=colour,
                       markersize=7)
    # Inside a panel the legend would hide frames.
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside upper right', ncols=4)
    for kind, colour in KIND_COLOURS.items():
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
    for kind, colour in KIND_COLOURS.items():
        # NumPy makes NaN of None.
        values = np.array([getattr(record, quantity) for record in records
                           if record.kind == kind], float)
        panel.plot(times[kind], values, '.', color=colour, label=f'{kind} ({len(values)})')
    panel.grid(alpha=0.3)


def _seconds(records: Sequence[RecordedFrame], kind: str, start: int) -> np.ndarray:
    return np.array([1e-9 * (record.stamp_ns - start) for record in records
                     if record.kind == kind])


def _bar_width(records: Sequence[RecordedFrame]) -> float:
    if len(records) < 2:
        return 0.1
    return 1e-9 * (records[-1].stamp_ns - records[0].stamp_ns) / (len(records) - 1)
