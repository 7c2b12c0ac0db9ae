# SPDX-License-Identifier: Apache-2.0
"""
Run the jobs of `many_work` by an engine and return their outcomes.

This file also runs as a program for Ray, because a driver of Ray needs its own process.
"""

from dataclasses import asdict
import json
import os
import signal
import subprocess
import sys

from forecast_detector_ros.jobs.engine import Engine, Interrupt, Job, run_many

# Not imported as `test.jobs.many_work`: in a new process, `test` is a package of Python.
import many_work

RESULT = 'result: '


def jobs_of(arguments):
    """Return a job for each argument."""
    return [Job(number, f'job {number}', argument) for number, argument in enumerate(arguments)]


def do_jobs(engine, arguments, signal_at=None, expected=(many_work.WorkError,)):
    """
    Run a job for each argument; send SIGINT once `signal_at` jobs have begun.

    :returns: the outcomes by the job's number; the progress as (number, done, total); whether the
        interrupt was set
    """
    told = []

    def tell(job, done, total):
        told.append((job.number, done, total))
        if len({number for number, *_ in told}) == signal_at and not interrupt.is_set:
            os.kill(os.getpid(), signal.SIGINT)

    with Interrupt() as interrupt:
        outcomes = run_many(engine, many_work.prepare, jobs_of(arguments), expected, interrupt,
                            tell)
        found = {outcome.job.number: {'value': outcome.value, 'error': outcome.error}
                 for outcome in outcomes}
        return found, told, interrupt.is_set


def do_jobs_on_ray(engine, arguments, signal_at=None):
    """Call `do_jobs` in a process of its own and pass on its stderr."""
    done = subprocess.run(
        [sys.executable, __file__, json.dumps([asdict(engine), arguments, signal_at])],
        capture_output=True, text=True, timeout=600)
    print(done.stderr, end='', file=sys.stderr)
    assert done.returncode == 0, f'exit code {done.returncode}: {done.stderr}'
    # Ray also prints lines to stdout.
    line, = (line for line in done.stdout.splitlines() if line.startswith(RESULT))
    found, told, interrupted = json.loads(line.removeprefix(RESULT))
    return ({int(number): outcome for number, outcome in found.items()},
            [tuple(item) for item in told], interrupted)


if __name__ == '__main__':
    options, *others = json.loads(sys.argv[1])
    print(RESULT + json.dumps(do_jobs(Engine(**options), *others)))
