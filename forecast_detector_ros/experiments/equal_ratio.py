# SPDX-License-Identifier: Apache-2.0
"""
Policies at an equal share of frames read: whether a scheduler is worth more than a fixed rule.

Fixed rules exist for some shares only: all frames (``always_read``), one in two, one in three, ...
(``alternate(k)``).  In between stands who takes one rule part of the time and the other the rest,
so accuracy is interpolated linearly in the read ratio.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

FIXED = ('always_read', 'alternate')
"""How the texts of fixed rules begin."""


def fixed_rules_at(ratio: float, points: Mapping[str, tuple[float, float | None]]
                   ) -> float | None:
    """
    Give what fixed rules reach at a read ratio.

    Parameters
    ----------
    ratio:
        Share of frames read, in (0, 1].
    points:
        By a policy's text: its read ratio and accuracy; policies other than fixed rules, and
        those without an accuracy, are passed over.

    Returns
    -------
    float or None
        None outside the read ratios of the fixed rules.

    """
    known = sorted((x, y) for name, (x, y) in points.items()
                   if name.startswith(FIXED) and y is not None)
    if not known or not known[0][0] <= ratio <= known[-1][0]:
        return None
    ratios, accuracies = zip(*known)
    return float(np.interp(ratio, ratios, accuracies))


def compare(points: Mapping[str, tuple[float, float | None]]) -> list[dict[str, Any]]:
    """
    Set every policy that is no fixed rule against fixed rules at its read ratio.

    Parameters
    ----------
    points:
        As for `fixed_rules_at`.

    Returns
    -------
    list of dict
        `policy`, `read_ratio`, `accuracy`, `fixed_rules` (None where there is none to compare
        with) and `gain`, their difference.

    """
    result = []
    for name, (ratio, accuracy) in points.items():
        if name.startswith(FIXED):
            continue
        fixed = fixed_rules_at(ratio, points)
        gain = None if fixed is None or accuracy is None else accuracy - fixed
        result.append({'policy': name, 'read_ratio': ratio, 'accuracy': accuracy,
                       'fixed_rules': fixed, 'gain': gain})
    return result
