# SPDX-License-Identifier: Apache-2.0
"""
What a reader of annotations does with a mistake: stop at the first, or note it and go on.

The readers are written once. Where an entry is unusable they hand a DataError to `fault`, and
leave the entry out if that returns; what is no reason to stop they hand to `note`.
"""
from __future__ import annotations

from typing import Protocol

from .errors import DataError, Kind


class Findings(Protocol):
    """Who is told of mistakes."""

    def fault(self, error: DataError) -> None:
        """Take an unusable entry."""

    def note(self, kind: Kind, text: str) -> None:
        """Take something that does not keep anybody from reading on; one line."""


class Strict:
    """Raises the first fault and passes over notes: for training."""

    def fault(self, error: DataError) -> None:
        """Raise the error."""
        raise error

    def note(self, kind: Kind, text: str) -> None:
        """Do nothing."""


class Collected:
    """Keeps everything, up to a number of lines of each kind: for checking."""

    def __init__(self, most: int | None = None) -> None:
        """Keep at most `most` lines of each kind (None: all); all are counted."""
        self._most = most
        self.lines: dict[Kind, list[str]] = {}
        self.counts: dict[Kind, int] = {}

    def fault(self, error: DataError) -> None:
        """Keep the error's message under its kind."""
        self.note(error.kind, str(error))

    def note(self, kind: Kind, text: str) -> None:
        """Keep a line."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        lines = self.lines.setdefault(kind, [])
        if self._most is None or len(lines) < self._most:
            lines.append(text)

    def count(self, severity: str) -> int:
        """Return how many findings of a severity there are."""
        return sum(count for kind, count in self.counts.items() if kind.severity == severity)
