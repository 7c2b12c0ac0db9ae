# SPDX-License-Identifier: Apache-2.0
"""How many threads the libraries may use beside an executor."""

from contextlib import suppress
import sys

import cv2

from .checkpoint import RuntimeConfigError


def set_threads(operator: int = 1, interop: int = 1, with_torch: bool = False) -> None:
    """
    Set the sizes of the libraries' thread pools, for the whole process.

    One of each is best beside an executor and other nodes. A second thread without its own core
    makes the first one wait at the end of every operator.

    Parameters
    ----------
    operator:
        Threads that work on one operator (PyTorch's intra-op pool, OpenCV's), at least 1.
    interop:
        Operators that PyTorch may run at the same time, at least 1. It can be chosen only once
        in a process, before the first operator runs in parallel; the first choice stays.
    with_torch:
        Whether to import PyTorch for that. Otherwise its pools are set only where it is imported
        already.

    Raises
    ------
    RuntimeConfigError
        If a number is below 1.

    """
    for name, number in (('threads', operator), ('interop_threads', interop)):
        if number < 1:
            raise RuntimeConfigError(f'{name} is {number}, must be at least 1')
    cv2.setNumThreads(operator)
    if not with_torch and sys.modules.get('torch') is None:
        return
    import torch

    torch.set_num_threads(operator)
    if torch.get_num_interop_threads() != interop:
        with suppress(RuntimeError):
            torch.set_num_interop_threads(interop)
