# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with training data, and the one exception that unusable data raises."""
from __future__ import annotations

from enum import Enum

from ..errors import InputError

#: How grave a finding is: nothing of the source can be read; training would suffer; good to know.
UNREADABLE, PROBLEM, REMARK = 'unreadable', 'problem', 'remark'


class Kind(Enum):
    """What is wrong: a title, and how grave it is."""

    SOURCE = ('source', UNREADABLE)
    BROKEN = ('broken entry', PROBLEM)
    MISSING_FILE = ('missing file', PROBLEM)
    MISSING_FRAME = ('missing frame', PROBLEM)
    PICTURE = ('broken picture', PROBLEM)
    WRONG_SIZE = ('wrong size', PROBLEM)
    UNKNOWN_CATEGORY = ('unknown category', PROBLEM)
    DUPLICATE = ('duplicate', PROBLEM)
    NOT_FINITE = ('box not finite', PROBLEM)
    NO_AREA = ('box without area', PROBLEM)
    SEQUENCES = ('sequences', PROBLEM)
    CLASS_WITHOUT_BOXES = ('class without boxes', PROBLEM)
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

    @property
    def title(self) -> str:
        """Return the kind in words."""
        return self.value[0]

    @property
    def severity(self) -> str:
        """Return UNREADABLE, PROBLEM or REMARK."""
        return self.value[1]


class DataError(InputError):
    """Training data cannot be used; the message is one line naming the file and the key."""

    def __init__(self, message: str, kind: Kind = Kind.BROKEN) -> None:
        """Say what is wrong, and of what kind it is."""
        super().__init__(message)
        self.kind = kind
