# SPDX-License-Identifier: Apache-2.0
"""
Errors in annotations: a reader stops at the first one, or records it and continues.

A reader passes the DataError of an unusable entry to `fault`, and skips the entry if that returns.
It passes remarks to `note`.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Protocol

from ..errors import InputError

#: Severity of a finding: nothing of the source can be read; training would suffer; information.
UNREADABLE, PROBLEM, REMARK = 'unreadable', 'problem', 'remark'


class Kind(Enum):
    """A kind of error: its title and severity."""

    SOURCE = ('source', UNREADABLE)
    BROKEN = ('broken entry', PROBLEM)
    MISSING_FILE = ('missing file', PROBLEM)
    OUTSIDE = ('file outside', PROBLEM)
    MISSING_FRAME = ('missing frame', PROBLEM)
    PICTURE = ('broken picture', PROBLEM)
    WRONG_SIZE = ('wrong size', PROBLEM)
    UNKNOWN_CATEGORY = ('unknown category', PROBLEM)
    DUPLICATE = ('duplicate', PROBLEM)
    NOT_FINITE = ('box not finite', PROBLEM)
    NO_AREA = ('box without area', PROBLEM)
    SEQUENCES = ('sequences', PROBLEM)
    NO_BOXES = ('no boxes', PROBLEM)
    CLASS_WITHOUT_BOXES = ('class without boxes', REMARK)
    BEYOND = ('box beyond the picture', REMARK)
    EMPTY_VIDEO = ('video without boxes', REMARK)
    UNLABELLED_CLASS = ('class not in source', REMARK)
    NOT_TRAINED = ('category not trained', REMARK)
    LISTED_TWICE = ('listed twice', REMARK)
    EXCLUDE = ('exclude', REMARK)
    SPLIT_GROUP = ('split group', REMARK)
    SMALL = ('small box', REMARK)
    ONLY_CUTOUTS = ('class without boxes but cut-outs', REMARK)
    IMBALANCE = ('imbalance', REMARK)

    def __init__(self, title: str, severity: str) -> None:
        """Set title and severity: UNREADABLE, PROBLEM or REMARK."""
        self.title, self.severity = title, severity


#: Error message of a training of motion without tracks.
NO_TRACKS = ('a forecast of motion needs videos with a track_id in their boxes, and none has one; '
             '`label` writes it')


class DataError(InputError):
    """Training data cannot be used; the message is one line naming the file and the key."""

    def __init__(self, message: str, kind: Kind = Kind.BROKEN) -> None:
        """Set the message and the kind of the error."""
        super().__init__(message)
        self.kind = kind


class Findings(Protocol):
    """Receives the errors."""

    def fault(self, error: DataError) -> None:
        """Receive the error of an unusable entry."""

    def note(self, kind: Kind, text: str) -> None:
        """Receive a remark of one line, after which reading continues."""


class Strict:
    """Raises the first fault and ignores notes: for training."""

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


def check_classes(classes: Collection[str], known: Collection[str], where: str,
                  findings: Findings) -> None:
    """Raise DataError if none of the classes is labelled; note each one that is not."""
    if not set(classes) & set(known):
        raise DataError(f'{where}: none of the classes ({", ".join(classes)}) is here; it has '
                        f'{", ".join(known)}', Kind.SOURCE)
    for name in classes:
        if name not in known:
            findings.note(Kind.UNLABELLED_CLASS, f'{where}: no {name}; where one is in a picture, '
                                                 'it is taught as background')
