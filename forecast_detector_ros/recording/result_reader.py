# SPDX-License-Identifier: Apache-2.0
"""Read back what `result_messages.py` writes: detections and decisions."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

_NUMBERS = ('confidence', 'threshold', 'latency_ms', 'preprocess_ms', 'inference_ms',
            'image_age_ms')


def read_detections(message: Any) -> tuple[np.ndarray, list[str], list[float]]:
    """
    Return boxes, class names and scores of a Detection2DArray, in its order.

    Boxes are (N, 4) float32, xyxy in pixels of the image. Of several hypotheses on one box the
    best counts; a detection without any is left out.
    """
    boxes, labels, scores = [], [], []
    for detection in message.detections:
        if not detection.results:
            continue
        best = max((result.hypothesis for result in detection.results),
                   key=lambda hypothesis: hypothesis.score)
        x, y = detection.bbox.center.position.x, detection.bbox.center.position.y
        width, height = detection.bbox.size_x, detection.bbox.size_y
        boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        labels.append(best.class_id)
        scores.append(best.score)
    return np.array(boxes, np.float32).reshape(-1, 4), labels, scores


def read_decision(message: Any) -> dict[str, Any]:
    """
    Return the decision that a DiagnosticArray tells, as the fields of a FrameRecord.

    A number that is missing or `nan` becomes None. Raises ValueError when the message is not a
    decision.
    """
    if not message.status:
        raise ValueError('a decision without a status')
    values = {pair.key: pair.value for pair in message.status[0].values}
    try:
        kind, reason = values['decision'], values['reason']
        forecasts = int(values['consecutive_forecasts'])
    except KeyError as error:
        raise ValueError(f'a decision without the value {error}') from None
    numbers = {key: float(values.get(key, 'nan')) for key in _NUMBERS}
    return {'kind': kind, 'reason': reason, 'consecutive_forecasts': forecasts,
            **{key: value if math.isfinite(value) else None
               for key, value in numbers.items()}}
