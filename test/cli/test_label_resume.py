# SPDX-License-Identifier: Apache-2.0
"""`label --resume` keeps the labels of all sources, even if a source fails this time."""

import json

import cv2
from forecast_detector_ros.cli import label
import numpy as np
import pytest

FRAMES = 4


@pytest.fixture
def teacher(write_onnx):
    """Write a teacher that finds a dog in every picture."""
    return write_onnx({'boxes': np.array([[2, 3, 20, 30]], np.float32),
                       'labels': np.array([18], np.int64),
                       'scores': np.array([0.9], np.float32)}, [1, 3, 'H', 'W'])


@pytest.fixture
def root(tmp_path):
    """Write three folders of pictures."""
    for name in 'abc':
        (tmp_path / 'data' / name).mkdir(parents=True)
        for number in range(FRAMES):
            cv2.imwrite(str(tmp_path / f'data/{name}/{number}.png'),
                        np.full((32, 32, 3), 9 * number, np.uint8))
    return tmp_path / 'data'


@pytest.fixture
def run(tmp_path, teacher, root):
    """
    Return a function that labels pictures with two processes.

    It returns the exit code, the number of labelled pictures per folder and the document.
    """
    output = tmp_path / 'labels.json'

    def go(*arguments):
        code = label.main([str(root), '--teacher', str(teacher), '--output', str(output),
                           '--jobs', '2', *arguments])
        document = json.loads(output.read_text())
        names = [image['video'] for image in document['images']]
        return code, [names.count(name) for name in 'abc'], document
    return go


def test_labelling_of_a_folder_ends_at_an_unreadable_picture(run, root, capsys):
    picture = root / 'b/2.png'
    content = picture.read_bytes()
    picture.write_bytes(b'nothing')
    code, counts, document = run()
    assert (code, counts) == (1, [FRAMES, 2, FRAMES]) and not document['info']['complete']
    assert f'left out: b: {picture}: not a picture' in capsys.readouterr().err
    # A second folder now fails too, but the labels of both folders stay.
    (root / 'a/0.png').write_bytes(b'nothing')
    code, counts, _ = run('--resume')
    assert (code, counts) == (1, [FRAMES, 2, FRAMES])
    picture.write_bytes(content)
    code, counts, document = run('--resume')
    assert (code, counts) == (0, [FRAMES] * 3) and document['info']['complete']


def videos(tmp_path, root):
    paths = []
    for name in 'abc':
        path = tmp_path / f'{name}.avi'
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 25.0, (32, 32))
        for number in range(FRAMES):
            writer.write(cv2.imread(str(root / name / f'{number}.png')))
        writer.release()
        paths.append(path)
    return paths


def test_labels_of_a_video_stay_when_it_fails_or_is_not_named(tmp_path, teacher, root, capsys):
    paths, output = videos(tmp_path, root), tmp_path / 'labels.json'
    common = ['--teacher', str(teacher), '--frames', str(tmp_path / 'frames'), '--output',
              str(output)]
    assert label.main([str(paths[0]), str(paths[1]), *common]) == 0
    before = json.loads(output.read_text())
    capsys.readouterr()
    assert label.main([str(paths[1]), str(paths[2]), *common, '--resume']) == 2
    assert 'has labels of a, which is not among the sources' in capsys.readouterr().err
    assert json.loads(output.read_text()) == before
    paths[0].unlink()
    paths[0].write_bytes(b'nothing')
    assert label.main([*map(str, paths), *common, '--resume']) == 1
    document = json.loads(output.read_text())
    names = [image['video'] for image in document['images']]
    assert [names.count(name) for name in 'abc'] == [FRAMES] * 3
    assert not document['info']['complete']


def test_resume_with_another_teacher_of_the_same_name_is_refused(run, teacher, capsys):
    assert run()[0] == 0
    teacher.write_bytes(teacher.read_bytes() + b'\x32\x00')  # An empty doc_string of ONNX
    assert run('--resume')[0] == 2
    assert 'was made with other settings' in capsys.readouterr().err


def test_output_that_is_a_folder_is_refused_before_the_work(tmp_path, teacher, root, capsys):
    assert label.main([str(root), '--teacher', str(teacher), '--output', str(tmp_path)]) == 2
    assert f'--output {tmp_path}: cannot be written: ' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['/etc', '../data/a'])
def test_folders_outside_the_source_are_refused(tmp_path, teacher, root, capsys, name):
    assert label.main([str(root), '--teacher', str(teacher), '--folders', name, '--output',
                       str(tmp_path / 'x.json')]) == 2
    assert f'{name}: must be a folder below {root}' in capsys.readouterr().err
