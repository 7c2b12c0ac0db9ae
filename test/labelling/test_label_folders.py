# SPDX-License-Identifier: Apache-2.0
"""From folders of pictures to a COCO-video document."""

import json
from types import SimpleNamespace

import cv2
from forecast_detector_ros.annotations.video_json import load_video_json
from forecast_detector_ros.jobs.engine import Interrupt
from forecast_detector_ros.labelling import label_jobs
from forecast_detector_ros.labelling.label_folders import (
    check_teacher_classes,
    is_partial,
    label_into,
    Labelling,
    picture_folders,
    track_boxes,
)
from forecast_detector_ros.labelling.teacher import TEACHER_CLASSES, TeacherBoxes, TeacherError
from hypothesis import given, settings, strategies
import numpy as np
import pytest


def write(path, size=(20, 30), value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


def see(image):
    """Find a dog, a truck and a chair in every picture that is not black."""
    if not image.any():
        return TeacherBoxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64),
                            np.zeros(0, np.float32))
    names = ('dog', 'truck', 'chair')
    return TeacherBoxes(
        np.array([[1, 2, 11.256, 8], [0, 0, 5, 5], [3, 3, 9, 9]], np.float32),
        np.array([TEACHER_CLASSES.index(name) for name in names]),
        np.array([0.9, 0.8, 0.7], np.float32))


def labelling(root, classes=('cat', 'dog'), ignore=('truck',), videos=True, description=''):
    return Labelling(root, picture_folders(root), classes, ignore, videos, description)


def label(root, detect=see, **options):
    work = labelling(root, **options)
    assert len(list(work.run(detect))) == work.total
    return work.document()


def test_document_by_hand(tmp_path):
    write(tmp_path / 'walk/1.png', value=200)
    write(tmp_path / 'walk/2.png', value=0)
    document = label(tmp_path, description='by hand')
    assert document['info'] == {'description': 'by hand', 'pictures': 2, 'labelled': 2,
                                'complete': True}
    assert document['videos'] == [{'name': 'walk', 'fps': None, 'frames': 2}]
    assert document['images'] == [
        {'id': 1, 'file_name': 'walk/1.png', 'width': 30, 'height': 20, 'video': 'walk',
         'frame_index': 0},
        {'id': 2, 'file_name': 'walk/2.png', 'width': 30, 'height': 20, 'video': 'walk',
         'frame_index': 1}]
    assert document['categories'] == [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}]
    assert document['annotations'] == [
        {'id': 1, 'image_id': 1, 'bbox': [1.0, 2.0, 10.26, 6.0], 'score': 0.9, 'category_id': 2,
         'area': 61.5, 'iscrowd': 0, 'track_id': 1}]
    assert document['ignore_annotations'] == [
        {'image_id': 1, 'bbox': [0.0, 0.0, 5.0, 5.0], 'score': 0.8, 'coco_class': 'truck'}]


def test_the_loader_reads_the_document(tmp_path):
    write(tmp_path / 'walk/1.png', value=200)
    write(tmp_path / 'walk/2.png', value=0)
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps(label(tmp_path)))
    (video,) = load_video_json(path, tmp_path, ['dog'])
    assert video.name == 'walk' and len(video.frames) == 2
    assert video.frames[0].scores == pytest.approx([0.9])
    assert video.frames[0].ignore.tolist() == [[0, 0, 5, 5]]
    assert len(video.frames[1].boxes) == 0


def test_stills_belong_to_no_video_and_may_differ_in_size(tmp_path):
    write(tmp_path / 'dogs/1.png', (20, 30))
    write(tmp_path / 'dogs/2.png', (30, 20))
    with pytest.raises(TeacherError, match=r'2\.png: is 20x30 pixels.*--stills'):
        label(tmp_path)
    document = label(tmp_path, videos=False)
    assert document['videos'] == []
    assert all('video' not in image for image in document['images'])
    assert all('track_id' not in item for item in document['annotations'])


def test_unknown_class_and_broken_picture(tmp_path):
    write(tmp_path / 'walk/1.png')
    with pytest.raises(TeacherError, match="class 'whale' is unknown to the teacher"):
        label(tmp_path, classes=['whale'])
    (tmp_path / 'walk/1.png').write_bytes(b'')
    with pytest.raises(TeacherError, match=r'1\.png: not a picture'):
        label(tmp_path)


def test_box_without_area_is_left_out(tmp_path):
    write(tmp_path / 'walk/1.png', value=200)
    flat = TeacherBoxes(np.array([[5, 5, 5, 9]], np.float32),
                        np.array([TEACHER_CLASSES.index('dog')]), np.array([0.9], np.float32))
    assert label(tmp_path, lambda image: flat)['annotations'] == []


def videos(root, pictures=4):
    for name in ('a', 'b'):
        for index in range(pictures):
            write(root / name / f'{index}.png', value=10 + index)


def test_tracks_are_numbered_through_all_videos(tmp_path):
    videos(tmp_path)
    document = label(tmp_path, classes=('dog', 'truck'), ignore=())
    names = {image['id']: image['video'] for image in document['images']}
    tracks = {(names[item['image_id']], item['category_id']): item['track_id']
              for item in document['annotations']}
    assert len(document['annotations']) == 16
    # The dog and truck of each video are four objects, and each keeps its number.
    assert sorted(tracks.values()) == [1, 2, 3, 4]


def stop_after(number, error):
    """Return a teacher that fails at the picture after `number`."""
    calls = []

    def detect(image):
        calls.append(1)
        if len(calls) > number:
            raise error
        return see(image)
    return detect


@pytest.mark.parametrize('error', [KeyboardInterrupt(), TeacherError('broken')])
def test_interrupted_labelling_is_kept_and_resumed(tmp_path, error):
    videos(tmp_path / 'root')
    output = tmp_path / 'out/labels.json'
    with pytest.raises(type(error)):
        label_into(output, labelling(tmp_path / 'root'), stop_after(5, error))
    partial = json.loads(output.read_text())
    assert partial['info'] == {'description': '', 'pictures': 8, 'labelled': 5, 'complete': False}
    assert [image['file_name'] for image in partial['images']] == [
        'a/0.png', 'a/1.png', 'a/2.png', 'a/3.png', 'b/0.png']
    assert is_partial(output)
    assert [len(video.frames) for video in load_video_json(output, tmp_path / 'root', ['dog'])
            ] == [4, 1]
    seen = []
    work = labelling(tmp_path / 'root')
    work.resume(output)
    label_into(output, work, lambda image: seen.append(image) or see(image))
    assert len(seen) == 3 and not is_partial(output)
    assert json.loads(output.read_text()) == label(tmp_path / 'root')
    assert [path.name for path in output.parent.iterdir()] == ['labels.json']


def test_nothing_is_written_before_the_first_picture(tmp_path):
    videos(tmp_path / 'root')
    with pytest.raises(TeacherError):
        label_into(tmp_path / 'labels.json', labelling(tmp_path / 'root'),
                   stop_after(0, TeacherError('broken')))
    assert not (tmp_path / 'labels.json').exists()


def test_labels_are_saved_at_intervals(tmp_path, monkeypatch):
    videos(tmp_path / 'root')
    monkeypatch.setattr('forecast_detector_ros.labelling.label_folders.SAVE_EVERY_S', 0.0)
    counts = []
    output = tmp_path / 'labels.json'
    label_into(output, labelling(tmp_path / 'root'), see,
               lambda: counts.append(output.exists()
                                     and json.loads(output.read_text())['info']['labelled']))
    assert counts == [False, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize('change, words', [
    ({'description': 'another teacher'}, 'other settings'),
    ({'classes': ('dog', 'cat')}, 'other classes'),
    ({'videos': False}, 'videos or stills')])
def test_resume_with_other_settings_is_refused(tmp_path, change, words):
    videos(tmp_path / 'root')
    output = tmp_path / 'labels.json'
    label_into(output, labelling(tmp_path / 'root'), see)
    with pytest.raises(TeacherError, match=words):
        labelling(tmp_path / 'root', **change).resume(output)


@pytest.mark.parametrize('change', ['removed', 'inserted'])
def test_resume_with_other_pictures_is_refused(tmp_path, change):
    videos(tmp_path / 'root')
    output = tmp_path / 'labels.json'
    label_into(output, labelling(tmp_path / 'root'), see)
    if change == 'removed':
        (tmp_path / 'root/a/3.png').unlink()
    else:
        write(tmp_path / 'root/a/1b.png')
    with pytest.raises(TeacherError, match=r'a/[23]\.png is not, or no longer in this place'):
        labelling(tmp_path / 'root').resume(output)


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"info": {"description": ""}}'])
def test_resume_from_another_file_is_refused(tmp_path, text):
    videos(tmp_path / 'root')
    (tmp_path / 'labels.json').write_text(text)
    with pytest.raises(TeacherError, match=r'labels\.json: .*is no file that') as caught:
        labelling(tmp_path / 'root').resume(tmp_path / 'labels.json')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('change', [
    lambda document: document['images'][7].pop('width'),
    lambda document: document['images'][7].update(file_name={}),
    lambda document: document['annotations'][7].pop('category_id'),
    lambda document: document['annotations'][7].update(category_id=[1]),
    lambda document: document['annotations'][7].update(category_id=1e400),
    lambda document: document['annotations'][7].pop('bbox'),
    lambda document: document['annotations'][7].update(bbox=3),
    lambda document: document['annotations'][7].update(bbox=[1] * 8)])
def test_resume_from_a_damaged_file_is_refused(tmp_path, change):
    videos(tmp_path / 'root')
    document = label(tmp_path / 'root')
    change(document)
    (tmp_path / 'labels.json').write_text(json.dumps(document))
    with pytest.raises(TeacherError, match=r'labels\.json: is no file that') as caught:
        labelling(tmp_path / 'root').resume(tmp_path / 'labels.json')
    assert '\n' not in str(caught.value)


def test_other_pictures_in_the_folder_of_frames_are_left_out(tmp_path, monkeypatch):
    write(tmp_path / 'walk/1.png', value=200)
    write(tmp_path / 'walk/masks/1.png', value=200)
    (tmp_path / 'walk.mp4').touch()
    monkeypatch.setattr(label_jobs, 'extract_frames', lambda *_: SimpleNamespace(losses=()))
    settings = label_jobs.LabelSettings(tmp_path, 'auto', 0.2, 0.45, 1, ('dog',), (), True,
                                        tmp_path)
    done = label_jobs._label(settings, SimpleNamespace(detect=see), label_jobs.LabelJob(
        'walk', tmp_path / 'walk.mp4'), lambda *_: None, Interrupt())
    assert done.paths == (tmp_path / 'walk/1.png',) and len(done.labelled) == 1


DOG, CAT = 1, 2


def frame(*objects):
    """Make boxes 10 pixels wide and high from (x, y, label)."""
    boxes = np.array([[x, y, x + 10, y + 10] for x, y, _ in objects], float).reshape(-1, 4)
    return boxes, np.array([label for *_, label in objects], np.int64)


def numbers(frames, **options):
    return [ids.tolist() for ids in track_boxes(frames, **options)]


def test_objects_keep_their_numbers_in_any_order():
    assert numbers([frame((0, 0, DOG), (50, 0, DOG)), frame((52, 0, DOG), (2, 0, DOG)),
                    frame((4, 0, DOG), (54, 0, DOG))]) == [[1, 2], [2, 1], [1, 2]]


def test_classes_are_not_mixed():
    assert numbers([frame((0, 0, DOG)), frame((0, 0, CAT)), frame((0, 0, DOG))]) == [
        [1], [2], [1]]


def test_best_overlap_is_matched_first():
    # Both boxes overlap with the track, the second one more.
    assert numbers([frame((0, 0, DOG)), frame((4, 0, DOG), (1, 0, DOG))]) == [[1], [2, 1]]


def test_too_little_overlap_begins_a_new_track():
    # The IoU is 3/17, which is above the lower limit.
    scene = [frame((0, 0, DOG)), frame((7, 0, DOG))]
    assert numbers(scene) == [[1], [2]]
    assert numbers(scene, min_iou=0.17) == [[1], [1]]


def test_an_object_may_be_missed_for_some_frames():
    def gap(missed):
        return [frame((0, 0, DOG)), *[frame()] * missed, frame((0, 0, DOG))]

    assert numbers(gap(2), patience=2) == [[1], [], [], [1]]
    assert numbers(gap(3), patience=2) == [[1], [], [], [], [2]]


def test_numbers_begin_at_the_first_given():
    assert numbers([frame(), frame((0, 0, DOG))], first=7) == [[], [7]]
    assert numbers([]) == []


@settings(max_examples=50)
@given(strategies.lists(strategies.lists(
    strategies.tuples(strategies.integers(0, 30), strategies.integers(0, 30),
                      strategies.sampled_from([DOG, CAT])), max_size=5), max_size=8))
def test_numbers_are_unique_in_a_frame_and_have_one_class(objects):
    frames = [frame(*items) for items in objects]
    result = track_boxes(frames)
    classes = {}
    for (_, labels), ids in zip(frames, result):
        assert len(ids) == len(labels) == len(set(ids.tolist()))
        for label, number in zip(labels, ids):
            assert classes.setdefault(int(number), int(label)) == label
    assert sorted(classes) == list(range(1, len(classes) + 1))


@pytest.mark.parametrize(('name', 'words'), [
    ('cow', 'the nearest it has: cattle'), ('Dining Table', 'the nearest it has: dining_table'),
    ('bicicle', 'the nearest it has: bicycle'),
    ('qqq', "its classes are COCO's, with _ for blanks")])
def test_refusal_of_a_class_names_the_nearest(name, words):
    check_teacher_classes(TEACHER_CLASSES)
    with pytest.raises(TeacherError) as raised:
        check_teacher_classes(['dog', name])
    assert str(raised.value).startswith(f'class {name!r} is unknown to the teacher; {words}')
