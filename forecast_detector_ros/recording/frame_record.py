# SPDX-License-Identifier: Apache-2.0
"""What is kept of every frame of a recording, and its form as one line of JSON."""
from __future__ import annotations

from dataclasses import asdict, dataclass
import json

from ..detector.policy import FORECAST, READ

DROPPED = 'dropped'
"""The mark of a frame that the detector never answered."""

KINDS = (READ, FORECAST, DROPPED)


@dataclass(frozen=True)
class FrameRecord:
    """
    One frame: what was decided, what was found and what it took.

    A quantity that does not exist (everything but the stamp on a dropped frame, the confidence
    on the first one, the threshold of a policy without one) is None.
    """

    stamp_ns: int
    """The image's stamp, nanoseconds."""
    kind: str
    """One of KINDS."""
    reason: str | None = None
    confidence: float | None = None
    """The scheduler's, 0 to 1."""
    threshold: float | None = None
    consecutive_forecasts: int | None = None
    latency_ms: float | None = None
    """From the detector's receipt of the image to its outputs."""
    preprocess_ms: float | None = None
    inference_ms: float | None = None
    image_age_ms: float | None = None
    labels: tuple[str, ...] = ()
    """The class of each box."""
    scores: tuple[float, ...] = ()
    """The score of each box, 0 to 1."""

    @property
    def dropped(self) -> bool:
        """Tell whether the detector never answered this frame."""
        return self.kind == DROPPED

    def to_line(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_line(cls, line: str) -> FrameRecord:
        """Read a line that to_line() wrote; raises ValueError for any other."""
        try:
            fields = json.loads(line)
            fields['labels'] = tuple(fields['labels'])
            fields['scores'] = tuple(fields['scores'])
            return cls(**fields)
        except (TypeError, KeyError) as error:
            raise ValueError(f'not a frame record: {line.strip()[:80]!r} ({error})') from None
