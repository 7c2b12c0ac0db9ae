# SPDX-License-Identifier: Apache-2.0
"""Run jobs in this process, in others and on Ray: failures, lost processes, an interrupt."""

import importlib
import os
from pathlib import Path
import signal
import sys
from time import monotonic, sleep

from forecast_detector_ros.errors import InputError, MissingLibraryError
from forecast_detector_ros.jobs.engine import Engine, Interrupt, parse_engine, run_many
import pytest

from ..helpers.clusters import add_node, PATIENCE, patiently

# New processes find `many_work` there. They cannot import `test`, which is a package of Python.
sys.path.append(str(Path(__file__).parent))
many_work = importlib.import_module('many_work')
many_jobs = importlib.import_module('many_jobs')

ONE, TWO = Engine(), Engine(processes=2)


@pytest.fixture(scope='module')
def ray_engine(ray_cluster):
    """Return the engine of a cluster with room for two jobs."""
    add_node(ray_cluster, cpus=2)
    return Engine(ray=ray_cluster.address)


@pytest.fixture(params=['one', 'two', pytest.param('ray', marks=pytest.mark.slow)])
def engine(request):
    """Return each engine in turn."""
    if request.param == 'ray':
        return request.getfixturevalue('ray_engine')
    return {'one': ONE, 'two': TWO}[request.param]


@pytest.fixture(params=['two', pytest.param('ray', marks=pytest.mark.slow)])
def other_processes(request):
    """Return each engine that uses other processes."""
    return request.getfixturevalue('ray_engine') if request.param == 'ray' else TWO


def do_jobs(arguments, engine, signal_at=None):
    do = many_jobs.do_jobs if engine.ray is None else many_jobs.do_jobs_on_ray
    return do(engine, arguments, signal_at)


def test_engine_is_read():
    assert parse_engine('local') is None
    assert parse_engine('ray') == 'local' and parse_engine('ray=auto') == 'auto'
    assert parse_engine('ray=10.0.0.1:6379') == '10.0.0.1:6379'
    for text in ('', 'dask', 'ray=', 'rays', 'local=2', 'ray:auto'):
        with pytest.raises(InputError, match='must be local, ray or ray=ADDRESS'):
            parse_engine(text)


def test_failure_stays_with_its_job(engine, capfd):
    found, told, _ = do_jobs([1, 'fail', 2, 'break', 3], engine)
    assert {number: item['value'][0] for number, item in found.items() if item['value']} == {
        0: 2, 2: 4, 4: 6}
    assert (found[1]['error'], found[3]['error']) == (
        'this one fails', 'RuntimeError: a defect')
    # Only the unexpected error has a traceback.
    said = capfd.readouterr().err
    assert said.count('Traceback') == 1 and 'a defect' in said
    assert {(0, 1, 2), (2, 1, 2), (4, 1, 2)} <= {item for item in told if item[1]}


def test_work_is_done_by_the_requested_number_of_other_processes(other_processes):
    found, *_ = do_jobs([1, 2, 3, 4, 5], other_processes)
    processes = {item['value'][1] for item in found.values()}
    assert len(found) == 5 and 1 <= len(processes) <= 2 and os.getpid() not in processes


def test_job_whose_process_is_lost_is_started_again(other_processes, tmp_path):
    found, *_ = do_jobs(
        [str(tmp_path / 'first'), 1, str(tmp_path / 'second'), 2], other_processes)
    assert [found[number]['error'] for number in range(4)] == [None] * 4
    assert (found[0]['value'], found[2]['value']) == (2, 2)


def test_job_that_ends_every_process_is_named_and_the_rest_is_done(other_processes):
    found, *_ = do_jobs(['die', 1, 'die', 2], other_processes)
    assert {number for number, item in found.items() if item['error']} == {0, 2}
    assert ' 3 times' in found[0]['error'] and '\n' not in found[0]['error']
    assert found[1]['value'][0] == 2 and found[3]['value'][0] == 4


def test_interrupt_ends_running_jobs_and_starts_no_others(engine):
    most = 1 if engine is ONE else 2
    found, _, interrupted = do_jobs(['wait'] * 4, engine, signal_at=most)
    # Ray may begin jobs in any order.
    assert interrupted and len(found) == most
    assert {outcome['value'] for outcome in found.values()} == {'stopped'}


def test_work_that_gives_up_has_no_outcome(other_processes):
    found, _, interrupted = do_jobs(['give up', 'give up'], other_processes, signal_at=1)
    assert interrupted and found == {}


@pytest.mark.slow
def test_a_thousand_jobs_are_each_done_once():
    found, told, _ = do_jobs(list(range(1000)), TWO)
    assert {number: item['value'][0] for number, item in found.items()} == {
        number: 2 * number for number in range(1000)}
    assert len({item['value'][1] for item in found.values()}) == 2


def test_second_interrupt_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.is_set
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_processes_end_if_the_run_is_closed_early():
    from multiprocessing import active_children
    with Interrupt() as interrupt:
        run = run_many(TWO, many_work.prepare, many_jobs.jobs_of([1, 'wait', 'wait']), (),
                       interrupt, lambda *_: None)
        assert next(run).value[0] == 2
        busy = active_children()
        run.close()
    # The pool also waits for these processes, so their end may be noticed late.
    deadline = monotonic() + 120
    while (alive := [process for process in busy if process.is_alive()]) and (
            monotonic() < deadline):
        sleep(0.05)
    assert busy and alive == []


@pytest.mark.slow
def test_ray_without_an_address_is_a_cluster_of_this_machine_that_ends(monkeypatch):
    pytest.importorskip('ray', reason='Ray is not installed: pip install ray')
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')]))
    for key, value in PATIENCE.items():
        monkeypatch.setenv(f'RAY_{key}', str(value))
    engine = Engine(ray=parse_engine('ray'), processes=1)
    found, _, _ = patiently(lambda: many_jobs.do_jobs_on_ray(engine, [1, 'fail', 2]))
    assert found[1]['error'] == 'this one fails'
    assert [found[number]['value'][0] for number in (0, 2)] == [2, 4]
    worker = Path('/proc', str(found[2]['value'][1]))
    deadline = monotonic() + 120
    while worker.exists() and monotonic() < deadline:
        sleep(0.05)
    assert not worker.exists()


def test_missing_ray_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(MissingLibraryError, match=r'pip install forecast_detector_ros\[ray\]'):
        many_jobs.do_jobs(Engine(ray='local'), [1])


def test_no_cluster_at_the_address_is_one_line():
    pytest.importorskip('ray', reason='Ray is not installed: pip install ray')
    with pytest.raises(InputError, match='--engine ray=127.0.0.1:9: there is no cluster'):
        many_jobs.do_jobs(Engine(ray='127.0.0.1:9'), [1])
