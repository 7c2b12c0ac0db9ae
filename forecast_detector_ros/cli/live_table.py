# SPDX-License-Identifier: Apache-2.0
"""Show the frames of a recording as they come: a table in a terminal, plain lines elsewhere."""
from __future__ import annotations

from collections import Counter, deque
import sys
from types import TracebackType
from typing import Protocol, TextIO

try:
    from rich.live import Live
    from rich.table import Table
    RICH = True
except ImportError:
    RICH = False

from ..detector.policy import FORECAST, READ
from ..recording.frame_record import DROPPED, KINDS, RecordedFrame

ROWS = 16
COLUMNS = ('frame', 'decision', 'reason', 'confidence', 'boxes', 'latency ms', 'found')
STYLES = {READ: 'blue', FORECAST: 'red', DROPPED: 'dim'}
LINE = '{:>5}  {:<8}  {:<15}  {:>10}  {:>5}  {:>10}  {}'


class FrameDisplay(Protocol):
    """Something that shows frames, used as a context manager."""

    def __enter__(self) -> FrameDisplay: ...  # noqa: D105

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...  # noqa: D105

    def show(self, record: RecordedFrame) -> None:
        """Add a frame."""


def cells(number: int, record: RecordedFrame) -> tuple[str, ...]:
    """Return the text of each column of COLUMNS for frame `number`."""
    found = Counter(record.labels)
    return (
        str(number), record.kind, record.reason or '',
        '' if record.confidence is None else f'{record.confidence:.3f}',
        '' if record.dropped else str(len(record.labels)),
        '' if record.latency_ms is None else f'{record.latency_ms:.1f}',
        ', '.join(f'{count} {label}' for label, count in found.most_common(4)))


class Lines:
    """One line of text per frame, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        self._stream = stream
        self._number = 0

    def __enter__(self) -> Lines:
        """Print the header."""
        print(LINE.format(*COLUMNS).rstrip(), file=self._stream, flush=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Do nothing: every line is out already."""

    def show(self, record: RecordedFrame) -> None:
        """Print a frame."""
        self._number += 1
        print(LINE.format(*cells(self._number, record)).rstrip(), file=self._stream, flush=True)


class LiveTable:
    """The newest frames and the totals, redrawn in place by rich."""

    def __init__(self) -> None:
        """Prepare a table on the standard output."""
        self._number = 0
        self._totals: Counter[str] = Counter()
        self._rows: deque[tuple[str, tuple[str, ...]]] = deque(maxlen=ROWS)
        self._live = Live(get_renderable=self._table, refresh_per_second=8)

    def __enter__(self) -> LiveTable:
        """Begin to draw."""
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Draw a last time and leave the table standing."""
        self._live.__exit__(kind, error, trace)

    def show(self, record: RecordedFrame) -> None:
        """Add a frame; it is drawn with the next refresh."""
        self._number += 1
        self._totals[record.kind] += 1
        self._rows.append((record.kind, cells(self._number, record)))

    def _table(self) -> Table:
        totals = '   '.join(f'{kind} {self._totals[kind]}' for kind in KINDS)
        table = Table(caption=f'{self._number} frames:   {totals}', expand=False)
        for column in COLUMNS:
            numeric = column in ('frame', 'confidence', 'boxes', 'latency ms')
            table.add_column(column, justify='right' if numeric else 'left', no_wrap=True)
        for kind, row in self._rows:
            table.add_row(*row, style=STYLES[kind])
        return table


def open_display(plain: bool = False) -> FrameDisplay:
    """Return a live table for a terminal, lines when `plain`, without one or without rich."""
    if plain or not RICH or not sys.stdout.isatty():
        return Lines(sys.stdout)
    return LiveTable()
