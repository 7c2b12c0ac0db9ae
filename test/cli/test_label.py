# SPDX-License-Identifier: Apache-2.0
"""The command `label`, from a source to a file, and its error messages."""

import json
import os
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
    """Write a teacher that finds a dog and a truck in every picture."""
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


def test_default_classes_are_those_of_the_teacher():
    assert set(label.CLASSES) <= set(TEACHER_CLASSES)
    assert len(set(label.CLASSES)) == len(label.CLASSES) == 22


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
    assert '(torchvision, SHA-256 ' in document['info']['description']
    before = output.read_bytes()
    assert label.main([*arguments, '--resume']) == 0
    assert output.read_bytes() == before


@pytest.mark.parametrize('wrong', [
    ('--classes', 'dog', 'hores'), ('--ignore', 'trunk'), ('--output', '{tmp}/file/labels.json')])
def test_nothing_is_extracted_from_refused_input(capsys, tmp_path, teacher, clip, wrong):
    (tmp_path / 'file').touch()
    arguments = [str(clip), '--frames', str(tmp_path / 'data'), '--teacher', str(teacher),
                 '--output', str(tmp_path / 'labels.json')]
    assert label.main([*arguments, *(item.format(tmp=tmp_path) for item in wrong)]) == 2
    assert capsys.readouterr().err.count('\n') == 1
    assert not (tmp_path / 'data').exists()
    assert label.main(arguments) == 0


@pytest.fixture
def clips(tmp_path, clip):
    """Write a second and a third video, in a folder with the first."""
    folder = tmp_path / 'clips'
    folder.mkdir()
    for name in ('c', 'a', 'b'):
        (folder / f'{name}.avi').write_bytes(clip.read_bytes())
    return folder


def test_many_videos_give_one_document(capsys, tmp_path, teacher, clips):
    broken = tmp_path / 'broken.avi'
    broken.write_bytes(b'nothing')
    common = ('--every', '2', '--teacher', str(teacher))
    paths = [str(clips / f'{name}.avi') for name in 'bca']
    whole = tmp_path / 'whole.json'
    assert label.main([*paths, *common, '--frames', str(tmp_path / 'data'), '--output',
                       str(whole)]) == 0
    document = json.loads(whole.read_text())
    assert [video['name'] for video in document['videos']] == ['b', 'c', 'a']
    assert document['info']['complete'] and len(document['images']) == 15
    # Each video alone gives the same boxes.
    for name in 'bca':
        alone = tmp_path / f'{name}.json'
        assert label.main([str(clips / f'{name}.avi'), *common, '--frames', str(
            tmp_path / f'alone-{name}'), '--output', str(alone)]) == 0
        boxes = [item['bbox'] for item in json.loads(alone.read_text())['annotations']]
        ids = {item['id'] for item in document['images'] if item['video'] == name}
        assert boxes == [item['bbox'] for item in document['annotations']
                         if item['image_id'] in ids]
    capsys.readouterr()
    output, frames = tmp_path / 'new/labels.json', tmp_path / 'again'
    again = [str(broken), *paths, *common, '--frames', str(frames), '--output', str(output)]
    assert label.main(again) == 1
    err = capsys.readouterr().err
    assert 'label: left out: broken: ' in err and 'broken.avi' in err
    partial = json.loads(output.read_text())
    assert not partial['info']['complete'] and partial['images'] == document['images']
    broken.write_bytes((clips / 'a.avi').read_bytes())
    before = (frames / 'b/000000.jpg').stat().st_mtime_ns
    assert label.main([*again, '--resume']) == 0
    done = json.loads(output.read_text())
    assert done['info']['complete'] and len(done['images']) == 20
    assert (frames / 'b/000000.jpg').stat().st_mtime_ns == before


def test_folder_stands_for_all_its_videos(capsys, tmp_path, teacher, clips):
    (clips / 'more').mkdir()
    (clips / 'b.avi').rename(clips / 'more/c.AVI')
    frames, output = clips / 'frames', clips / 'labels.json'
    arguments = [str(clips), '--frames', str(frames), '--every', '4', '--teacher', str(teacher),
                 '--output', str(output)]
    assert label.main(arguments) == 0
    document = json.loads(output.read_text())
    assert [video['name'] for video in document['videos']] == ['a', 'c', 'c-2']
    assert len(document['images']) == 9 and (frames / 'c-2/000008.jpg').is_file()
    # The folder now has extracted frames, but still counts as a folder of videos.
    before = output.read_bytes()
    assert label.main([*arguments, '--resume']) == 0
    assert output.read_bytes() == before


@pytest.mark.slow
def test_a_thousand_videos_give_one_document(tmp_path, teacher):
    clip, folder, output = tmp_path / 'clip.avi', tmp_path / 'clips', tmp_path / 'labels.json'
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*'MJPG'), 25.0, (16, 16))
    writer.write(np.zeros((16, 16, 3), np.uint8))
    writer.release()
    folder.mkdir()
    names = [f'{number:04d}' for number in range(1000)]
    for name in names:
        (folder / f'{name}.avi').hardlink_to(clip)
    (folder / '0500.avi').unlink()
    (folder / '0500.avi').write_bytes(b'nothing')
    assert label.main([str(folder), '--frames', str(tmp_path / 'frames'), '--teacher',
                       str(teacher), '--output', str(output)]) == 1
    document = json.loads(output.read_text())
    names.remove('0500')
    assert [image['video'] for image in document['images']] == names
    assert not document['info']['complete'] and len(document['annotations']) == 999


@pytest.mark.slow
def test_labels_of_processes_equal_those_of_one(tmp_path, teacher, clips):
    pictures = tmp_path / 'pictures'
    common = ['--teacher', str(teacher)]
    paths = [str(clips / f'{name}.avi') for name in 'bca']
    documents = []
    for jobs in ('1', '2'):
        output = tmp_path / f'{jobs}.json'
        assert label.main([*paths, *common, '--frames', str(tmp_path / jobs), '--jobs', jobs,
                           '--output', str(output)]) == 0
        documents.append(output.read_bytes())
    (tmp_path / '1').rename(pictures)
    for jobs in ('1', '2'):
        output = tmp_path / f'pictures-{jobs}.json'
        assert label.main([str(pictures), *common, '--jobs', jobs, '--output', str(output)]) == 0
        documents.append(output.read_bytes())
    assert documents[0] == documents[1] and documents[2] == documents[3]


def test_sources_and_labels_at_urls(tmp_path, teacher, clips):
    store, common = f'file://{tmp_path}/store', ['--teacher', f'file://{teacher}']
    assert label.main([*(f'file://{clips}/{name}.avi' for name in 'ab'), *common, '--frames',
                       f'{store}/frames', '--output', f'{store}/labels.json']) == 0
    here = tmp_path / 'here.json'
    assert label.main([*(str(clips / f'{name}.avi') for name in 'ab'), *common, '--frames',
                       str(tmp_path / 'frames'), '--output', str(here)]) == 0
    assert (tmp_path / 'store/labels.json').read_bytes() == here.read_bytes()
    assert label.main([f'{store}/frames', *common, '--output', f'{store}/pictures.json']) == 0
    pictures = json.loads((tmp_path / 'store/pictures.json').read_text())
    there = json.loads(here.read_text())
    assert pictures['annotations'] == there['annotations'] and len(pictures['images']) == 18
    assert [image['file_name'] for image in pictures['images']] == [
        image['file_name'] for image in there['images']]


def test_partial_file_is_not_overwritten(capsys, tmp_path, teacher, clip):
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
    assert 'is incomplete; continue it with --resume' in capsys.readouterr().err
    assert json.loads(output.read_text()) == half
    assert label.main([*arguments, '--resume']) == 0
    assert json.loads(output.read_text()) == whole


@pytest.mark.slow
def test_ctrl_c_leaves_a_file_that_can_be_resumed(tmp_path, teacher):
    for number in range(400):
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.zeros((8, 8, 3), np.uint8))
    output = tmp_path / 'out/labels.json'
    # The teacher is slow and saves often, so that the test sees a partial file.
    program = (
        'import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler); '
        'from forecast_detector_ros.cli.label import main; '
        'from forecast_detector_ros.labelling import label_folders, teacher_ssd as kind; '
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
    assert err.splitlines()[-1] == 'label: interrupted; the same command with --resume continues'
    assert 'Traceback' not in err
    document = json.loads(output.read_text())
    assert 0 < document['info']['labelled'] == len(document['images']) < 400
    assert not document['info']['complete']


@pytest.mark.parametrize('folder, words', [
    ('missing', 'missing: no such file or folder'),
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
    ([], 'required: SOURCE, --teacher, --output'),
    (['x', '--teacher', 'y', '--output', 'z', '--min-score', '2'], 'must be a number from 0 to 1'),
    (['x', '--teacher', 'y', '--output', 'z', '--every', '0'], 'must be an integer of at least 1'),
    (['x', '--teacher', 'y', '--output', 'z', '--teacher-kind', 'w'], "'yolox', 'yolox-decoded'"),
    (['{clip}', '--teacher', 'y', '--output', 'z'], 'name a folder for its frames'),
    (['{clip}', '--frames', 'd', '--teacher', 'y', '--output', 'z', '--stills'],
     '--stills is for folders of pictures'),
    (['{empty}', '--frames', 'd', '--teacher', 'y', '--output', 'z'],
     '--frames is for videos and bags, and there is none in '),
    (['{folder}', '{clip}', '--teacher', 'y', '--output', 'z'], 'another call than folders'),
    (['{folder}', '{folder}', '--teacher', 'y', '--output', 'z'], 'is a second folder'),
    (['{folder}', '--teacher', 'y', '--output', 's3://z', '--resume'], 'on this machine'),
])
def test_bad_arguments_are_refused(capsys, clip, arguments, words):
    names = {'clip': clip, 'folder': clip.parent, 'empty': clip.parent / 'empty'}
    names['empty'].mkdir()
    with pytest.raises(SystemExit) as stop:
        label.main([item.format(**names) for item in arguments])
    assert stop.value.code == 2 and words in capsys.readouterr().err
