# SPDX-License-Identifier: Apache-2.0
"""The evaluator's benchmark, at a size that takes a moment."""

from forecast_detector_ros.cli import benchmark_metrics
import pytest


def test_every_part_is_timed(capsys):
    assert benchmark_metrics.main(['--frames', '2000', '--boxes', '3000',
                                   '--detections-per-frame', '5']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '2000 frames, 3000 boxes, 10000 detections'
    figures = {line[:24].strip(): float(line[24:]) for line in lines[1:]}
    assert set(figures) == {f'{part} {clock} s' for part in ('motion IoU', 'plain', 'devkit')
                            for clock in ('wall', 'processor')} | {'max_rss_gb'}
    assert all(value >= 0 for value in figures.values()) and figures['max_rss_gb'] > 0.01


@pytest.mark.parametrize('arguments', [['--frames', '0'], ['--boxes', 'x']])
def test_bad_numbers_are_refused(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        benchmark_metrics.main(arguments)
    assert stop.value.code == 2 and arguments[0] in capsys.readouterr().err
