# SPDX-License-Identifier: Apache-2.0
"""Which frames of a video become a clip (paper, section 4.2, "Data augmentation")."""
from __future__ import annotations

import numpy as np

# r of the paper, section 4.2.
THINNING = 25


def largest_thinning(length: int, clip_length: int, limit: int) -> int:
    """
    Return the largest thinning parameter q for a video: min(floor((l - 1) / n) - 1, r), never < 0.

    At this q, clip_length + 1 frames at stride q + 1 still fit into the video, so that the extra
    frame of the forecast loss needs no other formula.

    :param length: the paper's l: frames in the video, at least 1
    :param clip_length: the paper's n: frames to train on without the extra one, at least 1
    :param limit: the paper's r; 0 switches thinning off
    """
    return max(0, min((length - 1) // clip_length - 1, limit))


def draw_indices(length: int, clip_length: int, extra_frame: bool, limit: int,
                 rng: np.random.Generator) -> np.ndarray:
    """
    Draw the frames of one clip: q uniform in [0, `largest_thinning`], random start, stride q + 1.

    A video that is too short has its first and last frames repeated, split at random.

    :returns: int64 (T,), 0-based, not descending; T = clip_length + 1 with `extra_frame`
    """
    frames = clip_length + int(extra_frame)
    stride = 1 + int(rng.integers(0, largest_thinning(length, clip_length, limit) + 1))
    slack = length - 1 - (frames - 1) * stride
    start = int(rng.integers(min(0, slack), max(0, slack) + 1))
    return np.clip(start + stride * np.arange(frames), 0, length - 1)
