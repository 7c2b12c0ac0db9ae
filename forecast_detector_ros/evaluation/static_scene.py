# SPDX-License-Identifier: Apache-2.0
"""How often a detector reads when nothing happens: a scheduler should hardly ever."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .sequences import as_frame, Footage, picture
from ..detector.detector import Detector
from ..detector.policy import READ
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..images.frame import Pixels
from ..layout import mean, table

SENSOR_NOISE = 3.0
"""Standard deviation of the noise, in steps of 8-bit pixels: that of a small camera indoors."""


def static_read_ratios(detector: Detector, footage: Sequence[Footage],
                       settings: DetectorSettings, frames: int = 60,
                       noise: float = SENSOR_NOISE, seed: int = 0) -> dict[str, float]:
    """
    Show the first picture of every sequence again and again, with fresh noise each time.

    Parameters
    ----------
    detector:
        What decides.
    footage:
        Sequences of at least one frame.
    settings:
        Policy and limits; a read that `max_consecutive_forecasts` forces counts as well.
    frames:
        How often each picture is shown.
    noise:
        Standard deviation of Gaussian noise, independent in every pixel, channel and frame.
    seed:
        Of the noise.

    Returns
    -------
    dict
        Share of frames that were read, in (0, 1], by the sequence's name.

    Raises
    ------
    DataError
        If a picture cannot be decoded.

    """
    result = {}
    for item in footage:
        rng = np.random.default_rng(seed)
        still = picture(item.frames[0])
        state, reads = StreamState.initial(), 0
        for _ in range(frames):
            shake = rng.normal(0.0, noise, still.array.shape)
            noisy = np.clip(still.array + shake, 0, 255).astype(np.uint8)
            step, state = detector.step(as_frame(Pixels(noisy, still.order)), state, settings)
            reads += step.decision.kind == READ
        result[item.name] = reads / frames
    return result


def summarise_static(detector: Detector, footage: Sequence[Footage], settings: DetectorSettings,
                     frames: int) -> dict[str, Any]:
    """Measure `static_read_ratios`; give plain values: how, `mean`, and by sequence."""
    ratios = static_read_ratios(detector, footage, settings, frames)
    return {'frames': frames, 'noise': SENSOR_NOISE, 'mean': mean(list(ratios.values())),
            'sequences': ratios}


def static_as_text(static: Mapping[str, Any], moving: Mapping[str, float]) -> str:
    """Lay out the result of `summarise_static` beside the read ratios of the sequences."""
    rows = [[name, ratio, moving[name]] for name, ratio in static['sequences'].items()]
    rows.append(['mean', static['mean'], mean([row[2] for row in rows])])
    return table(('read ratio', 'nothing moves', 'as filmed'), rows)
