# SPDX-License-Identifier: Apache-2.0
"""The program `benchmark` on a small network."""
from __future__ import annotations

import json
from pathlib import Path
import shlex
from typing import Any

import cv2
from forecast_detector_ros.benchmark.timing import Timing
from forecast_detector_ros.cli import benchmark
from forecast_detector_ros.cli.benchmark import GraphOptions, measure_graph, measure_start
from forecast_detector_ros.cli.graph import ChildError
from forecast_detector_ros.detector.checkpoint import Card, save_checkpoint
from forecast_detector_ros.model.config import NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]

CONFIG = NetworkConfig(
    classes=2, input_size=(64, 96), width=0.35, levels=(16, 32), feature_channels=(12, 20),
    lstm_channels=(8, 10), extra_channels=(16, 8), scheduler_channels=8)


@pytest.fixture(scope='session')
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the arguments that name a small network and a short clip."""
    folder = tmp_path_factory.mktemp('benchmark')
    torch.manual_seed(0)
    save_checkpoint(folder / 'small.safetensors', ForecastDetector(CONFIG).eval(),
                    Card('small', ('cat', 'dog'), CONFIG), torch.float32)
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(folder / 'clip.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10.0,
                             (160, 120))
    for _ in range(5):
        writer.write(rng.integers(0, 256, (120, 160, 3), np.uint8))
    writer.release()
    return ['--checkpoint', str(folder / 'small.safetensors'),
            '--video', str(folder / 'clip.avi')]


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_absent_device_is_refused_in_one_line(given: list[str],
                                              capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([*given, '--device', 'cuda']) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "device is 'cuda'" in said[0] and 'no CUDA device' in said[0]


QUICK = ['--build', 'torch', '--rounds', '2', '--peers', '--batches', '2']


def test_run_is_written_and_read_back(given: list[str], tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / 'run.json'
    assert benchmark.main([*given, *QUICK, '--build', 'torch:fp8', '--output', str(output)]) == 0
    run = json.loads(output.read_text())
    names = [row['name'] for row in run['timings']]
    for name in ('read step torch fp32', 'forecast step torch fp32', 'read step torch fp32 x2',
                 'plain SSDLite torch fp32', 'read frame 1080p jpeg torch fp32', 'extractor',
                 'encoders', 'scheduler', 'head', 'post-process', 'preprocess 720p',
                 'decode JPEG 480p as needed', 'GEMM fp32'):
        assert name in names
    assert all(set(row) == set(Timing.__dataclass_fields__) and row['median_ms'] > 0
               for row in run['timings'])
    assert 0 < run['read_ratio'] <= 1
    assert len(run['skipped']) == 1 and 'fp8' in run['skipped'][0]
    work = {row['name']: row['macs'] for row in run['timings']}
    assert work['read step torch fp32 x2'] == 2 * work['read step torch fp32']
    assert work['forecast step torch fp32'] < work['read step torch fp32']
    first = capsys.readouterr().out
    # The results loaded from the file give the same tables; nothing is measured.
    report = tmp_path / 'report.md'
    assert benchmark.main(['--load', str(output), '--report', str(report),
                           '--compare', str(output)]) == 0
    again = capsys.readouterr().out
    assert first.endswith(f'\n\nwritten: {output}\n')
    assert again.startswith(first.partition('\n\nwritten: ')[0])
    assert again.endswith(f'\n\nwritten: {report}\n')
    assert 'change %' in again and 'SLOWER' not in again
    assert '| extractor |' in report.read_text()
    assert '](images/benchmark_parts.png)' in report.read_text()
    assert (tmp_path / 'images/benchmark_parts.png').is_file()


def test_shipped_network_has_parts(given: list[str], tmp_path: Path) -> None:
    output = tmp_path / 'run.json'
    assert benchmark.main([*given[2:], '--checkpoint', 'small', *QUICK, '--rounds', '1',
                           '--output', str(output)]) == 0
    rows = {row['name']: row for row in json.loads(output.read_text())['timings']}
    assert {'extractor', 'motion encoder', 'scheduler', 'head', 'move boxes'} <= set(rows)
    parts = [rows[name]['macs'] for name in ('extractor', 'motion encoder', 'scheduler', 'head')]
    assert sum(parts) == rows['read step torch fp32']['macs']


def changed(path: Path, **changes: Any) -> dict[str, Any]:
    run = json.loads(path.read_text())
    for row in run['timings']:
        row.update(changes)
    return run


def test_regression_is_exit_code_1(given: list[str], tmp_path: Path) -> None:
    old = tmp_path / 'old.json'
    assert benchmark.main([*given, *QUICK, '--no-parts', '--output', str(old)]) == 0
    new = tmp_path / 'new.json'
    old.write_text(json.dumps(changed(old, median_ms=1.0, noise=0.01)))
    new.write_text(json.dumps(changed(old, median_ms=1.2, noise=0.01)))
    assert benchmark.main(['--load', str(new), '--compare', str(old)]) == 1
    assert benchmark.main(['--load', str(old), '--compare', str(new)]) == 0
    # All medians are equal, so a forecast step is not six times cheaper.
    assert benchmark.main(['--load', str(old), '--targets']) == 1


def test_start_up_is_compared_and_missing_targets_are_named(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = json.loads((ROOT / 'docs/results/benchmark.json').read_text())
    paths = [tmp_path / name for name in ('old.json', 'new.json', 'bare.json')]
    for path, seconds in zip(paths, (1.0, 1.5, None)):
        starts = [] if seconds is None else [{**row, 'seconds': seconds} for row in run['start']]
        path.write_text(json.dumps({**run, 'start': starts}))
    old, new, bare = map(str, paths)
    assert benchmark.main(['--load', new, '--compare', old]) == 1
    said = capsys.readouterr()
    assert 'seconds to active, warm caches' in said.out
    assert 'benchmark: worse, ' in said.err and 'seconds to active, warm caches' in said.err
    assert benchmark.main(['--load', old, '--compare', new]) == 0
    assert benchmark.main(['--load', bare, '--compare', new]) == 0
    capsys.readouterr()
    benchmark.main(['--load', old, '--targets'])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('benchmark: missed, ')
    benchmark.main(['--load', bare, '--targets'])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('benchmark: not measured, 3 of 19 targets: node from start to active')


def test_make_benchmark_measures_everything() -> None:
    recipe = (ROOT / 'Makefile').read_text()
    command = recipe.partition('.cli benchmark ')[2].replace('\\\n', '').partition('\n')[0]
    options = benchmark.make_parser().parse_args(shlex.split(command.replace('$(BENCHMARK)', '')))
    assert options.graph and options.start_up and not options.no_parts and options.report


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--load', 'absent.json'], ['absent.json']),
    (['--video', 'absent.mp4'], ['absent.mp4']),
    (['--checkpoint', 'absent.safetensors'], ['absent']),
    (['--build', 'torch', '--peer-onnx', 'yolo.onnx'], ['yolo.onnx', 'FILE:SIDE']),
    (['--build', 'torch', '--peer-onnx', 'absent.onnx:320'], ['absent.onnx', 'no such file'])])
def test_bad_input_is_one_line_and_exit_code_2(
        given: list[str], arguments: list[str], words: list[str],
        capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([*given, '--rounds', '1', '--peers', '--no-parts', *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith('benchmark: ') and all(word in line for word in words)


def test_foreign_json_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, text in enumerate(('{}', '[', '{"format": "other/1"}',
                                   '{"format": "forecast_detector_ros/benchmark/1"}')):
        path = tmp_path / f'{number}.json'
        path.write_text(text)
        assert benchmark.main(['--load', str(path)]) == 2
        assert str(path) in capsys.readouterr().err


def test_build_named_twice_is_measured_once(given: list[str], tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / 'new/folder/b.json'
    assert benchmark.main([*given, *QUICK, '--build', 'torch', '--no-parts', '--output',
                           str(output)]) == 0
    names = [row['name'] for row in json.loads(output.read_text())['timings']]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize('text', ['torch:', ':fp32', 'torch:fp32:0', 'torch:fp32:x', 'a:b:1:2'])
def test_bad_build_is_a_usage_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(['--build', text])
    assert 'must be BACKEND' in capsys.readouterr().err


def test_bad_rate_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(['--graph', '--rate', '0'])
    assert 'must be a number from 0.001 to 1000' in capsys.readouterr().err


@pytest.mark.slow
def test_start_of_the_node() -> None:
    pytest.importorskip('rclpy')
    pytest.importorskip('openvino')
    said: list[str] = []
    rows = measure_start({'backend': 'openvino'}, 1, said.append)
    assert said == ['cold start 1 of 1', 'warm start 1 of 1']
    assert [row['cache'] for row in rows] == ['cold', 'warm']
    for row in rows:
        assert row['seconds'] > 0 and row['cpu_seconds'] > 0
        # With PyTorch loaded, the node would use more memory.
        assert 50 < row['memory_mb'] < 480
    # OpenVINO's graphs are not compiled again.
    assert rows[1]['cpu_seconds'] < rows[0]['cpu_seconds']


def test_node_that_does_not_start_says_why() -> None:
    pytest.importorskip('rclpy')
    with pytest.raises(ChildError, match='did not become active.*/nowhere/x.safetensors: no such'):
        measure_start({'checkpoint': '/nowhere/x.safetensors'}, 1)


@pytest.mark.slow
def test_end_to_end(given: list[str], tmp_path: Path) -> None:
    pytest.importorskip('rclpy')
    pytest.importorskip('openvino')
    said: list[str] = []
    rows = measure_graph(
        GraphOptions(Path(given[3]), {'checkpoint': given[1], 'backend': 'openvino'}, ['480p'],
                     ['compressed'], 10, 5, 10.0), tmp_path, said.append)
    assert [(row['node'], row['policy']) for row in rows] == [
        ('detector', 'always_read'), ('detector', 'alternate(1)'), ('detector', 'forecast'),
        ('bare', 'none')]
    assert said[0] == 'detector, 480p, compressed, always_read'
    assert all(row['published'] == 10 and row['cpu_ms_per_frame'] >= 0 for row in rows)
    read, alternate, forecast = (row['read_ratio'] for row in rows[:3])
    assert read == 1.0 and forecast == 0.0 and 0.0 < alternate < 1.0
    for row in rows[:3]:
        assert 0 <= row['lost'] < 10
        assert 0 < row['latency_p50_ms'] <= row['latency_p95_ms']
