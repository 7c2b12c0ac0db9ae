# SPDX-License-Identifier: Apache-2.0
"""The command `label`: from a source to a file, and how faults are told."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import cv2
from forecast_detector_ros.annotations.video_json import load_video_json
from forecast_detector_ros.cli import label
from forecast_detector_ros.labelling.teacher import TEACHER_CLASSES
import numpy as np
import pytest


@pytest.fixture
def teacher(write_onnx):
    """Write a teacher that sees a dog and a truck in every picture."""
    return write_onnx({'boxes': np.array([[2, 3, 20, 30], [1, 1, 9, 9]], np.float32),
                       'labels': np.array([18, 8], np.int64),
                       'scores': np.array([0.9, 0.5], np.float32)}, [1, 3, 'H', 'W'])


@pytest.fixture
def clip(tmp_path):
    """Write a video of 9 frames."""
    path = tmp_path / 'walk.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 25.0, (64, 48))
    for number in range(9):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    return path


def test_default_classes_are_the_teachers():
    assert set(label.CLASSES) <= set(TEACHER_CLASSES)
    assert len(set(label.CLASSES)) == len(label.CLASSES) == 23


def test_from_video_to_training_data(tmp_path, teacher, clip):
    root, output = tmp_path / 'data', tmp_path / 'data/labels.json'
    arguments = [str(clip), '--frames', str(root), '--every', '2', '--teacher', str(teacher),
                 '--output', str(output)]
    assert label.main(arguments) == 0
    (video,) = load_video_json(output, root, label.CLASSES)
    assert video.name == 'walk' and len(video.frames) == 5
    assert video.frames[4].path == root / 'walk/000008.jpg'
    assert video.frames[0].boxes.tolist() == [[2, 3, 20, 30]]
    assert video.frames[0].ignore.tolist() == [[1, 1, 9, 9]]
    document = json.loads(output.read_text())
    assert [item['track_id'] for item in document['annotations']] == [1] * 5
    assert '(torchvision)' in document['info']['description']
    before = output.read_bytes()
    assert label.main([*arguments, '--resume']) == 0
    assert output.read_bytes() == before


def test_half_done_file_is_not_overwritten(capsys, tmp_path, teacher, clip):
    output = tmp_path / 'labels.json'
    arguments = [str(clip), '--frames', str(tmp_path), '--teacher', str(teacher), '--output',
                 str(output)]
    assert label.main(arguments) == 0
    whole = json.loads(output.read_text())
    half = {**whole, 'info': {**whole['info'], 'complete': False}, 'images': whole['images'][:4],
            'annotations': whole['annotations'][:4],
            'ignore_annotations': whole['ignore_annotations'][:4]}
    output.write_text(json.dumps(half))
    assert label.main(arguments) == 2
    assert 'half done; --resume goes on' in capsys.readouterr().err
    assert json.loads(output.read_text()) == half
    assert label.main([*arguments, '--resume']) == 0
    assert json.loads(output.read_text()) == whole


@pytest.mark.slow
def test_ctrl_c_leaves_a_file_that_can_be_gone_on_with(tmp_path, teacher):
    for number in range(400):
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.zeros((8, 8, 3), np.uint8))
    output = tmp_path / 'out/labels.json'
    # Slow, and saved often, so that the test sees when it is at work.
    program = (
        'import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler); '
        'from forecast_detector_ros.cli.label import main; '
        'from forecast_detector_ros.labelling import label_folders, teacher_torchvision as kind; '
        'label_folders.SAVE_EVERY_S = 0.2; detect = kind.TorchvisionTeacher.detect; '
        'kind.TorchvisionTeacher.detect = lambda *args: time.sleep(0.05) or detect(*args); '
        'sys.exit(main())')
    process = subprocess.Popen(
        [sys.executable, '-c', program, str(tmp_path), '--teacher', str(teacher), '--output',
         str(output)], stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'})
    deadline = time.monotonic() + 240
    while not output.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert err.splitlines()[-1] == 'label: interrupted; the same command with --resume goes on'
    assert 'Traceback' not in err
    document = json.loads(output.read_text())
    assert 0 < document['info']['labelled'] == len(document['images']) < 400
    assert not document['info']['complete']


@pytest.mark.parametrize('folder, words', [
    ('missing', 'missing: no such folder'),
    ('empty', 'empty: no pictures'),
    ('walk', 'teacher.onnx: no such file'),
])
def test_bad_input_is_one_line(capsys, request, tmp_path, folder, words):
    pytest.importorskip('onnxruntime')
    path = tmp_path / 'teacher.onnx'
    if folder != 'walk':
        path = request.getfixturevalue('teacher')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'walk').mkdir()
    cv2.imwrite(str(tmp_path / 'walk/1.png'), np.zeros((8, 8, 3), np.uint8))
    output = tmp_path / 'labels.json'
    code = label.main([str(tmp_path / folder), '--teacher', str(path), '--output', str(output)])
    err = capsys.readouterr().err
    assert code == 2 and err.startswith('label: ') and err.count('\n') == 1 and words in err
    assert not output.exists()


@pytest.mark.parametrize('arguments, words', [
    ([], 'required: source, --teacher, --output'),
    (['x', '--teacher', 'y', '--output', 'z', '--min-score', '2'], 'must be in [0, 1]'),
    (['x', '--teacher', 'y', '--output', 'z', '--every', '0'], 'must be at least 1'),
    (['x', '--teacher', 'y', '--output', 'z', '--teacher-kind', 'w'], "'yolox', 'yolox-decoded'"),
    (['{clip}', '--teacher', 'y', '--output', 'z'], '--frames DIR says where'),
    (['{clip}', '--frames', 'd', '--teacher', 'y', '--output', 'z', '--stills'],
     '--stills is for folders of pictures'),
    (['{folder}', '--frames', 'd', '--teacher', 'y', '--output', 'z'],
     '--frames is for videos and bags'),
])
def test_bad_arguments_are_refused(capsys, clip, arguments, words):
    with pytest.raises(SystemExit) as stop:
        label.main([item.format(clip=clip, folder=Path(clip).parent) for item in arguments])
    assert stop.value.code == 2 and words in capsys.readouterr().err
