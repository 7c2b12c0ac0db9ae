# SPDX-License-Identifier: Apache-2.0
"""What the executor need not look at before every image."""
from __future__ import annotations

from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup


class OccasionalGroup(MutuallyExclusiveCallbackGroup):
    """
    A callback group that can be closed: then what is in it has to wait; nothing of it is lost.

    rclpy's executor collects anew, in Python, what it waits for each time it waits. Two events
    of every publisher are among it, whose only use is to warn of subscribers that do not fit.
    """

    def __init__(self) -> None:
        """Begin open."""
        super().__init__()
        self.is_open = True

    def can_execute(self, entity: Any) -> bool:
        """Tell whether something in the group may be waited for and run."""
        return self.is_open and super().can_execute(entity)
