# SPDX-License-Identifier: Apache-2.0
"""Runs written by hand, for the tests of the report."""

from dataclasses import replace
import json
from typing import Any

from forecast_detector_ros.detector.policy import FORECAST, READ
from forecast_detector_ros.recording.recorded_frame import DROPPED, KINDS, RecordedFrame
from forecast_detector_ros.report.run_record import (
    Accuracy,
    ClassAccuracy,
    FORMAT,
    MarkedBox,
    NotedFrame,
    RunRecord,
    SequenceRecord,
)


def frame(number: int, kind: str = READ, *labels: str) -> RecordedFrame:
    """Make a frame, ten a second."""
    stamp = 5_000_000_000 + 100_000_000 * number
    if kind == DROPPED:
        return RecordedFrame(stamp, DROPPED)
    latency = 40.0 + number if kind == READ else 8.0
    return RecordedFrame(stamp, kind, 'scheduler', 0.4 if kind == READ else 0.8, 0.5,
                         int(kind == FORECAST), latency, 3.0, latency - 3, None, labels,
                         (0.5,) * len(labels), ids=tuple(str(7 + n) for n in range(len(labels))))


def run(**changes) -> RunRecord:
    """Make a run of one camera with a dropped frame, annotated."""
    frames = (frame(0, READ, 'dog'), frame(1, FORECAST, 'dog', 'cat'), frame(2, DROPPED),
              frame(3, READ), frame(4, FORECAST, 'cat'))
    values = {
        'title': 'a walk', 'source': {'bags': 'walk'}, 'model': {'name': 'small'},
        'settings': {'policy': 'threshold(0.5)'}, 'machine': {'cores': 2},
        'sequences': (SequenceRecord('walk', frames, True, 4, 0.5),),
        'accuracy': Accuracy(0.5, 0.25, (
            ClassAccuracy('dog', 3, 3, 0.5, (1.0,) * 50 + (0.0,) * 51),
            ClassAccuracy('cat', 1, 2, 0.0, (0.0,) * 101), ClassAccuracy('train', 0, 1, None))),
        'noted': (), 'noted_rule': 'The worst.', **changes}
    return RunRecord(**values)


def noted(file: str, **changes) -> NotedFrame:
    """Make a noted frame with a box of every colour."""
    values = {'sequence': 'walk', 'number': 1, 'note': '1 missed <b>', 'file': file,
              'kind': FORECAST, 'right': (MarkedBox('dog', (4., 6., 30., 40.), 0.75),),
              'missed': (MarkedBox('cat', (40., 10., 70., 40.)),),
              'wrong': (MarkedBox('cat', (1., 1., 9., 9.), 0.4),), **changes}
    return NotedFrame(**values)


def hostile(run: RunRecord, before: str) -> RunRecord:
    """Put a text before every string of a run but the kinds of frames, which are checked."""
    def change(value: Any, free: bool = False) -> Any:
        if isinstance(value, str):
            return value if value in KINDS else before + value
        if isinstance(value, list):
            return [change(item, free) for item in value]
        if isinstance(value, dict):
            # Where keys are free, they are shown, too.
            return {before + key if free else key:
                    change(item, free or key in ('source', 'model', 'settings', 'machine'))
                    for key, item in value.items()}
        return value

    document = change(json.loads(run.to_json()))
    for key in ('model', 'settings'):
        # The head of the report shows `name` and `policy`, by these very keys.
        document[key] |= change(getattr(run, key))
    for item in document['noted']:
        item['kind'] = before + item['kind']
    return RunRecord.from_json(json.dumps({**document, 'format': FORMAT}))


def two_sequences() -> RunRecord:
    """Make a run of two sequences without times, without annotations."""
    frames = run().frames
    return replace(run(), accuracy=None, sequences=(
        SequenceRecord('a/long name', frames, False), SequenceRecord('b', frames[:2], False)))
