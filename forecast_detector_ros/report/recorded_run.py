# SPDX-License-Identifier: Apache-2.0
"""Keep a recording of the live graph as the record of a run."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .noted_frames import changed_frames
from .run_record import RunRecord, SequenceRecord
from ..recording.frame_record import RecordedFrame


def record_recording(title: str, frames: Sequence[RecordedFrame], source: dict[str, Any],
                     settings: dict[str, Any], machine: dict[str, Any], video: str | None,
                     model: dict[str, Any] | None = None) -> RunRecord:
    """
    Make the record of a recording.

    :param title: of the report, and name of its one sequence
    :param frames: all of them, answered or dropped, in their order
    :param video: annotated video with one picture for each of the frames, relative to the folder
        of the record; None where there is none
    """
    noted, rule = changed_frames(title, frames, video) if video else ((), '')
    return RunRecord(title, source, model or {}, settings, machine,
                     (SequenceRecord(title, tuple(frames), True),), None, noted, rule)
