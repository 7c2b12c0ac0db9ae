# SPDX-License-Identifier: Apache-2.0
"""The record of a frame as a line of JSON, and the figures of many records."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
import json

import numpy as np

from ..detector.policy import FORECAST, READ
from ..errors import InputError
from ..plain_values import build, parse_plain_json

DROPPED = 'dropped'  #: Kind of a frame that the detector never answered
KINDS = (READ, FORECAST, DROPPED)


@dataclass(frozen=True)
class RecordedFrame:
    """
    One frame with its decision, detections and durations.

    A quantity that does not exist is None: all but the stamp of a dropped frame, the confidence of
    the first frame, the threshold of a policy without one.
    """

    stamp_ns: int  #: The image's stamp, nanoseconds
    kind: str  #: One of KINDS
    reason: str | None = None
    confidence: float | None = None  #: The scheduler's score for forecasting, 0 to 1
    threshold: float | None = None
    consecutive_forecasts: int | None = None
    latency_ms: float | None = None  #: From receipt of the image to publication of the detections
    preprocess_ms: float | None = None
    inference_ms: float | None = None
    image_age_ms: float | None = None
    labels: tuple[str, ...] = ()  #: Class of each box
    scores: tuple[float, ...] = ()  #: Score of each box, 0 to 1
    camera: str = ''  #: Base topic; empty where there is one camera only
    #: Number of the object in each box, '' for a box without one; () if no box has one.
    ids: tuple[str, ...] = ()

    @property
    def dropped(self) -> bool:
        """Return whether the detector never answered this frame."""
        return self.kind == DROPPED

    def to_line(self) -> str:
        """Return the record as one line of JSON without a line break."""
        return json.dumps({key: value for key, value in asdict(self).items()
                           if value or key not in ('camera', 'ids')}, allow_nan=False)

    @classmethod
    def from_line(cls, line: str) -> RecordedFrame:
        """Read a line of `to_line`; raises ValueError for any other text."""
        try:
            return build(cls, parse_plain_json(line))
        except InputError as error:
            raise ValueError(f'not a frame record: {line.strip()[:80]!r} ({error})') from None


def summarise_frames(records: Sequence[RecordedFrame], frames_in: int) -> dict:
    """
    Return the figures of a recording, ready for JSON.

    `frames_in` is the number of frames that the camera sent. `dropped` counts frames without an
    answer, `dropped_before_first_answer` those of them during the start. `read_ratio` is read
    frames over processed frames, None if there are none. Latencies are in ms.
    """
    processed = [record for record in records if not record.dropped]
    kinds = Counter(record.kind for record in processed)
    labels = Counter(label for record in processed for label in record.labels)
    first = next((i for i, record in enumerate(records) if not record.dropped), len(records))
    return {
        'frames_in': frames_in,
        'frames_recorded': len(records),
        'processed': len(processed),
        'dropped': frames_in - len(processed),
        'dropped_before_first_answer': first,
        'read': kinds[READ],
        'forecast': kinds[FORECAST],
        'read_ratio': kinds[READ] / len(processed) if processed else None,
        'reasons': dict(Counter(record.reason for record in processed).most_common()),
        'latency_ms': {
            kind: spread(record.latency_ms for record in processed if record.kind == kind)
            for kind in (READ, FORECAST)},
        'image_age_ms': spread(record.image_age_ms for record in processed),
        'boxes': labels.total(),
        'frames_with_boxes': sum(bool(record.labels) for record in processed),
        'boxes_per_class': dict(labels.most_common()),
    }


def spread(values: Iterable[float | None]) -> dict:
    """Return count, p50, p95 and max of the values that are not None; None without values."""
    known = [value for value in values if value is not None]
    if not known:
        return {'count': 0, 'p50': None, 'p95': None, 'max': None}
    p50, p95 = np.percentile(known, (50, 95))
    return {'count': len(known), 'p50': round(float(p50), 3), 'p95': round(float(p95), 3),
            'max': round(max(known), 3)}
