# SPDX-License-Identifier: Apache-2.0
"""The line of the log, and the warning about a scheduler that has nothing to learn."""

import re

from forecast_detector_ros.training import run_log as module
from forecast_detector_ros.training.losses import StepLosses
from forecast_detector_ros.training.run_log import DEAD_DECISIONS, MEASURED, Meter, WARM_UP
import pytest
import torch


@pytest.fixture
def clock(monkeypatch):
    """Return a list with one entry, the time in seconds."""
    now = [100.0]
    monkeypatch.setattr(module, 'monotonic', lambda: now[0])
    return now


def losses(loc=1.0, decisions=0, ones=0, reads=0):
    return StepLosses(torch.zeros(()), {'loc': loc}, decisions=decisions, ones=ones, reads=reads)


def test_a_line_has_means_rates_speed_memory_and_time_left(clock):
    meter = Meter('two', 1000, torch.device('cpu'))
    meter.add(losses(1.0, decisions=8, ones=2, reads=6), 40)
    meter.add(losses(2.0, decisions=8, ones=4, reads=8), 40)
    clock[0] += 16.0
    # 500 iterations of 8 s are left: 4000 s.
    line = meter.line(500, {'head': 1e-3, 'encoder': 5e-4})
    assert re.fullmatch(
        r'two 500/1000  loc 1\.5000  y_t 0\.38  read 0\.88  lr_head 1\.0e-03  lr_encoder '
        r'5\.0e-04  5\.0 images/s  \d+\.\d GB  ETA 1:06:40', line)
    meter.add(losses(4.0), 40)
    clock[0] += 1.0
    # The new interval has no decisions.
    assert re.match(r'two 501/1000  loc 4\.0000  40\.0 images/s', meter.line(501, {}))


@pytest.mark.parametrize('ones, words', [(8, 'learns never to read: raise thinning'),
                                         (0, 'learns to read always: train the encoders longer')])
def test_constant_y_t_gives_one_warning_with_advice(ones, words, caplog):
    meter = Meter('three', 1000, torch.device('cpu'))
    for _ in range(DEAD_DECISIONS // 8 - 1):
        meter.add(losses(decisions=8, ones=ones), 8)
    assert not caplog.messages
    for _ in range(DEAD_DECISIONS // 8):
        meter.add(losses(decisions=8, ones=ones), 8)
    assert len(caplog.messages) == 1
    assert words in caplog.messages[0] and 'stage three' in caplog.messages[0]


def test_varying_y_t_gives_no_warning(caplog):
    meter = Meter('three', 1000, torch.device('cpu'))
    for number in range(DEAD_DECISIONS):
        meter.add(losses(decisions=8, ones=8 if number % 20 else 7), 8)
    assert not caplog.messages


def test_the_duration_is_estimated_once(clock):
    # 600 of 2000 iterations were done before; later stages have 40 000 pictures.
    meter = Meter('two', 2000, torch.device('cpu'), done=600, later=40_000)
    said = []
    for iteration in range(40):
        # The first iterations are slow; those after the measured ones do not count.
        clock[0] += 60.0 if iteration < WARM_UP else 8.0 if iteration < WARM_UP + MEASURED else 1.0
        said.append(meter.plan(80))
    plans = [(index + 1, line) for index, line in enumerate(said) if line]
    # 2000 - 600 - 13 iterations of 8 s are 3.08 h; 500 more of the later stages are 1.11 h.
    assert plans == [(WARM_UP + MEASURED, (
        'stage two: 8 s an iteration, 10.0 images/s, over 10 iterations: 3.08 h to its end, about '
        '4.19 h to the end of all stages at this rate'))]
