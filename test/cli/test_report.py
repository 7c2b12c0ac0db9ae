# SPDX-License-Identifier: Apache-2.0
"""The command `report`: from folders to HTML files."""

from pathlib import Path
import sys

from forecast_detector_ros.cli.report import main
from forecast_detector_ros.detector.policy import READ
from forecast_detector_ros.recording.recorded_frame import RecordedFrame
from forecast_detector_ros.report import html_report
from forecast_detector_ros.report.run_record import RunRecord, save_run, SequenceRecord
import pytest


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Write two runs, one in a folder of its own."""
    frames = (RecordedFrame(0, READ, 'first_frame', None, 0.5, 0, 40.0, 3.0, 37.0),)
    record = RunRecord('walk', {}, {}, {'policy': 'always_read'}, {},
                       (SequenceRecord('walk', frames, True),))
    save_run(tmp_path / 'a/run.json', record)
    save_run(tmp_path / 'b.json', record)
    return tmp_path / 'a', tmp_path / 'b.json'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the drawing of figures, which other tests cover."""
    monkeypatch.setattr(html_report, 'as_svg', lambda draw, run, width: '<svg/>')


def test_report_beside_the_run(runs, capsys):
    assert main([str(runs[0])]) == 0
    assert capsys.readouterr().out == f'written: {runs[0] / "report.html"}\n'
    assert '<title>walk</title>' in (runs[0] / 'report.html').read_text()


def test_comparison_is_written_to_the_given_path(runs, tmp_path):
    assert main([str(runs[0]), '--compare', str(runs[1])]) == 0
    assert 'two runs side by side' in (runs[0] / 'comparison.html').read_text()
    assert main([str(runs[1]), '--output', str(tmp_path / 'x/y.html')]) == 0
    assert (tmp_path / 'x/y.html').is_file()


@pytest.mark.parametrize('name', ['none', 'none.json', 'other.json'])
def test_bad_input_is_one_line(tmp_path, capsys, name):
    (tmp_path / 'other.json').write_text('{}')
    assert main([str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert said.startswith('report: ') and said.count('\n') == 1 and name in said


def test_message_about_a_missing_run_explains_runs(runs, capsys):
    assert main([str(runs[0]), '--compare', 'none']) == 2
    assert capsys.readouterr().err == (
        'report: none: no such folder or file; a run is a folder of replay or demo, or a file of '
        'evaluate accuracy --run\n')


def test_missing_jinja2_is_one_line(runs, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'jinja2', None)
    assert main([str(runs[0])]) == 2
    assert 'pip install jinja2' in capsys.readouterr().err
