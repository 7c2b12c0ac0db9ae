# SPDX-License-Identifier: Apache-2.0
"""
Check bags without ROS, and videos.

Bags have the types of the installed packages. A video appears only when it is complete.
"""

import errno
import os
from pathlib import Path
import subprocess
import sys

import cv2
from forecast_detector_ros.node.recording import message_folder
from forecast_detector_ros.recording import output_files
from forecast_detector_ros.recording.output_files import (
    DETECTIONS,
    StreamedVideoWriter,
    typestore_with,
    VideoError,
    VideoWriter,
    VISION_FIELDS,
    vision_typestore,
)
import numpy as np
import pytest

# Type hash of vision_msgs 4.1.1.
DETECTIONS_HASH = 'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968'


def test_detections_have_the_hash_of_the_package():
    assert vision_typestore().hash_rihs01(DETECTIONS) == DETECTIONS_HASH


@pytest.mark.parametrize('name', VISION_FIELDS)
def test_every_type_is_that_of_the_installed_package(name):
    full = f'vision_msgs/msg/{name}'
    installed = typestore_with({
        f'vision_msgs/msg/{path.stem}': path.read_text()
        for path in message_folder('vision_msgs').glob('*.msg')})
    assert vision_typestore().hash_rihs01(full) == installed.hash_rihs01(full)


def test_video_appears_under_its_name_when_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / 'out.mp4'
    writer = VideoWriter(path, 12.5)
    for level in (0, 100, 200):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    assert not path.exists()
    writer.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ['out.mp4']
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    levels = []
    while (read := capture.read())[0]:
        levels.append(read[1].mean())
    np.testing.assert_allclose(levels, [0, 100, 200], atol=4)


@pytest.mark.parametrize(('rate', 'written'), [
    (29.97, 29.97), (1000 / 15, 66.67), (1000 / 7, 142.86), (719.424, 719.4), (1000.0, 1000.0)])
def test_rate_is_one_that_mpeg_4_can_have(tmp_path: Path, rate: float, written: float) -> None:
    writer = VideoWriter(tmp_path / 'out.mp4', rate)
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.close()
    capture = cv2.VideoCapture(str(tmp_path / 'out.mp4'))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(written)


def test_picture_of_another_size_is_fitted_and_centred(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / 'out.mp4', 10.0)
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.write(np.full((100, 50, 3), 255, np.uint8))
    writer.close()
    capture = cv2.VideoCapture(str(tmp_path / 'out.mp4'))
    capture.read()
    picture = capture.read()[1]
    assert picture.shape == (48, 64, 3)
    assert picture[24, 32].min() > 200
    assert picture[24, 5].max() < 50


def test_nothing_written_leaves_no_file(tmp_path: Path) -> None:
    VideoWriter(tmp_path / 'out.mp4', 10.0).close()
    assert list(tmp_path.iterdir()) == []


def test_folder_that_does_not_exist_is_one_clear_line(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / 'missing' / 'out.mp4', 10.0)
    with pytest.raises(VideoError, match='cannot write'):
        writer.write(np.zeros((48, 64, 3), np.uint8))


@pytest.mark.parametrize('kind', [VideoWriter, StreamedVideoWriter])
def test_name_with_a_colon_is_not_a_protocol(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[VideoWriter]) -> None:
    monkeypatch.chdir(tmp_path)
    writer = kind('take:2.mkv', 10.0)
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.close()
    assert os.listdir() == ['take:2.mkv']


def test_name_that_is_not_utf_8_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b'caf\xe9.mp4')
    # OpenCV could end the process, so the test uses a separate one.
    code = ('import numpy as np, sys\n'
            'from forecast_detector_ros.recording.output_files import VideoWriter\n'
            'VideoWriter(sys.argv[1], 10.0).write(np.zeros((48, 64, 3), np.uint8))\n')
    done = subprocess.run([sys.executable, '-c', code, path], capture_output=True, text=True,
                          check=False, timeout=600)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith('.mp4: the name of a video must be UTF-8')


def test_stream_without_room_for_its_pipe_is_one_clear_line(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(output_files, 'TemporaryDirectory', fail)
    before = os.listdir('/proc/self/fd')
    with pytest.raises(VideoError, match=r'out.mkv: cannot write: No space left on device$'):
        StreamedVideoWriter(tmp_path / 'out.mkv', 10.0).write(np.zeros((48, 64, 3), np.uint8))
    assert os.listdir('/proc/self/fd') == before
