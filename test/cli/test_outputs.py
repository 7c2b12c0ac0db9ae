# SPDX-License-Identifier: Apache-2.0
"""The page of output files lists every key that the commands write."""
from collections.abc import Callable
from dataclasses import fields
import json
from pathlib import Path
from typing import Any

from forecast_detector_ros.benchmark.timing import Timing
from forecast_detector_ros.cli import program
from forecast_detector_ros.experiments.prices import Price
from forecast_detector_ros.experiments.reproduction import WorkPart
from forecast_detector_ros.recording.recorded_frame import RecordedFrame
from forecast_detector_ros.report import html_report
from forecast_detector_ros.report.run_record import (
    Accuracy,
    ClassAccuracy,
    Identities,
    MarkedBox,
    NotedFrame,
    RunRecord,
    SequenceRecord,
)
import pytest

from ..helpers.bags import jpeg_message, truth_message, write_bag
from ..helpers.pages import code, section, undocumented

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., Any]
#: Classes of the record of a run
RUN = (RunRecord, SequenceRecord, Accuracy, ClassAccuracy, Identities, NotedFrame, MarkedBox)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
        tmp_path: Path) -> Run:
    """Return a function that runs a verb and returns the document that `--json` prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(html_report, 'as_svg', lambda draw, run, width: '<svg/>')

    def go(*arguments: object) -> Any:
        assert program.main([*map(str, arguments), '--json']) in (0, 1)
        return json.loads(capsys.readouterr().out)
    return go


def test_keys_of_evaluations(run: Run, checkpoint: Path, videos: Path) -> None:
    document = json.loads(videos.read_text())
    for number, entry in enumerate(document['annotations']):
        entry['track_id'] = number
    tracked = videos.with_name('numbered.json')
    tracked.write_text(json.dumps(document))
    common = ('--checkpoint', checkpoint, '--annotations', tracked, '--policy', 'alternate(1)')
    for what in (('accuracy', '--protocol', 'plain', 'devkit', 'coco', '--motion-iou', 'auto'),
                 ('horizons', '--horizons', '2', '--within', '5'),
                 ('streaming', '--rates', '30', '--protocol', 'plain', 'coco'),
                 ('static', '--frames', '4')):
        assert undocumented(run('evaluate', *what, *common), '`evaluate`') == set(), what[0]


def test_keys_of_a_replay(run: Run, write_checkpoint: Callable[..., Path], tmp_path: Path
                          ) -> None:
    write_bag(tmp_path / 'bag', {
        '/camera/compressed': [jpeg_message(number) for number in range(3)],
        '/truth': [truth_message(number, [[4, 4, 60, 40]], ['cat']) for number in range(3)]})
    printed = run('replay', 'bag', '--truth-topic', '/truth', '--backend', 'torch',
                  '--checkpoint', write_checkpoint(('cat', 'dog')))
    # The page of the parameters describes the settings of the detector.
    settings = {*code(section('reference/ros.md', 'Parameters'))}
    assert undocumented(printed, '`summary.json`') - settings == set()
    line = (tmp_path / 'replay_output/bags/bag/frames.jsonl').read_text().splitlines()[0]
    assert undocumented(json.loads(line), 'Frames') == set()
    summary = json.loads((tmp_path / 'replay_output/summary.json').read_text())
    assert {*printed} - {*summary} == {'output'}


def test_keys_of_short_results(run: Run, checkpoint: Path, videos: Path) -> None:
    printed = 'What other verbs print with `--json`'
    assert undocumented(run('summary', '--checkpoint', checkpoint), printed) == set()
    assert undocumented(run('check-data', '--annotations', videos, '--images', videos.parent),
                        printed) == set()
    assert undocumented(run('prune', '--checkpoint', 'small', '--output', 'pruned.safetensors'),
                        printed) == set()


@pytest.mark.parametrize(('kind', 'heading'), [
    (RecordedFrame, 'Frames'), *((part, '`run.json`') for part in RUN),
    *((part, 'Comparisons and benchmark') for part in (Price, Timing, WorkPart))])
def test_keys_of_records(kind: Any, heading: str) -> None:
    assert undocumented({item.name: None for item in fields(kind)}, heading) == set()


@pytest.mark.parametrize(('file', 'heading'), [
    ('checkpoints/default.int8.export.json', 'The record of an export'),
    ('checkpoints/default.weightless.export.json', 'The record of an export'),
    ('docs/results/benchmark.json', 'Comparisons and benchmark')])
def test_keys_of_shipped_files(file: str, heading: str) -> None:
    assert undocumented(json.loads((ROOT / file).read_text()), heading) == set()


def test_a_key_missing_from_the_page_is_found() -> None:
    document = {'classes': {'cat': {'boxes': 1, 'unheard': 2}}, 'versions': {'numpy': '2'}}
    assert undocumented(document, '`evaluate`') == {'unheard'}
