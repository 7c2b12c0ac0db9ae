# SPDX-License-Identifier: Apache-2.0
"""The check of training data: what it finds, names and counts."""

from dataclasses import replace
import shutil

import cv2
from forecast_detector_ros.annotations.check import (
    check_sources,
    CheckConfig,
    class_table,
    finding_lines,
    picture_size,
    source_table,
    summary_line,
)
from forecast_detector_ros.annotations.findings import DataError, Kind
from forecast_detector_ros.annotations.sources import SourceConfig
from forecast_detector_ros.annotations.video_json import load_video_json
from PIL import Image
import pytest

JSON = SourceConfig('annotations.json', '.')
VID = SourceConfig('Annotations', 'Data', 'imagenet_vid')
DOG, CAT = 'n02084071', 'n02121808'
CONFIG = CheckConfig(anchor_scale=0.01)


def check(root, sources=(JSON,), classes=('cat',), config=CONFIG, **settings):
    return check_sources(sources, root, classes, config, **settings)


def test_clean_data(document, write):
    document['annotations'].append(document['annotations'][0] | {'image_id': 12})
    result = check(write(document).parent)
    assert (finding_lines(result), result.exit_code) == ([], 0)
    assert class_table(result) == [
        'class  videos  frames  boxes  cut-outs  median side',
        '-----  ------  ------  -----  --------  -----------',
        'cat         2       2      2         0       40.8 %']
    assert source_table(result)[0].split() == [
        'source', 'format', 'videos', 'frames', 'read', 'pictures', 'boxes', 'ignored', 'empty',
        'seconds']
    assert source_table(result)[2].split()[:-1] == [
        'annotations.json', 'coco_video', '2', '3', '3', '3', '2', '0', '1']
    assert summary_line(result) == '0 problems, 0 remarks'


def test_everything_is_collected_and_named(document, write):
    path = write(document)
    root = path.parent
    images, boxes = document['images'], document['annotations']
    images.append({'id': 20, 'file_name': 'gone.png', 'width': 40, 'height': 30})
    images.append({'id': 21, 'file_name': 'still.png', 'width': 40})
    images[2]['width'] = 41
    entry = boxes[0]
    boxes += [entry | {'category_id': 77}, entry | {'bbox': [1, 2, 0, 5]},
              entry | {'bbox': [1, 2, float('nan'), 5]}, entry | {'bbox': [30, 2, 20, 5]},
              entry, entry | {'image_id': 21}, entry | {'image_id': 99},
              entry | {'image_id': 20}, entry | {'category_id': 5}]
    write(document)
    result = check(root)
    assert finding_lines(result) == [
        f'problem: broken entry: {path}: images[4]: height is missing; it must be of type int',
        f'problem: broken entry: {path}: annotations[7]: image_id 99 is not in images',
        f'problem: missing file: {path}: images[3]: no file {root}/gone.png',
        f'problem: wrong size: {root}/still.png: is 40x30 pixels, but its annotation says 41x30',
        f'problem: unknown category: {path}: annotations[1]: category_id 77 is not in categories',
        f'problem: duplicate: {path}: annotations[5]: class and box are those of another object '
        'in the picture',
        f'problem: box not finite: {path}: annotations[3]: box with numbers that are not finite',
        f'problem: box without area: {path}: annotations[2]: box without area, 0 x 5',
        f'remark: box beyond the picture: {path}: annotations[4]: box from (30, 2) to (50, 7) '
        'reaches beyond the 40x30 picture and is cut',
        f'remark: category not trained: {path}: categories: dog is no class to train; its 1 boxes '
        'are ignored']
    assert result.exit_code == 1
    # Training stops at the first mistake, with the same message.
    with pytest.raises(DataError, match=r'images\[3\]: no file .*gone\.png'):
        load_video_json(path, root, ('cat',))


def test_lines_are_capped_and_counted(document, write):
    document['annotations'] += [document['annotations'][0] | {'bbox': [1, 2, 0, 5]}] * 4
    root = write(document).parent
    start = 'problem: box without area: '
    lines = finding_lines(check(root, most=2))
    assert [line.startswith(start) for line in lines] == [True] * 3
    assert lines[-1] == f'{start}2 more'
    assert finding_lines(check(root, most=0)) == [f'{start}4 found']


def test_missing_frames_of_a_sequence(document, write):
    first, last = document['images'][0], document['images'][1]
    for number in range(3):
        document['images'].append(last | {'id': 30 + number, 'frame_index': 3 + number})
    path = write(document)
    result = check(path.parent)
    assert first['frame_index'] == 7
    assert finding_lines(result)[0] == (
        f'problem: missing frame: {path}: images: video v jumps from frame_index 5 to 7; else it '
        'goes in steps of 1')
    assert result.findings.counts[Kind.DUPLICATE] == 3


def test_pictures_are_opened(document, write):
    root = write(document).parent
    (root / 'v/1.png').write_bytes(b'no picture')
    (root / 'v/2.png').write_bytes((root / 'v/2.png').read_bytes()[:60])
    header = check(root)
    assert finding_lines(header) == [
        f'problem: broken picture: {root}/v/1.png: not a picture (or its header is broken)']
    whole = check(root, config=replace(CONFIG, decode=True))
    assert finding_lines(whole) == [
        f'problem: broken picture: {root}/v/{name}.png: not a picture that OpenCV can decode'
        for name in (2, 1)]
    assert header.exit_code == whole.exit_code == 1
    assert check(root, config=replace(CONFIG, sample=0)).exit_code == 0


@pytest.mark.parametrize('orientation', range(1, 9))
def test_the_size_is_that_of_the_decoded_picture(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new('RGB', (40, 30)).save(tmp_path / 'a.jpg', exif=exif)
    height, width = cv2.imread(str(tmp_path / 'a.jpg')).shape[:2]
    assert picture_size(tmp_path / 'a.jpg') == (width, height)


def test_small_boxes(document, write):
    document['annotations'][0]['bbox'] = [4, 5, 2, 3]
    root = write(document).parent
    # The box has 6 of 1200 pixels, which is half of an anchor of scale 0.1.
    assert check(root, config=CheckConfig(anchor_scale=0.1)).findings.counts == {}
    result = check(root, config=CheckConfig(anchor_scale=0.11))
    assert finding_lines(result) == [
        f'remark: small box: {root}/v/1.png: cat of 2 x 3 pixels at (4, 5): IoU below 0.5 with '
        'every anchor']
    assert result.exit_code == 0


def test_classes_without_boxes_and_imbalance(document, write):
    document['categories'] += [{'id': 1, 'name': 'fox'}, {'id': 2, 'name': 'owl'}]
    entry = document['annotations'][0]
    document['annotations'] = [entry | {'bbox': [1, 1, 20 + i / 100, 10]} for i in range(100)]
    document['annotations'].append(entry | {'category_id': 5})
    root = write(document).parent
    result = check(root, classes=('cat', 'dog', 'fox', 'owl'), cutouts=lambda findings: [3])
    assert finding_lines(result) == [
        'remark: class without boxes: fox: no box in any source',
        'remark: class without boxes but cut-outs: owl: no box in any source, only 1 cut-outs',
        'remark: imbalance: dog: 1 boxes, 100 times fewer than cat (100); see balance in the '
        'recipe']
    assert class_table(result)[-1].split() == ['owl', '0', '0', '0', '1', '-']


def test_no_box_at_all_is_a_problem(document, write):
    document['annotations'] = []
    result = check(write(document).parent)
    assert 'problem: no boxes: no source has a box of any class' in finding_lines(result)
    assert result.exit_code == 1


def test_a_source_that_cannot_be_read_does_not_hide_the_others(document, write):
    root = write(document).parent
    (root / 'broken.json').write_text('{')
    result = check(root, [replace(JSON, annotations='broken.json'), JSON])
    assert finding_lines(result)[0].startswith(
        f'unreadable: source: {root}/broken.json: not valid JSON: line 1')
    assert result.exit_code == 2
    assert result.classes['cat'].boxes == 1
    assert summary_line(result) == '1 unreadable, 0 problems, 0 remarks'


def test_videos_without_boxes(document, write):
    document['annotations'][0]['image_id'] = 12
    result = check(write(document).parent)
    assert finding_lines(result) == [
        'remark: video without boxes: annotations.json: video v has no box in any frame that was '
        'read']


def test_imagenet_trees(imagenet):
    imagenet.snippet('train/a', 4)
    imagenet.snippet('train/b', 4)
    imagenet.xml('train/a/000001').write_text('<annotation>')
    imagenet.picture('train/a/000002').unlink()
    imagenet.add('train/b/000003', ('n00000001', (1, 1, 5, 5), 0), (CAT, (9, 9, 7, 12), 1))
    result = check(imagenet.root, [VID], ('cat', 'dog'))
    xml = imagenet.annotations / 'train'
    assert finding_lines(result) == [
        f'problem: broken entry: {xml}/a/000001.xml: not valid XML: no element found: line 1, '
        'column 12',
        f'problem: missing frame: {xml}/a: no file {imagenet.images}/train/a/000002.JPEG',
        f"problem: unknown category: {xml}/b/000003.xml: object[0]: name is 'n00000001'; it must "
        'be one of the 30 ids of VID',
        f'problem: box without area: {xml}/b/000003.xml: object[1]: box without area, -1 x 4',
        'remark: class without boxes: cat: no box in any source']
    assert source_table(result)[2].split()[2:9] == ['2', '7', '6', '6', '5', '0', '1']


def test_some_annotations_at_equal_distances_are_read(imagenet):
    imagenet.snippet('train/a', 9)
    shutil.copytree(imagenet.annotations / 'train/a', imagenet.annotations / 'train/b')
    shutil.copytree(imagenet.images / 'train/a', imagenet.images / 'train/b')
    asked = []

    def progress(things, total, text):
        asked.append((total, text))
        return things

    result = check(imagenet.root, [VID], ('dog',),
                   CheckConfig(sample=3, most_annotations=6, anchor_scale=0.01),
                   progress=progress)
    assert asked == [(6, 'Annotations: annotations')]
    (source,) = result.sources
    assert (source.frames, source.read, source.pictures, source.boxes) == (18, 6, 3, 6)
    assert result.classes['dog'].videos == 2
