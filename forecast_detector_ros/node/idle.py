# SPDX-License-Identifier: Apache-2.0
"""Decide when a node that nobody listens to may rest."""
from __future__ import annotations


class Idle:
    """Rests once nobody has listened for some time, and works again as soon as somebody does."""

    def __init__(self, patience_s: float, now: float) -> None:
        """Begin awake at `now`, seconds of the steady clock; rest after `patience_s`."""
        self._patience_s = patience_s
        self._last_heard = now

    def rests(self, heard: bool, now: float) -> bool:
        """Tell whether to rest at `now`, when somebody listens or not."""
        if heard:
            self._last_heard = now
        return now - self._last_heard >= self._patience_s
