# SPDX-License-Identifier: Apache-2.0
"""Sources of a recipe: the settings of each format, and the records that are read."""

import json

from forecast_detector_ros.annotations.findings import Collected, DataError, Kind
from forecast_detector_ros.annotations.sources import all_classes, load_source, SourceConfig
import pytest

DOG = 'n02084071'


@pytest.mark.parametrize('settings, words', [
    ({'format': 'yolo'},
     "format is 'yolo', must be coco_video, imagenet_vid, imagenet_det or mot"),
    ({'kind': 'film'}, "kind is 'film', must be video or still"),
    ({'frames': 'some', 'format': 'imagenet_vid'}, "frames is 'some', must be snippet or listed"),
    ({'frames': 'listed', 'format': 'imagenet_vid'}, 'frames: listed needs a list_file'),
    ({'list_file': 'a'}, 'list_file is for format imagenet_vid and imagenet_det and mot'),
    ({'split': 'val', 'format': 'mot'}, 'split is for format imagenet_vid and imagenet_det, not'),
    ({'min_score': 0.5, 'format': 'mot'}, 'min_score is for format coco_video, not for mot'),
    ({'min_visibility': 0.1}, 'min_visibility is for format mot, not for coco_video'),
    ({'min_visibility': 2.0, 'format': 'mot'}, 'min_visibility is 2.0, must be in [0, 1]'),
    ({'truth': 'a', 'format': 'mot'}, 'truth is for format coco_video, not for mot'),
    ({'min_score': -0.5}, 'min_score is -0.5, must be in [0, 1]'),
    ({'format': 'imagenet_det'}, 'kind must be still'),
])
def test_an_impossible_setting_is_named(settings, words):
    with pytest.raises(DataError) as caught:
        SourceConfig('a', 'b', **settings)
    assert str(caught.value).startswith('sources: ') and words in str(caught.value)


def test_coco(document, write):
    path = write(document)
    source = SourceConfig(path.name, '.', min_score=0.8, ignore_score=0.5, exclude=('still.png',))
    (video,) = load_source(source, path.parent, ('cat',))
    assert video.name == 'v'
    # The only box has a score of 0.75.
    assert [len(frame.ignore) for frame in video.frames] == [0, 1]
    assert all_classes(source, path.parent) == ('dog', 'cat')


def test_imagenet(imagenet):
    imagenet.snippet('val/a', 3)
    imagenet.add('train/x/b', (DOG, (1, 2, 3, 4)))
    (imagenet.root / 'list.txt').write_text('val/a 1 1 3\nval/a 1 2 3\n')
    source = SourceConfig('Annotations', 'Data', 'imagenet_vid', list_file='list.txt',
                          frames='listed')
    (video,) = load_source(source, imagenet.root, ('dog',))
    assert [int(frame.boxes[0, 0]) for frame in video.frames] == [1, 2]
    (video,) = load_source(SourceConfig('Annotations', 'Data', 'imagenet_vid', split='val'),
                           imagenet.root, ('dog',))
    assert len(video.frames) == 3
    source = SourceConfig('Annotations', 'Data', 'imagenet_det', 'still')
    assert [still.name for still in load_source(source, imagenet.root, ('dog',))] == ['train/x/b']
    assert len(all_classes(source, imagenet.root)) == 31


def test_mot(mot):
    folder = mot('a', ['1,1,2,2,9,9,1,1,0.5'])
    for limit, targets in ((0.4, 1), (0.6, 0)):
        source = SourceConfig('MOT', 'MOT', 'mot', min_visibility=limit)
        (video,) = load_source(source, folder.parents[1], ('person',))
        assert len(video.frames[0].boxes) == targets
    assert set(all_classes(source, folder)) == {'person', 'car', 'bicycle', 'motorcycle'}


def test_exclude_of_a_missing_video_is_noted(document, write):
    path, findings = write(document), Collected()
    source = SourceConfig(path.name, '.', exclude=('v', 'w'))
    assert [video.name for video in load_source(source, path.parent, ('cat',), findings)] == [
        'still.png']
    assert findings.lines[Kind.EXCLUDE] == [f'{path}: exclude names w, which is not there']


@pytest.mark.parametrize('settings, names', [
    ({'sequences': ('v',)}, ['v']), ({'sequences': ('s*', 'v')}, ['v', 'set/a/still.png']),
    ({'sequences': ('set',)}, ['set/a/still.png']), ({'sequences': ('*/a',)}, ['set/a/still.png']),
    ({'exclude': ('set/a',)}, ['v']), ({'exclude': ('*/still.*',)}, ['v']),
    ({'sequences': ('v', 'set'), 'exclude': ('[u-w]',)}, ['set/a/still.png'])])
def test_patterns_choose_videos_and_stills(document, write, tmp_path, settings, names):
    (tmp_path / 'set/a').mkdir(parents=True)
    (tmp_path / 'still.png').rename(tmp_path / 'set/a/still.png')
    document['images'][2]['file_name'] = 'set/a/still.png'
    path = write(document)
    records = load_source(SourceConfig(path.name, '.', **settings), path.parent, ('cat',))
    assert [record.name for record in records] == names


def test_missing_sequences_are_a_mistake(document, write):
    path = write(document)
    source = SourceConfig(path.name, '.', sequences=('v', 'w*'))
    with pytest.raises(DataError, match=r'sequences names w\*, which is not there'):
        load_source(source, path.parent, ('cat',))
    source = SourceConfig(path.name, '.', exclude=('*',))
    with pytest.raises(DataError, match='sequences and exclude leave nothing'):
        load_source(source, path.parent, ('cat',))


def test_a_group_that_is_split_is_noted(document, write):
    document['images'][2] |= {'video': 'w', 'frame_index': 0}
    document['videos'] = [{'name': 'v', 'group': 'walk'}, {'name': 'w', 'group': 'walk'}]
    path = write(document)
    for settings, lines in (({'exclude': ('w',)}, 1), ({'sequences': ('v',)}, 1), ({}, 0)):
        findings = Collected()
        load_source(SourceConfig(path.name, '.', **settings), path.parent, ('cat',), findings)
        assert findings.counts.get(Kind.SPLIT_GROUP, 0) == lines
        if lines:
            assert 'group walk: w is left out' in findings.lines[Kind.SPLIT_GROUP][0]


def test_true_boxes_replace_those_of_a_teacher(document, write, tmp_path):
    path = write(document)
    document['annotations'][0] |= {'bbox': [5, 5, 20, 10], 'score': 1}
    (tmp_path / 'truth.json').write_text(json.dumps(document))
    source = SourceConfig(path.name, '.', truth='truth.json')
    frame = load_source(source, path.parent, ('cat',))[0].frames[1]
    assert frame.boxes.tolist() == [[5, 5, 25, 15]]
