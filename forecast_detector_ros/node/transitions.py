# SPDX-License-Identifier: Apache-2.0
"""
How a transition of the life cycle ends, whatever happens in it.

rclpy turns an exception in a transition into ERROR, too, but says nothing of it.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from .program import FailureLog

SUCCESS, FAILURE, ERROR = (TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE,
                           TransitionCallbackReturn.ERROR)

#: A method of a node that has the attribute `failures`.
Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def guarded(what: str) -> Callable[[Transition], Transition]:
    """
    Log what the decorated transition raises with its traceback, and return ERROR.

    `what` begins the line. After ERROR the node runs its error transition. It is unconfigured if
    that one succeeds, and finalised otherwise.
    """
    def decorate(transition: Transition) -> Transition:
        @wraps(transition)
        def run(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                return transition(node, state)
            except Exception as error:  # noqa: B902
                failures: FailureLog = node.failures
                failures.tell(what, error, anew=True)
                return ERROR
        return run
    return decorate
