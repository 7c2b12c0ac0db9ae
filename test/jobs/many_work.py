# SPDX-License-Identifier: Apache-2.0
"""Define work for other processes in tests; they import this file as `many_work`."""

import os
import time

from forecast_detector_ros.jobs.engine import StoppedError


class WorkError(ValueError):
    """An expected error, which needs no traceback."""


def prepare():
    """Return work whose behaviour depends on its argument."""
    def work(argument, progress, interrupt):
        if argument == 'fail':
            raise WorkError('this one\nfails')
        if argument == 'break':
            raise RuntimeError('a defect')
        if argument == 'die':
            os._exit(7)
        if isinstance(argument, str) and os.sep in argument:
            # Exits at its first attempt, and returns the number of attempts at the next.
            with open(argument, 'a+') as file:
                file.write('x')
            attempts = os.path.getsize(argument)
            if attempts == 1:
                os._exit(7)
            return attempts
        if argument in ('wait', 'give up'):
            progress(0, 2)
            deadline = time.monotonic() + 180
            while not interrupt.is_set and time.monotonic() < deadline:
                time.sleep(0.01)
            if argument == 'give up' and interrupt.is_set:
                raise StoppedError
            return 'stopped' if interrupt.is_set else 'never stopped'
        progress(1, 2)
        return argument * 2, os.getpid()
    return work
