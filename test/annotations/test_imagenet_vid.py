# SPDX-License-Identifier: Apache-2.0
"""ImageNet VID and DET: videos, boxes and ignore regions, and mistakes."""

from forecast_detector_ros.annotations.findings import Collected, DataError, Kind
from forecast_detector_ros.annotations.imagenet_vid import load_det, load_vid, VID_CLASSES
from forecast_detector_ros.annotations.records import FrameReader
from forecast_detector_ros.clips.dataset import ClipDataset
import numpy as np
import pytest

CLASSES = ('cat', 'dog')
DOG, CAT, FOX, PERSON, CHAIR = ('n02084071', 'n02121808', 'n02118333', 'n00007846', 'n03001627')
ONE = 'train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000'
TWO = 'train/ILSVRC2015_VID_train_0001/ILSVRC2015_train_01000001'


def vid(tree, **settings):
    return load_vid(tree.annotations, tree.images, CLASSES, **settings)


def write_list(tree, *lines):
    path = tree.root / 'list.txt'
    path.write_text(''.join(f'{line}\n' for line in lines))
    return path


def test_there_are_30_classes_in_alphabetical_order():
    assert len(VID_CLASSES) == 30
    assert list(VID_CLASSES.values()) == sorted(VID_CLASSES.values())


def test_corners_are_inclusive_and_classes_decide_between_target_and_ignore(imagenet):
    imagenet.add(f'{ONE}/000000', (CAT, (3, 4, 5, 6), 7), (DOG, (0, 0, 39, 29), 2),
                 (FOX, (10, 10, 19, 19), 3))
    (video,) = vid(imagenet)
    (frame,) = video.frames
    np.testing.assert_array_equal(frame.boxes, [[3, 4, 6, 7], [0, 0, 40, 30]])
    np.testing.assert_array_equal(frame.labels, [0, 1])
    np.testing.assert_array_equal(frame.tracks, [7, 2])
    np.testing.assert_array_equal(frame.scores, [1, 1])
    np.testing.assert_array_equal(frame.ignore, [[10, 10, 20, 20]])
    assert (video.name, frame.width, frame.height) == (ONE, 40, 30)
    assert FrameReader().read(frame).shape == (30, 40, 3)


def test_without_a_list_all_snippets_of_the_split_are_found(imagenet):
    imagenet.snippet(TWO, 2)
    imagenet.snippet(ONE, 3)
    imagenet.snippet('val/ILSVRC2015_val_00000000', 4)
    assert [(video.name, len(video.frames)) for video in vid(imagenet)] == [(ONE, 3), (TWO, 2)]
    (video,) = vid(imagenet, split='val')
    assert [frame.path.name for frame in video.frames] == [
        f'00000{number}.JPEG' for number in range(4)]


def test_snippet_behind_a_link_is_read_where_that_is_allowed(imagenet, tmp_path):
    imagenet.snippet(ONE, 2)
    imagenet.snippet(TWO, 2)
    for root in (imagenet.annotations, imagenet.images):
        elsewhere = tmp_path / 'elsewhere' / root.name
        elsewhere.parent.mkdir(exist_ok=True)
        (root / TWO).rename(elsewhere)
        (root / TWO).symlink_to(elsewhere)
    assert [video.name for video in vid(imagenet, outside=True)] == [ONE, TWO]
    with pytest.raises(DataError, match='leads out of'):
        vid(imagenet)


def test_sparse_lists_give_whole_snippets_or_the_listed_frames(imagenet):
    imagenet.snippet(ONE, 6)
    imagenet.snippet(TWO, 3)
    path = write_list(imagenet, f'{ONE} 1 4 6', f'{ONE} 1 1 6')
    (whole,) = vid(imagenet, list_file=path)
    assert [int(frame.boxes[0, 0]) for frame in whole.frames] == [0, 1, 2, 3, 4, 5]
    (listed,) = vid(imagenet, list_file=path, frames='listed')
    assert [int(frame.boxes[0, 0]) for frame in listed.frames] == [1, 4]


def test_annotations_are_read_when_their_frame_is_asked_for(imagenet):
    imagenet.snippet(ONE, 3)
    imagenet.xml(f'{ONE}/000001').write_text('<annotation>')
    (video,) = vid(imagenet)
    assert len(video.frames[2].boxes) == 1
    with pytest.raises(DataError, match=r'000001\.xml: not valid XML'):
        video.frames[1]


def test_clips_are_drawn_from_snippets(imagenet):
    imagenet.snippet(ONE, 4)
    clip = ClipDataset(vid(imagenet), clip_length=2, input_size=(32, 32), length=1)[0]
    assert clip.images.shape == (3, 3, 32, 32)
    # The dog moves by a pixel per frame or more, scaled from 40 to 32 pixels.
    left = [float(boxes[0, 0]) for boxes in clip.boxes]
    assert left[1] - left[0] == pytest.approx(left[2] - left[1])
    assert left[1] - left[0] >= 0.8


def break_xml(tree):
    tree.xml(f'{ONE}/000000').write_bytes(b'<annotation>\xff')


def one_object(*values):
    def change(tree):
        tree.add(f'{ONE}/000000', values)
    return change


def replace(old, new):
    def change(tree):
        path = tree.xml(f'{ONE}/000000')
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    return change


MISTAKES = [
    (break_xml, '000000.xml: not valid XML: ', Kind.BROKEN),
    (lambda tree: tree.picture(f'{ONE}/000001').unlink(), 'no file ', Kind.MISSING_FRAME),
    (lambda tree: tree.xml(f'{ONE}/000001').unlink(), 'no file ', Kind.MISSING_FRAME),
    (one_object('n99999999', (1, 1, 5, 5), 0),
     "object[0]: name is 'n99999999'; it must be one of the 30 ids of VID",
     Kind.UNKNOWN_CATEGORY),
    (one_object(DOG, (1, 1, 'x', 5), 0), "bndbox/xmax is 'x'; it must be a number", Kind.BROKEN),
    (one_object(DOG, (1, 1, 5), 0), 'bndbox/ymax is missing', Kind.BROKEN),
    (one_object(DOG, (1, 1, 5, 5), -1), "trackid is '-1'", Kind.BROKEN),
    (one_object(DOG, (1, 1, 5, 5), 10**24), 'below 2**62', Kind.BROKEN),
    (replace('<width>40</width>', ''), 'size/width is missing', Kind.BROKEN),
    (replace('<width>40</width>', '<width>0</width>'), 'size is 0 x 30', Kind.BROKEN),
    (lambda tree: tree.add(f'{ONE}/000000', (DOG, (1, 1, 5, 5), 3), (CAT, (2, 2, 5, 5), 3)),
     'object[1]: trackid 3 is used twice', Kind.DUPLICATE),
]


@pytest.mark.parametrize('change, words, kind', MISTAKES)
def test_each_mistake_is_one_line_and_is_collected(imagenet, change, words, kind):
    imagenet.snippet(ONE, 2)
    imagenet.snippet(TWO, 2)
    change(imagenet)
    with pytest.raises(DataError) as caught:
        vid(imagenet)
    message = str(caught.value)
    assert words in message and str(imagenet.root) in message and '\n' not in message
    assert caught.value.kind is kind

    findings = Collected()
    for video in vid(imagenet, findings=findings):
        for index in range(len(video.frames)):
            try:
                video.frames[index]
            except DataError as error:
                findings.fault(error)
    assert findings.lines == {kind: [message]}


@pytest.mark.parametrize('box, kind', [
    ((9, 1, 8, 5), Kind.NO_AREA), ((50, 1, 60, 5), Kind.NO_AREA),
    ((30, 1, 60, 5), Kind.BEYOND), (('nan', 1, 5, 5), Kind.NOT_FINITE)])
def test_degenerate_boxes_are_noted(imagenet, box, kind):
    imagenet.add(f'{ONE}/000000', (DOG, box, 0))
    assert len(vid(imagenet)[0].frames[0].boxes) == (kind is Kind.BEYOND)
    findings = Collected()
    vid(imagenet, findings=findings)[0].frames[0]
    assert list(findings.counts) == [kind]
    assert f'{ONE}/000000.xml: object[0]: box' in findings.lines[kind][0]


def test_a_box_of_one_pixel_has_an_area(imagenet):
    imagenet.add(f'{ONE}/000000', (DOG, (5, 6, 5, 6), 0))
    np.testing.assert_array_equal(vid(imagenet)[0].frames[0].boxes, [[5, 6, 6, 7]])


def test_a_missing_snippet_is_named_with_its_line(imagenet):
    imagenet.snippet(ONE, 2)
    path = write_list(imagenet, f'{ONE} 1 0 2', f'{ONE} 1 1 2', f'{TWO} 1 0 2')
    with pytest.raises(DataError) as caught:
        vid(imagenet, list_file=path)
    assert str(caught.value) == f'{path}: line 3: no folder {imagenet.images / TWO}'
    findings = Collected()
    assert [video.name for video in vid(imagenet, list_file=path, findings=findings)] == [ONE]
    assert findings.lines == {Kind.MISSING_FILE: [str(caught.value)]}


def test_a_snippet_shorter_than_in_the_list(imagenet):
    imagenet.snippet(ONE, 2)
    path = write_list(imagenet, f'{ONE} 1 0 3', f'{ONE} 1 1 3')
    findings = Collected()
    (video,) = vid(imagenet, list_file=path, findings=findings)
    assert len(video.frames) == 2
    assert findings.lines == {Kind.MISSING_FRAME: [
        f'{path}: line 1: no file {imagenet.picture(f"{ONE}/000002")}',
        f'{path}: line 1: no file {imagenet.xml(f"{ONE}/000002")}']}


def test_a_time_stamp_as_frame_number_is_one_line(imagenet):
    imagenet.add(f'{ONE}/1700000000000000000')
    with pytest.raises(DataError, match=f'{ONE} has no frames'):
        vid(imagenet)


def test_a_frame_of_another_size_is_refused(imagenet):
    imagenet.snippet(ONE, 1)
    imagenet.add(f'{ONE}/000001', size=(20, 30))
    with pytest.raises(DataError, match=r'000001\.xml: size is 20x30, but other frames .* 40x30'):
        vid(imagenet)[0].frames[1]


@pytest.mark.parametrize('classes, words', [
    (('person',), 'none of the classes (person) is here'), (('sofa',), 'none of the classes')])
def test_classes_that_vid_does_not_have(imagenet, classes, words):
    imagenet.snippet(ONE, 1)
    with pytest.raises(DataError) as caught:
        load_vid(imagenet.annotations, imagenet.images, classes)
    assert words in str(caught.value)


def test_a_class_that_vid_does_not_have_beside_others_is_noted(imagenet):
    imagenet.snippet(ONE, 1)
    findings = Collected()
    load_vid(imagenet.annotations, imagenet.images, ('dog', 'person'), findings=findings)
    assert findings.lines == {Kind.UNLABELLED_CLASS: [
        f'{imagenet.annotations}: no person; where one is in a picture, it is taught '
        'as background']}


@pytest.mark.parametrize('load', [load_vid, load_det])
def test_missing_folders(imagenet, load):
    with pytest.raises(DataError, match='Annotations: no such folder of annotations'):
        load(imagenet.annotations, imagenet.images, CLASSES)
    imagenet.add('train/x')
    with pytest.raises(DataError, match='val: no such folder of annotations'):
        load(imagenet.annotations, imagenet.images, CLASSES, split='val')


def det(tree, classes=('dog', 'person'), **settings):
    return load_det(tree.annotations, tree.images, classes, **settings)


def test_det_has_person_and_other_things_are_ignored(imagenet):
    imagenet.add('train/ILSVRC2014_train_0000/a', (PERSON, (1, 2, 3, 4)), (CHAIR, (5, 5, 9, 9)))
    imagenet.add('train/ILSVRC2013_train/n02084071/b', (DOG, (1, 2, 3, 4)))
    imagenet.add('val/c', (DOG, (1, 2, 3, 4)))
    still, other = det(imagenet)
    assert still.name == 'train/ILSVRC2013_train/n02084071/b'
    assert other.frames[0].labels.tolist() == [1]
    np.testing.assert_array_equal(other.frames[0].ignore, [[5, 5, 10, 10]])


def test_det_list_names_pictures(imagenet):
    imagenet.add('train/x/a', (DOG, (1, 2, 3, 4)))
    imagenet.add('train/x/b', ('chair', (1, 2, 3, 4)))
    (still,) = det(imagenet, list_file=write_list(imagenet, 'train/x/a 1', 'train/x/a 1'))
    assert still.name == 'train/x/a'
    (wrong,) = det(imagenet, list_file=write_list(imagenet, 'train/x/b 1'))
    with pytest.raises(DataError, match="name is 'chair'; it must be a WordNet id"):
        wrong.frames[0]
    path = write_list(imagenet, 'train/x/a 1', 'train/x/c 1')
    with pytest.raises(DataError, match=r'list\.txt: line 2: no file .*train/x/c\.JPEG'):
        det(imagenet, list_file=path)


def test_names_outside_the_folders_are_refused_unless_allowed(imagenet, tmp_path):
    inner = type(imagenet)(imagenet.root / 'inner')
    inner.root.mkdir()
    inner.snippet(ONE, 2)
    for folder in ('Annotations', 'Data'):
        (imagenet.root / folder).mkdir()
    imagenet.snippet('secret', 2)
    for folder in (inner.annotations, inner.images):
        (folder / 'train' / 'link').symlink_to(imagenet.root / folder.name / 'secret')
    for name, allowed in (('../../Data/secret', False), (f'{imagenet.images}/secret', False),
                          ('train/link', True)):
        listed = write_list(inner, f'{name} 1 0 2')
        with pytest.raises(DataError, match=r'\.txt: line 1: snippet .* leads out of ') as told:
            vid(inner, list_file=listed)
        assert told.value.kind is Kind.OUTSIDE and '--outside' in str(told.value)
        with pytest.raises(DataError, match=r'picture .* leads out of '):
            load_det(inner.annotations, inner.images, CLASSES,
                     write_list(inner, f'{name}/000000 1'))
        if allowed:
            (video,) = vid(inner, list_file=listed, outside=True)
            assert len(video.frames[0].boxes) == 1
            (still,) = load_det(inner.annotations, inner.images, CLASSES,
                                write_list(inner, f'{name}/000000 1'), outside=True)
            assert len(still.frames[0].boxes) == 1


def test_split_and_links_outside_the_folders_are_refused_unless_allowed(imagenet):
    imagenet.snippet(ONE, 2)
    for split in ('..', '/etc'):
        with pytest.raises(DataError, match=f'split .{split}. leads out of '):
            vid(imagenet, split=split)
    picture = imagenet.picture(f'{ONE}/000001')
    picture.rename(imagenet.root / 'elsewhere.jpg')
    picture.symlink_to(imagenet.root / 'elsewhere.jpg')
    (video,) = vid(imagenet)
    assert len(video.frames[0].boxes) == 1
    with pytest.raises(DataError, match=r'file .*000001\.JPEG. leads out of '):
        video.frames[1]
    (video,) = vid(imagenet, outside=True)
    assert video.frames[1].path == picture
