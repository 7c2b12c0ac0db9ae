# SPDX-License-Identifier: Apache-2.0
"""Every verb runs with the default checkpoint on three small frames."""

import argparse
from collections.abc import Iterator
import json
from pathlib import Path
import shutil
import signal

import cv2
from forecast_detector_ros.annotations.synthetic import write_synthetic_videos
from forecast_detector_ros.cli import program
from forecast_detector_ros.detector.checkpoint import default_checkpoint
import pytest
import torch
import yaml

from ..helpers.bags import raw_message, write_bag

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 3
NAMES = {'disc': 'person', 'square': 'car', 'triangle': 'dog'}

VIDEO = '--annotations data/labels.json'
HELD_OUT = '--annotations held/labels.json --images held --sequences synthetic-000'
RATE = {'lr': 0.001}
CARD = yaml.safe_load(Path(default_checkpoint()).with_suffix('.yaml').read_text())
POLICY = f'threshold({CARD["threshold"]:g})'

#: A short training of a small network of the preset `default`
RECIPE = {
    'name': 'tiny', 'classes': list(NAMES.values()), 'preset': 'default', 'workers': 0,
    'threads': 1, 'network': {'input_size': [64, 96], 'width': 0.35},
    'sources': [{'annotations': 'labels.json', 'images': '.'}],
    'stages': [{'name': 'single', 'variant': 'baseline', 'epochs': 1, 'clips_per_epoch': 2,
                'batch': 2, 'clip_length': 1, 'extra_frame': False, 'thinning': 0,
                'optimizer': 'adamw',
                'groups': {'backbone': RATE, 'projection': RATE, 'head': RATE}}]}

#: The command lines of each verb, and text in the output of the last one
RUNS = {
    'demo': (['demo --video clip.avi --output demo --plain --rate 4 --policy alternate(1) '
              '-p score_threshold:=0.01'],
             'report.html'),
    'replay': (['replay bag --output replayed'], 'images: 3, of which'),
    'report': ([f'evaluate accuracy {VIDEO} --run run.json', 'report run.json'],
               'written: report.html'),
    'export': (['export --output exported --frames 2'], '2 frames checked'),
    'prune': (['prune --output pruned.safetensors'], 'largest difference of features 0'),
    'summary': (['summary --checkpoint default'], 'motion encoder'),
    'check-data': ([f'check-data {ROOT}/config/training/adapt.yaml --data data'], '0 problems'),
    'evaluate accuracy': ([f'evaluate accuracy {VIDEO}'], 'mean over classes with boxes'),
    'evaluate horizons': ([f'evaluate horizons {VIDEO} --horizons 1'],
                          'frames after a read'),
    'evaluate streaming': ([f'evaluate streaming {VIDEO} --rates 10'], POLICY),
    'evaluate static': ([f'evaluate static {VIDEO} --frames 2'], 'nothing moves'),
    'compare designs': ([f'compare designs recipe.yaml designs.yaml --data data --rounds 2 '
                         f'--output designs {HELD_OUT}'], '| as_it_is |'),
    'compare detectors': ([f'compare detectors {VIDEO} --checkpoints mine=default --frames 2 '
                           '--torchvision --output prices'], f'| mine | {POLICY} |'),
    'figures table1': ([f'figures table1 {VIDEO} --output table1'], POLICY),
    'figures table2': ([f'figures table2 {VIDEO} --output table2'], 'default'),
    'figures fig4': ([f'figures fig4 {VIDEO} --output fig4'], 'synthetic-000'),
    'figures fig5': ([f'figures fig5 {VIDEO} --thresholds 0.5 --output fig5'], '(shipped)'),
    'figures streaming': ([f'figures streaming {VIDEO} --rates 10 --output streaming'],
                          POLICY),
}

#: The tests that run the other verbs, with a shipped checkpoint if they take one.
ELSEWHERE = {
    'label': 'test/training/test_adapt_recipe.py::test_from_a_video_to_an_adapted_checkpoint',
    'train': 'test/training/test_adapt_recipe.py::test_from_a_video_to_an_adapted_checkpoint',
    'benchmark': 'test/cli/test_benchmark.py::test_shipped_network_has_parts',
    'benchmark-metrics': 'test/cli/test_benchmark_metrics.py::test_every_part_is_timed',
    'figures fig6': 'test/cli/test_figures.py::test_figure_6_needs_features_that_are_forecast',
    'figures motion': 'test/cli/test_figures.py::test_motion_of_the_published_file',
    'reproduce': 'test/experiments/test_reproduction.py::'
                 'test_network_that_forecasts_no_features_is_refused',
    'figures reproduction': 'test/cli/test_figures.py::test_means_of_a_reproduction',
}


@pytest.fixture(scope='module')
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write annotated video, a video file, a bag and a recipe; return their folder."""
    root = tmp_path_factory.mktemp('inputs')
    for seed, name in enumerate(('data', 'held')):
        written = write_synthetic_videos(root / name, seed=seed, videos=1, frames=FRAMES)
        document = json.loads(written.read_text())
        for category in document['categories']:
            category['name'] = NAMES[category['name']]
        for entry in document['annotations']:
            entry['track_id'] = entry['id']  # A training of motion needs tracks.
        written.with_name('labels.json').write_text(json.dumps(document))
    writer = cv2.VideoWriter(str(root / 'clip.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 10.0,
                             (160, 120))
    # The demo needs many frames, because a busy machine drops some.
    for path in 4 * sorted(root.glob('data/*/*.jpg')):
        writer.write(cv2.imread(str(path)))
    writer.release()
    write_bag(root / 'bag', {'/camera': [raw_message(number) for number in range(FRAMES)]})
    (root / 'recipe.yaml').write_text(yaml.safe_dump(RECIPE))
    (root / 'designs.yaml').write_text('as_it_is: {}')
    return root


@pytest.fixture(autouse=True)
def same_signals() -> Iterator[None]:
    """Restore the signal handlers that the demo changes."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize('verb', [
    pytest.param(verb, marks=pytest.mark.slow) if verb in ('demo', 'compare designs') else verb
    for verb in RUNS])
def test_verb_runs(verb: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                   capsys: pytest.CaptureFixture[str]) -> None:
    if verb == 'demo':
        pytest.importorskip('rclpy')
    torch.set_num_threads(1)
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    lines, seen = RUNS[verb]
    for line in lines:
        capsys.readouterr()
        assert program.main(line.split()) == 0, capsys.readouterr().err
    assert seen in capsys.readouterr().out


def test_a_row_that_needs_a_forecast_of_features_is_refused(
        inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(inputs)
    assert program.main(f'evaluate horizons {VIDEO} --rows persistence'.split()) == 2
    line, = capsys.readouterr().err.splitlines()
    assert 'row persistence' in line and 'a network that forecasts features' in line


def verbs() -> set[str]:
    """Return the verbs of the program; a verb with parts counts once for each part."""
    found = set()
    for verb in program.VERBS:
        parts = [name for action in program.load(verb).make_parser()._actions
                 if isinstance(action, argparse._SubParsersAction) for name in action.choices]
        found |= {f'{verb} {part}' for part in parts} or {verb}
    return found


def test_every_verb_has_a_test() -> None:
    assert not set(RUNS) & set(ELSEWHERE)
    assert set(RUNS) | set(ELSEWHERE) == verbs()
    for place in ELSEWHERE.values():
        file, _, test = place.partition('::')
        assert f'def {test}(' in (ROOT / file).read_text(), place
