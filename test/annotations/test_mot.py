# SPDX-License-Identifier: Apache-2.0
"""Ground truth of MOTChallenge."""

from forecast_detector_ros.annotations.findings import Collected, DataError, Kind
from forecast_detector_ros.annotations.mot import load_mot, MOT_CLASSES
from forecast_detector_ros.annotations.records import FrameReader, UNKNOWN_TRACK
import numpy as np
import pytest

CLASSES = ('car', 'person')


def load(folder, classes=CLASSES, **settings):
    return load_mot(folder.parent, folder.parent, classes, **settings)


def line(category=1, frame=1, track=1, box=(1, 1, 10, 10), consider=1, visibility=1.0):
    return ','.join(str(value) for value in (frame, track, *box, consider, category, visibility))


def test_pixels_and_frames_count_from_1(mot):
    folder = mot('MOT17-02', [line(frame=3, track=9, box=(1, 11, 5, 6)),
                              line(frame=1, track=9, box=(0, 30.5, 5, 6))])
    (video,) = load(folder)
    assert (video.name, len(video.frames)) == ('MOT17-02', 3)
    np.testing.assert_array_equal(video.frames[2].boxes, [[0, 10, 5, 16]])
    np.testing.assert_array_equal(video.frames[2].tracks, [9])
    # MOTChallenge's boxes of persons at the border extend outside, and are cut.
    np.testing.assert_array_equal(video.frames[0].boxes, [[0, 29.5, 4, 30]])
    assert len(video.frames[1].boxes) == 0
    assert video.frames[2].path == folder / 'img1/000003.jpg'
    assert FrameReader().read(video.frames[2]).shape == (30, 40, 3)


@pytest.mark.parametrize('category', MOT_CLASSES)
def test_which_classes_are_targets(mot, category):
    # Only pedestrians are considered by the benchmark.
    folder = mot('a', [line(category, consider=int(category == 1))])
    frame = load(folder)[0].frames[0]
    expected = {1: [1], 3: [0]}.get(category, [])
    assert frame.labels.tolist() == expected
    assert len(frame.ignore) == 1 - len(expected)
    everything = ('bicycle', 'car', 'motorcycle', 'person')
    labels = load(folder, everything)[0].frames[0].labels.tolist()
    assert [everything[label] for label in labels] == {
        1: ['person'], 3: ['car'], 4: ['bicycle'], 5: ['motorcycle']}.get(category, [])


@pytest.mark.parametrize('consider, visibility, targets', [
    (1, 0.5, 1), (1, 0.49, 0), (0, 1.0, 0)])
def test_hidden_and_unconsidered_pedestrians_are_ignored(mot, consider, visibility, targets):
    folder = mot('a', [line(consider=consider, visibility=visibility)])
    frame = load(folder, min_visibility=0.5)[0].frames[0]
    assert (len(frame.boxes), len(frame.ignore)) == (targets, 1 - targets)


def test_track_beyond_64_bits_is_one_line(mot):
    with pytest.raises(DataError, match='below 2'):
        load(mot('a', [line(track=10**20)]))


def test_a_frame_may_have_several_objects_of_unknown_track(mot):
    folder = mot('a', [line(track=-1), line(track=-1, box=(20, 1, 10, 10))])
    frame = load(folder)[0].frames[0]
    assert len(frame.boxes) == 2 and frame.tracks.tolist() == [UNKNOWN_TRACK] * 2


def test_lists_name_sequences(mot):
    folder = mot('b', [line()])
    mot('a', [line()])
    assert [video.name for video in load(folder)] == ['a', 'b']
    path = folder.parent / 'list.txt'
    path.write_text('name\nb\n')
    assert [video.name for video in load(folder, list_file=path)] == ['b']
    path.write_text('b\nc\n')
    with pytest.raises(DataError, match=r'list\.txt: line 2: .*c/seqinfo\.ini cannot be read'):
        load(folder, list_file=path)


@pytest.mark.parametrize('wrong, words, kind', [
    ('1,1,1,1,5,5,1,1', 'has 8 values; it must have 9', Kind.BROKEN),
    ('1,1,1,1,5,5,1,-1,-1,-1', 'has 10 values', Kind.BROKEN),
    ('1,x,1,1,5,5,1,1,1', "is '1,x,1,1,5,5,1,1,1'; frame, id,", Kind.BROKEN),
    (line(frame=4), 'frame is 4; seqinfo.ini says 1 to 3', Kind.BROKEN),
    (line(frame=0), 'frame is 0', Kind.BROKEN),
    (line(category=14), 'class is 14; it must be from 1 to 13', Kind.UNKNOWN_CATEGORY),
    (line(visibility=1.5), 'visibility is 1.5', Kind.BROKEN),
    (line(visibility='nan'), 'visibility is nan', Kind.BROKEN),
    (line(frame=2), 'id 1 is twice in frame 2', Kind.DUPLICATE),
])
def test_each_wrong_line_is_named_and_collected(mot, wrong, words, kind):
    folder = mot('a', [line(frame=2), wrong, line(frame=3)])
    with pytest.raises(DataError) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith(f'{folder}/gt/gt.txt: line 2: {words}') and '\n' not in message
    findings = Collected()
    (video,) = load(folder, findings=findings)
    assert findings.lines[kind] == [message]
    assert [len(frame.boxes) for frame in video.frames] == [0, 1, 1]


@pytest.mark.parametrize('box, kind', [
    ((1, 1, 0, 5), Kind.NO_AREA), ((50, 1, 5, 5), Kind.NO_AREA), ((-5, 1, 9, 9), Kind.BEYOND),
    (('nan', 1, 5, 5), Kind.NOT_FINITE)])
def test_degenerate_boxes_are_noted(mot, box, kind):
    folder = mot('a', [line(box=box)])
    assert len(load(folder)[0].frames[0].boxes) == (kind is Kind.BEYOND)
    findings = Collected()
    load(folder, ('car', 'person'), findings=findings)
    assert findings.counts == {kind: 1}
    assert findings.lines[kind][0].startswith(f'{folder}/gt/gt.txt: line 1: box')


def change_info(old, new):
    def change(folder):
        path = folder / 'seqinfo.ini'
        path.write_text(path.read_text().replace(old, new))
    return change


@pytest.mark.parametrize('change, words', [
    (lambda folder: (folder / 'img1/000002.jpg').unlink(), 'a: no file '),
    (lambda folder: (folder / 'gt/gt.txt').unlink(), 'the test sequences have none'),
    (lambda folder: (folder / 'gt/gt.txt').write_text(''), 'gt.txt: empty'),
    (lambda folder: (folder / 'img1').rename(folder / 'img2'), 'a: no folder '),
    (change_info('[Sequence]', ''), 'seqinfo.ini: not an INI file'),
    (change_info('[Sequence]', '[Video]'), 'seqinfo.ini: no section [Sequence]'),
    (change_info('seqLength=3', 'seqLength=many'), "seqLength is 'many'"),
    (change_info('imWidth=40', ''), "imWidth is ''"),
])
def test_what_is_missing_is_named(mot, change, words):
    folder = mot('a', [line()])
    mot('b', [line()])
    change(folder)
    with pytest.raises(DataError) as caught:
        load(folder)
    assert words in str(caught.value) and '\n' not in str(caught.value)
    findings = Collected()
    assert load(folder, findings=findings)[-1].name == 'b'
    assert [text for lines in findings.lines.values() for text in lines] == [str(caught.value)]


def test_nothing_to_train(mot, tmp_path):
    with pytest.raises(DataError, match=r'none of the classes \(dog\) is here; it has person'):
        load(mot('a', [line()]), ('dog',))
    with pytest.raises(DataError, match='no such folder of sequences'):
        load_mot(tmp_path / 'absent', tmp_path, CLASSES)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='no usable sequence'):
        load_mot(tmp_path / 'empty', tmp_path, CLASSES)


@pytest.mark.parametrize('name', ['../other', '{root}/other', 'link'])
def test_sequences_outside_the_folder_are_refused_unless_allowed(mot, tmp_path, name):
    folder = mot('a', [line()])
    folder.rename(tmp_path / 'other')
    (folder.parent / 'link').symlink_to(tmp_path / 'other')
    path = folder.parent / 'list.txt'
    path.write_text(name.format(root=tmp_path) + '\n')
    with pytest.raises(DataError, match=r'list\.txt: line 1: sequence .* leads out of ') as told:
        load(folder, list_file=path)
    assert told.value.kind is Kind.OUTSIDE and '--outside' in str(told.value)
    (video,) = load(folder, list_file=path, outside=True)
    assert FrameReader().read(video.frames[0]).shape == (30, 40, 3)


@pytest.mark.parametrize('value', ['../../elsewhere', '{root}/elsewhere'])
def test_pictures_outside_the_folder_are_refused_unless_allowed(mot, tmp_path, value):
    folder = mot('a', [line()])
    (folder / 'img1').rename(tmp_path / 'elsewhere')
    about = folder / 'seqinfo.ini'
    about.write_text(about.read_text().replace('img1', value.format(root=tmp_path)))
    with pytest.raises(DataError, match=r'seqinfo\.ini: imDir .* leads out of '):
        load(folder)
    (video,) = load(folder, outside=True)
    assert FrameReader().read(video.frames[0]).shape == (30, 40, 3)


def test_a_picture_linked_from_outside_is_left_out_unless_allowed(mot, tmp_path):
    folder = mot('a', [line()])
    (folder / 'img1/000002.jpg').rename(tmp_path / 'picture.jpg')
    (folder / 'img1/000002.jpg').symlink_to(tmp_path / 'picture.jpg')
    findings = Collected()
    (video,) = load(folder, findings=findings)
    assert [frame.path.stem for frame in video.frames] == ['000001', '000003']
    assert findings.counts == {Kind.OUTSIDE: 1}
    (video,) = load(folder, outside=True)
    assert len(video.frames) == 3
