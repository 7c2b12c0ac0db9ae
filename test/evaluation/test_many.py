# SPDX-License-Identifier: Apache-2.0
"""Shares that cover a list, processes that fail or die, and an interrupt that leaves results."""

import importlib
import os
from pathlib import Path
import signal
import sys

from forecast_detector_ros.evaluation.many import (
    check_complete,
    Interrupt,
    Job,
    ManyError,
    parse_share,
    run_many,
    Share,
    share_of_environment,
)
from hypothesis import given
from hypothesis import strategies as st
import pytest

# Where a fresh process finds it: `test` is a package of Python's own there.
sys.path.append(str(Path(__file__).parent))
many_work = importlib.import_module('many_work')


def jobs(*arguments):
    return [Job(number, f'job {number}', argument) for number, argument in enumerate(arguments)]


def outcomes(arguments, processes):
    told = []
    with Interrupt() as interrupt:
        found = list(run_many(many_work.prepare, jobs(*arguments), processes,
                              (many_work.WorkError,), interrupt,
                              lambda job, done, total: told.append((job.number, done, total))))
    return {outcome.job.number: outcome for outcome in found}, told


@given(st.integers(0, 30), st.integers(1, 8))
def test_shares_cover_the_list_once(length, count):
    things = [f'thing {number}' for number in range(length)]
    taken = [item for index in range(count) for item in Share(index, count).of(things)]
    assert sorted(taken) == list(enumerate(things))
    sizes = [len(Share(index, count).of(things)) for index in range(count)]
    assert max(sizes) - min(sizes) <= 1


def test_share_is_written_as_it_is_read():
    assert parse_share('2/3') == Share(1, 3) and str(Share(1, 3)) == '2/3'
    for text in ('0/3', '4/3', '3', '1/', '/2', 'a/b', '1/0', '-1/2', '1/2/3'):
        with pytest.raises(ManyError, match='must be i/n'):
            parse_share(text)


def test_share_of_torchrun():
    assert share_of_environment({'RANK': '1', 'WORLD_SIZE': '4'}) == Share(1, 4)
    assert share_of_environment({'RANK': '1'}) == share_of_environment({}) == Share(0, 1)
    with pytest.raises(ManyError, match="RANK is '4' and WORLD_SIZE '4'"):
        share_of_environment({'RANK': '4', 'WORLD_SIZE': '4'})


def test_parts_must_fit():
    assert check_complete([3, 0], 4) == [1, 2]
    with pytest.raises(ManyError, match='number 2 of 3 is in two'):
        check_complete([1, 1], 3)
    with pytest.raises(ManyError, match='there are only 3'):
        check_complete([3], 3)


@pytest.mark.parametrize('processes', [1, 2])
def test_failure_stays_with_its_job(processes, capfd):
    found, told = outcomes([1, 'fail', 2, 'break', 3], processes)
    assert {number: item.value[0] for number, item in found.items() if item.value} == {
        0: 2, 2: 4, 4: 6}
    assert (found[1].error, found[3].error) == ('this one fails', 'RuntimeError: a defect')
    # What the message does not explain comes with its traceback, and only that.
    said = capfd.readouterr().err
    assert said.count('Traceback') == 1 and 'a defect' in said
    assert sorted(told) == [(0, 1, 2), (2, 1, 2), (4, 1, 2)]


def test_work_is_done_beside_this_process_by_as_many_as_asked_for():
    found, _ = outcomes([1, 2, 3, 4, 5], 2)
    processes = {item.value[1] for item in found.values()}
    assert len(found) == 5 and 1 <= len(processes) <= 2 and os.getpid() not in processes


def test_process_that_dies_is_named_and_replaced():
    found, _ = outcomes(['die', 1, 'die', 2], 2)
    assert {number: item.error for number, item in found.items() if item.error} == {
        0: 'its process ended with code 7', 2: 'its process ended with code 7'}
    assert found[1].value[0] == 2 and found[3].value[0] == 4


@pytest.mark.parametrize('processes', [1, 2])
def test_interrupt_ends_what_is_in_hand_and_begins_nothing(processes):
    begun = []
    with Interrupt() as interrupt:
        def tell(job, done, total):
            begun.append(job.number)
            if len(begun) == processes:
                os.kill(os.getpid(), signal.SIGINT)

        found = list(run_many(many_work.prepare, jobs('wait', 'wait', 'wait', 'wait'), processes,
                              (many_work.WorkError,), interrupt, tell))
        assert interrupt.set
    assert sorted(outcome.job.number for outcome in found) == list(range(processes))
    assert {outcome.value for outcome in found} == {'stopped'}


def test_second_interrupt_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.set
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
