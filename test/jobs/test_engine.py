# SPDX-License-Identifier: Apache-2.0
"""The same jobs here, in processes and on Ray: failures, lost processes, and an interrupt."""

import importlib
import os
from pathlib import Path
import signal
import sys

from forecast_detector_ros.errors import InputError, MissingLibraryError
from forecast_detector_ros.jobs.engine import Engine, parse_engine, run_many
from forecast_detector_ros.jobs.job import Interrupt, Job
import pytest

from ..helpers.clusters import add_node

# Where a fresh process finds it: `test` is a package of Python's own there.
sys.path.append(str(Path(__file__).parent))
many_work = importlib.import_module('many_work')

ONE, TWO = Engine(), Engine(processes=2)


@pytest.fixture(scope='module')
def ray_engine(ray_cluster):
    """Name a cluster with room for two jobs."""
    add_node(ray_cluster, cpus=2)
    return Engine(ray=ray_cluster.address)


@pytest.fixture(params=['one', 'two', pytest.param('ray', marks=pytest.mark.slow)])
def engine(request):
    """Name each engine in turn."""
    if request.param == 'ray':
        return request.getfixturevalue('ray_engine')
    return {'one': ONE, 'two': TWO}[request.param]


@pytest.fixture(params=['two', pytest.param('ray', marks=pytest.mark.slow)])
def other_processes(request):
    """Name each engine that works beside this process."""
    return request.getfixturevalue('ray_engine') if request.param == 'ray' else TWO


def jobs(*arguments):
    return [Job(number, f'job {number}', argument) for number, argument in enumerate(arguments)]


def outcomes(arguments, engine):
    told = []
    with Interrupt() as interrupt:
        found = list(run_many(engine, many_work.prepare, jobs(*arguments),
                              (many_work.WorkError,), interrupt,
                              lambda job, done, total: told.append((job.number, done, total))))
    return {outcome.job.number: outcome for outcome in found}, told


def test_engine_is_read():
    assert parse_engine('local') is None
    assert parse_engine('ray') == 'local' and parse_engine('ray=auto') == 'auto'
    assert parse_engine('ray=10.0.0.1:6379') == '10.0.0.1:6379'
    for text in ('', 'dask', 'ray=', 'rays', 'local=2', 'ray:auto'):
        with pytest.raises(InputError, match='must be local, ray or ray=ADDRESS'):
            parse_engine(text)


def test_failure_stays_with_its_job(engine, capfd):
    found, told = outcomes([1, 'fail', 2, 'break', 3], engine)
    assert {number: item.value[0] for number, item in found.items() if item.value} == {
        0: 2, 2: 4, 4: 6}
    assert (found[1].error, found[3].error) == ('this one fails', 'RuntimeError: a defect')
    # What the message does not explain comes with its traceback, and only that.
    said = capfd.readouterr().err
    assert said.count('Traceback') == 1 and 'a defect' in said
    assert {(0, 1, 2), (2, 1, 2), (4, 1, 2)} <= {item for item in told if item[1]}


def test_work_is_done_beside_this_process_by_as_many_as_asked_for(other_processes):
    found, _ = outcomes([1, 2, 3, 4, 5], other_processes)
    processes = {item.value[1] for item in found.values()}
    assert len(found) == 5 and 1 <= len(processes) <= 2 and os.getpid() not in processes


def test_job_whose_process_is_lost_is_begun_anew(other_processes, tmp_path):
    found, _ = outcomes([tmp_path / 'first', 1, tmp_path / 'second', 2], other_processes)
    assert [found[number].error for number in range(4)] == [None] * 4
    assert (found[0].value, found[2].value) == (2, 2)


def test_job_that_ends_every_process_is_named_and_the_rest_is_done(other_processes):
    found, _ = outcomes(['die', 1, 'die', 2], other_processes)
    assert {number for number, item in found.items() if item.error} == {0, 2}
    assert ' 3 times' in found[0].error and '\n' not in found[0].error
    assert found[1].value[0] == 2 and found[3].value[0] == 4


def test_interrupt_ends_what_is_in_hand_and_begins_nothing(engine):
    most = 1 if engine is ONE else 2
    begun = set()
    with Interrupt() as interrupt:
        def tell(job, done, total):
            begun.add(job.number)
            if len(begun) == most and not interrupt.is_set:
                os.kill(os.getpid(), signal.SIGINT)

        found = list(run_many(engine, many_work.prepare, jobs('wait', 'wait', 'wait', 'wait'),
                              (many_work.WorkError,), interrupt, tell))
        assert interrupt.is_set
    assert sorted(outcome.job.number for outcome in found) == list(range(most))
    assert {outcome.value for outcome in found} == {'stopped'}


def test_work_that_gives_up_has_no_outcome(other_processes):
    with Interrupt() as interrupt:
        def tell(job, done, total):
            interrupt.is_set = True

        found = list(run_many(other_processes, many_work.prepare, jobs('give up', 'give up'), (),
                              interrupt, tell))
    assert found == []


def test_second_interrupt_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.is_set
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_processes_end_with_a_run_that_is_broken_off():
    from multiprocessing import active_children
    with Interrupt() as interrupt:
        run = run_many(TWO, many_work.prepare, jobs(1, 'wait', 'wait'), (), interrupt,
                       lambda *_: None)
        assert next(run).value[0] == 2
        busy = active_children()
        run.close()
    for process in busy:
        process.join(60)
    assert busy and [process for process in busy if process.is_alive()] == []


def test_missing_ray_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(MissingLibraryError, match=r'pip install forecast_detector_ros\[ray\]'):
        outcomes([1], Engine(ray='local'))


def test_no_cluster_at_the_address_is_one_line():
    pytest.importorskip('ray', reason='Ray is not installed: pip install ray')
    with pytest.raises(InputError, match='--engine ray=127.0.0.1:9: there is no cluster'):
        outcomes([1], Engine(ray='127.0.0.1:9'))
