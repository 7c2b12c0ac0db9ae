# SPDX-License-Identifier: Apache-2.0
"""
The HTML report on one run, or on two runs side by side.

It is one file with its pictures and without scripts. Its content security policy forbids scripts
and loading other files, also for text from a run.
"""
from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
import math
from pathlib import Path
from typing import Any

from .noted_frames import noted_pictures, NotedPicture
from .report_figures import as_svg, Draw, FIGURES
from .run_record import (
    Accuracy,
    latency_rows,
    load_run,
    PERCENTILES,
    RUN_NAME,
    RunRecord,
    RunRecordError,
    RunView,
)
from ..detector.policy import FORECAST, READ
from ..files import write_atomically
from ..recording.recorded_frame import DROPPED

REPORT_NAME = 'report.html'  #: The report in a folder of results
TEMPLATE = 'templates/report.html.j2'

#: Width of a figure in inches: alone on a screen, next to another one, and on a phone.
WIDE, HALF, NARROW = 9.6, 5.0, 3.6
MOST_CLASSES = 40  #: Most rows of the table of classes
DASH = '–'


@dataclass(frozen=True)
class LoadedRun:
    """A run, and the folder of its relative file names."""

    record: RunRecord
    folder: Path
    name: str  #: Name in the report, which distinguishes two runs


def load_for_report(path: Path) -> LoadedRun:
    """Read a record of a run, a file or a folder of results; raises RunRecordError."""
    file = path / RUN_NAME if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise RunRecordError(f'{path}: there is no {RUN_NAME} in it; replay and demo write '
                             'one, evaluate with --run')
    if not file.exists():
        raise RunRecordError(f'{path}: no such folder or file; a run is a folder of replay or '
                             'demo, or a file of evaluate accuracy --run')
    name = file.resolve().parent.name if file.name == RUN_NAME else file.stem
    return LoadedRun(load_run(file), file.parent, name)


def write_report(path: Path, runs: Sequence[LoadedRun]) -> None:
    """Write the report on one or two runs atomically; raises as `render_report`."""
    text = render_report(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name of a folder may not be UTF-8.
    write_atomically(path, text.encode(errors='replace'))


def render_report(runs: Sequence[LoadedRun]) -> str:
    """
    Return the report as HTML.

    :param runs: one or two runs
    :raises RunRecordError: if a run has no frames, or Jinja2 is missing
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise RunRecordError('the report needs the Python package Jinja2 (pip install jinja2): '
                             f'{error}') from None
    for run in runs:
        if not run.record.frames:
            raise RunRecordError(f'{run.name}: has no frames to report on')
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)
    template = environment.from_string((files(__package__) / TEMPLATE).read_text('utf-8'))
    names = _names(runs)
    return template.render(
        names=names, title=' and '.join(dict.fromkeys(run.record.title for run in runs)),
        subtitle=_subtitle(runs), both=len(runs) == 2,
        runs=[_run(run, len(runs) == 2) for run in runs],
        overview=_overview(runs), ran=_ran(runs), sequences=_sequences(runs),
        class_counts=_class_counts(runs), classes=_classes(runs), objects=_objects(runs),
        latencies=[latency_rows(RunView.of(run.record)) for run in runs],
        percentiles=[f'p{p}' for p in PERCENTILES], number=_number)


def _subtitle(runs: Sequence[LoadedRun]) -> str:
    if len(runs) == 2:
        return 'two runs side by side'
    record = runs[0].record
    model, policy = record.model.get('name'), record.settings.get('policy')
    return ', '.join(filter(None, ('one run', model and f'model {model}',
                                   policy and f'policy {policy}')))


def _names(runs: Sequence[LoadedRun]) -> list[str]:
    if len(runs) == 2 and runs[0].name == runs[1].name:
        return [f'A: {runs[0].name}', f'B: {runs[1].name}']
    return [run.name for run in runs]


def _run(run: LoadedRun, half: bool) -> dict[str, Any]:
    record, view = run.record, RunView.of(run.record)
    wanted = {
        'decisions': True, 'latency': bool(latency_rows(view)), 'classes': bool(view.classes()),
        'precision_recall': any(item.boxes for item in (record.accuracy
                                                        or Accuracy(None, None)).classes)}
    return {
        'figures': {name: _figure(draw, record, half) for name, draw in FIGURES.items()
                    if wanted[name]},
        'rule': record.noted_rule,
        'noted': [_noted(picture) for picture in noted_pictures(record.noted, run.folder)]}


def _figure(draw: Draw, run: RunRecord, half: bool) -> dict[str, str]:
    return {size: _data('svg+xml', as_svg(draw, run, width).encode())
            for size, width in (('wide', HALF if half else WIDE), ('narrow', NARROW))}


def _noted(picture: NotedPicture) -> dict[str, Any]:
    frame = picture.frame
    place = frame.sequence if frame.topic is None or frame.topic in frame.sequence else (
        f'{frame.sequence} {frame.topic}')
    return {'place': place, 'number': frame.number, 'kind': frame.kind, 'note': frame.note,
            'missing': picture.missing,
            'picture': None if picture.jpeg is None else _data('jpeg', picture.jpeg)}


def _data(kind: str, content: bytes) -> str:
    return f'data:image/{kind};base64,{b64encode(content).decode()}'


def _overview(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return name, text for each run, and change of the figures at the top."""
    columns = [_figures(run.record) for run in runs]
    rows = []
    for name in columns[0]:
        values = [column[name] for column in columns]
        if all(value is None for value, _ in values):
            continue
        rows.append({'name': name, 'values': [_text(*value) for value in values],
                     'change': _change(values)})
    return rows


def _figures(run: RunRecord) -> dict[str, tuple[float | None, str]]:
    """Return value and format of each figure of the overview."""
    frames = run.frames
    kinds = [frame.kind for frame in frames]
    read, forecast = kinds.count(READ), kinds.count(FORECAST)
    rows = {row['decision']: row for row in latency_rows(RunView.of(run))}
    accuracy = run.accuracy or Accuracy(None, None)
    boxes = [item.boxes for item in run.sequences if item.boxes is not None]
    numbered = [item.numbered for item in run.sequences if item.numbered is not None]
    identities = run.identities

    def spread(kind: str, figure: str) -> tuple[float | None, str]:
        return (float(rows[kind][figure]) if kind in rows else None), '{:.1f} ms'

    return {
        'frames': (len(frames), '{:.0f}'),
        'read': (read, '{:.0f}'), 'forecast': (forecast, '{:.0f}'),
        'dropped': (len(frames) - read - forecast, '{:.0f}'),
        'read ratio': (read / (read + forecast) if read + forecast else None, '{:.3f}'),
        'p50 of a read': spread(READ, 'p50'), 'p95 of a read': spread(READ, 'p95'),
        'p50 of a forecast': spread(FORECAST, 'p50'),
        'p95 of a forecast': spread(FORECAST, 'p95'),
        'boxes found': (sum(len(frame.labels) for frame in frames), '{:.0f}'),
        'boxes annotated': (sum(boxes) if boxes else None, '{:.0f}'),
        'AP50': (accuracy.ap50, '{:.3f}'),
        'mean recall': (accuracy.mean_recall, '{:.3f}'),
        'objects numbered': (sum(numbered) if numbered else None, '{:.0f}'),
        'identity switches': (None if identities is None else identities.switches, '{:.0f}'),
        'IDF1': (None if identities is None else identities.idf1, '{:.3f}'),
        'HOTA': (None if identities is None else identities.hota, '{:.3f}')}


def _text(value: float | None, form: str) -> str:
    return DASH if value is None else form.format(value)


def _change(values: Sequence[tuple[float | None, str]]) -> str:
    if len(values) < 2 or values[0][0] is None or values[1][0] is None:
        return ''
    return values[0][1].replace('{:', '{:+').format(values[1][0] - values[0][0])


def _ran(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return the facts of the runs in groups; rows in which two runs differ are marked."""
    groups = []
    for title, key in (('Video', 'source'), ('Model', 'model'), ('Settings', 'settings'),
                       ('Machine', 'machine')):
        columns: list[dict[str, Any]] = [getattr(run.record, key) for run in runs]
        keys = dict.fromkeys(name for column in columns for name in column)
        rows = []
        for name in keys:
            values = [_plain(column.get(name)) for column in columns]
            if any(value != DASH for value in values):
                rows.append({'name': name.replace('_', ' '), 'values': values,
                             'differs': len(set(values)) > 1})
        if rows:
            groups.append({'title': title, 'rows': rows})
    return groups


def _plain(value: Any) -> str:
    if value in (None, '', [], {}):
        return DASH
    if isinstance(value, dict):
        return ', '.join(f'{key} {_plain(item)}' for key, item in value.items())
    if isinstance(value, list | tuple):
        return ', '.join(_plain(item) for item in value)
    return f'{value:.6g}' if isinstance(value, float) else str(value)


def _sequences(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return frames, read ratio, boxes and recall of each sequence, by its name."""
    columns: list[dict[str, dict[str, Any]]] = []
    for run in runs:
        rows = {}
        for item in run.record.sequences:
            kinds = [frame.kind for frame in item.frames]
            answered = len(kinds) - kinds.count(DROPPED)
            rows[item.name] = {
                'frames': len(kinds), 'boxes': item.boxes, 'recall': item.recall,
                'read': kinds.count(READ) / answered if answered else None}
        columns.append(rows)
    nothing = dict.fromkeys(('frames', 'boxes', 'recall', 'read'))
    return [{'name': name, 'values': [column.get(name, nothing) for column in columns]}
            for name in dict.fromkeys(name for column in columns for name in column)]


def _objects(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return the object figures of each sequence, and their totals if there are several."""
    rows = []
    for run, name in zip(runs, _names(runs)):
        sequences = run.record.sequences
        entries = [(item.name, item.numbered, item.identities) for item in sequences]
        known = [count for _, count, _ in entries if count is not None]
        if len(sequences) > 1:
            entries.append(('all', sum(known), run.record.identities))
        rows += [{'run': name, 'name': title, 'numbered': count, 'truth': identities}
                 for title, count, identities in entries if known]
    return rows


def _class_counts(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    columns = [dict(RunView.of(run.record).classes()) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [{'name': name, 'values': [column.get(name, 0) for column in columns]}
            for name in sorted(names, key=lambda name: -max(column.get(name, 0)
                                                            for column in columns))]
    return rows[:MOST_CLASSES]


def _classes(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return boxes, detections and AP50 of each class, those with most boxes first."""
    columns = [{item.label: item for item in run.record.accuracy.classes}
               if run.record.accuracy else {} for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [{'name': name, 'boxes': max(column[name].boxes for column in columns
                                        if name in column),
             'values': [{'detections': column[name].detections, 'ap50': column[name].ap50}
                        if name in column else {'detections': None, 'ap50': None}
                        for column in columns]}
            for name in names]
    return sorted(rows, key=lambda row: -row['boxes'])


def _number(value: float | None, digits: int = 3) -> str:
    """Return the text of a number in a table; a dash for None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return DASH
    return f'{value:.{digits}f}' if isinstance(value, float) else str(value)
