# SPDX-License-Identifier: Apache-2.0
"""Average precision by several protocols, and all figures of runs, as values and as text."""
from dataclasses import replace
import json
from pathlib import Path

import cv2
from forecast_detector_ros.annotations.records import FrameRecord
from forecast_detector_ros.detector.processing import Detections
from forecast_detector_ros.detector.stream import Tracks
from forecast_detector_ros.evaluation.accuracy import (
    accuracy_as_text,
    as_text,
    identities_as_text,
    measure_accuracy,
    number_detections,
    summarise_identities,
    summarise_runs,
)
from forecast_detector_ros.evaluation.runs import VideoRun
from forecast_detector_ros.evaluation.sequences import EvaluationError, load_mot_videos, Video
from forecast_detector_ros.metrics.tables import DetectionTable
import numpy as np
import pytest

from ..helpers.boxes import A, B, C, detections, NOWHERE, truth

LABELS = ('cat', 'dog', 'train')
NONE = np.zeros((0, 4), np.float32)
SHIFTED = (25, 0, 35, 10)  #: Overlaps B by a half, which is enough only for the devkit


def videos(name: str, there) -> Video:
    record = FrameRecord(NONE, np.zeros(0, np.int64), np.zeros(0, np.float32), NONE,
                         path=Path(name), width=100, height=100)
    return Video(name, (record, record), there, there)


@pytest.fixture
def two():
    """Return two sequences, and the detections in them."""
    return ([videos('one', truth((0, 0, A), (1, 0, B))), videos('two', truth((0, 1, C)))],
            [detections((0, 0, 0.9, A), (1, 0, 0.8, SHIFTED)),
             detections((0, 1, 0.9, NOWHERE), (0, 1, 0.8, C))])


def test_every_protocol_by_hand(two):
    result = measure_accuracy(*two, LABELS, ('plain', 'devkit', 'coco'))
    assert result['ap50'] == {'mean': 0.5, 'ignored_detections': 0, 'classes': {
        'cat': {'ap50': 0.5, 'boxes': 2, 'detections': 2},
        'dog': {'ap50': 0.5, 'boxes': 1, 'detections': 2}}}
    assert result['ap50_devkit']['mean'] == 0.75
    assert result['ap50_devkit']['classes']['cat']['ap50'] == 1.0
    assert result['coco']['classes']['cat']['ap'] == pytest.approx(51 / 101)
    assert result['coco']['mean'] == result['coco']['figures']['ap'] == pytest.approx(
        (51 / 101 + 0.5) / 2)
    assert result['coco']['figures']['large'] is None
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_motion_of_all_sequences_is_joined(two):
    result = measure_accuracy(*two, LABELS, ('plain',), [np.array([1.0, 0.5]), np.array([0.5])])
    motion = result['ap50']['motion']
    assert {name: group['fraction'] for name, group in motion.items()} == pytest.approx(
        {'slow': 1 / 3, 'medium': 0, 'fast': 2 / 3})
    assert motion['slow']['classes']['cat'] == {'ap50': 1.0, 'boxes': 1, 'detections': 1}
    assert motion['medium']['mean'] is None
    assert motion['fast']['mean'] == pytest.approx((0 + 0.5) / 2)


def test_text_has_a_column_for_each_protocol(two):
    motion = [np.array([1.0, 0.5]), np.array([0.5])]
    text = accuracy_as_text(measure_accuracy(*two, LABELS, ('plain', 'devkit', 'coco'), motion))
    classes, groups, coco = text.split('\n\n')
    lines = [line.split() for line in classes.splitlines()]
    assert lines[0] == ['class', 'boxes', 'detections', 'AP50', 'AP50', 'devkit', 'COCO', 'AP']
    assert lines[2] == ['cat', '2', '2', '0.500', '1.000', '0.505']
    assert lines[4][-3:] == ['0.500', '0.750', '0.502']
    assert groups.splitlines()[3].split() == ['medium', '0', '0.000', '-', '-']
    assert groups.splitlines()[4].split() == ['fast', '2', '0.667', '0.250', '0.750']
    assert coco.splitlines()[0].split() == [
        'COCO', 'ap', 'ap50', 'ap75', 'small', 'medium', 'large']
    assert len(coco.splitlines()) == 3


def test_text_with_only_coco_and_without_protocols(two):
    text = accuracy_as_text(measure_accuracy(*two, LABELS, ('coco',)))
    assert text.splitlines()[2].split() == ['cat', '0.505']
    assert accuracy_as_text({'ap50': None}) == ''


CLASSES = ('dog', 'person')
FRAMES = 12


@pytest.fixture
def walkers(tmp_path):
    """Write two persons that pass each other in MOTChallenge's format; return their video."""
    folder = tmp_path / 'train/WALK'
    (folder / 'gt').mkdir(parents=True)
    (folder / 'img1').mkdir()
    (folder / 'seqinfo.ini').write_text(
        f'[Sequence]\nname=WALK\nimDir=img1\nframeRate=10\nseqLength={FRAMES}\nimWidth=200\n'
        'imHeight=100\nimExt=.png\n')
    lines = []
    for frame in range(1, FRAMES + 1):
        cv2.imwrite(str(folder / f'img1/{frame:06d}.png'), np.zeros((100, 200, 3), np.uint8))
        lines += [f'{frame},7,{10 + 10 * frame},10,30,60,1,1,1',
                  f'{frame},8,{150 - 10 * frame},20,30,60,1,1,1']
    (folder / 'gt/gt.txt').write_text('\n'.join(lines) + '\n')
    (item,) = load_mot_videos(tmp_path / 'train', CLASSES)
    return item


def run_of(item, rows, read=True):
    """Return a run that detects some of the annotated boxes."""
    truth = item.truth.select(rows)
    shown = DetectionTable(truth.frames, truth.boxes, truth.labels,
                           np.full(len(truth), 0.9, np.float32))
    none = np.zeros(FRAMES)
    return VideoRun(item.name, shown, None, np.full(FRAMES, read), none, none, none)


def test_persons_that_pass_each_other_keep_their_numbers(walkers):
    pytest.importorskip('trackeval')
    assert walkers.truth.labels.tolist() == [1] * 2 * FRAMES
    result = summarise_identities([walkers], [run_of(walkers, np.arange(2 * FRAMES))])
    figures = result['all']
    assert (figures['objects'], figures['boxes'], figures['switches']) == (2, 24, 0)
    assert (figures['mota'], figures['hota']) == (1.0, pytest.approx(1.0))
    assert result['sequences'] == {'WALK': figures}
    json.dumps(result, allow_nan=False)
    assert 'WALK' in identities_as_text(result) and 'HOTA' in identities_as_text(result)


def test_missing_half_of_the_boxes_halves_mota(walkers):
    pytest.importorskip('trackeval')
    figures = summarise_identities([walkers], [run_of(walkers, np.arange(0, 24, 2))])['all']
    assert figures['mota'] == pytest.approx(0.5) and figures['switches'] == 0


def test_numbers_are_those_of_a_stream(walkers):
    run = run_of(walkers, np.arange(2 * FRAMES))
    tracks, expected = Tracks(), []
    for frame in range(FRAMES):
        rows = run.shown.frames == frame
        ids, tracks = tracks.follow(Detections(
            run.shown.boxes[rows], run.shown.labels[rows], run.shown.scores[rows]), True)
        expected += ids.tolist()
    assert number_detections(run.shown, run.read).tolist() == expected


def test_boxes_without_tracks_are_refused(walkers):
    nobody = walkers.truth.select(np.zeros(0, int))
    item = replace(walkers, truth=nobody, labelled=nobody)
    with pytest.raises(EvaluationError, match='no annotated box has a track_id'):
        summarise_identities([item], [run_of(walkers, np.arange(4))])


def test_identities_need_every_object(walkers):
    some = replace(walkers, labelled=None)
    with pytest.raises(EvaluationError, match='only some objects'):
        summarise_identities([some], [run_of(walkers, np.arange(4))])


@pytest.fixture
def example():
    """Return two sequences of two frames; one is half found and half read, the other fully."""
    frame = object()
    one = truth((0, 0, A), (1, 0, A))
    two = truth((0, 1, B), (1, 1, B))
    videos = [Video('one', (frame, frame), one, one), Video('two', (frame, frame), two, two)]
    runs = [
        VideoRun('one', detections((0, 0, 0.9, A)),
                 detections((0, 0, 0.9, A), (1, 0, 0.2, A)), np.array([True, False]),
                 np.array([np.nan, 0.8]), np.array([2.0, 0.0]), np.array([10.0, 4.0])),
        VideoRun('two', detections((0, 1, 0.9, B), (1, 1, 0.8, B)),
                 detections((0, 1, 0.9, B), (1, 1, 0.8, B), (1, 1, 0.85, A)),
                 np.array([True, True]), np.array([np.nan, 0.1]), np.array([2.0, 2.0]),
                 np.array([20.0, 30.0]))]
    return videos, runs


def test_summary_by_hand(example):
    result = summarise_runs(*example, LABELS)
    assert result['sequences']['one'] == {'frames': 2, 'boxes': 2, 'recall': 0.5,
                                          'read_ratio': 0.5}
    assert result['mean_recall'] == 0.75
    assert result['read_ratio'] == 0.75 and result['mean_read_ratio'] == 0.75
    latency = result['latency_ms']
    assert latency['read'] == {'frames': 3, 'p50': 22.0, 'p95': pytest.approx(31.0)}
    assert latency['forecast'] == {'frames': 1, 'p50': 4.0, 'p95': 4.0}
    # Average precision counts weak detections too.
    classes = result['ap50']['classes']
    assert classes['cat'] == {'ap50': 1.0, 'boxes': 2, 'detections': 2}
    assert classes['dog'] == {'ap50': pytest.approx(0.5 * 1 + 0.5 * 2 / 3), 'boxes': 2,
                              'detections': 3}


def test_frames_of_different_sequences_are_distinct(example):
    videos, runs = example
    there = truth((0, 0, A))
    videos = [replace(item, truth=there, labelled=there) for item in videos]
    # The first sequence has two detections, the second none.
    runs = [replace(runs[0], collected=detections((0, 0, 0.9, A), (0, 0, 0.8, A))),
            replace(runs[1], collected=detections())]
    assert summarise_runs(videos, runs, LABELS)['ap50']['classes']['cat']['ap50'] == 0.5


def test_sequence_without_boxes_is_not_in_the_mean(example):
    videos, runs = example
    videos[1] = Video('two', videos[1].frames, truth(), truth())
    result = summarise_runs(videos, runs, LABELS)
    assert result['sequences']['two']['recall'] is None
    assert result['mean_recall'] == 0.5


def test_without_labels_there_is_no_ap(example):
    videos, runs = example
    videos[0] = Video('one', videos[0].frames, videos[0].truth, None)
    result = summarise_runs(videos, runs, LABELS)
    assert result['ap50'] is None and result['thresholds'] is None


def test_precision_by_score_threshold(example):
    rows = {row.pop('score_threshold'): row
            for row in summarise_runs(*example, LABELS, score_threshold=0.87)['thresholds']}
    # Two of four boxes have detections of 0.9. That of 0.85 is wrong, and that of 0.8 is right.
    # That of 0.2 is below the lowest threshold.
    assert rows[0.87] == {'recall': 0.5, 'precision': 1.0, 'f1': pytest.approx(2 / 3),
                          'boxes_a_frame': 0.5}
    assert rows[0.2] == {'recall': 0.75, 'precision': 0.75, 'f1': 0.75, 'boxes_a_frame': 1.0}
    assert list(rows) == sorted(rows)


def test_summary_is_json_and_text(example):
    result = summarise_runs(*example, LABELS)
    json.dumps(result, allow_nan=False)
    text = as_text(result)
    assert ['mean', 'over', 'sequences', '0.750', '0.750'] in map(str.split, text.splitlines())
    assert 'forecast       1     4.0     4.0' in text
    assert ['0.200', '0.750', '0.750', '0.750', '1.000'] in map(str.split, text.splitlines())


def test_latency_is_empty_without_forecasts(example):
    videos, runs = example
    result = summarise_runs(videos[1:], runs[1:], LABELS)
    assert result['latency_ms']['forecast'] == {'frames': 0, 'p50': None, 'p95': None}
    assert 'forecast       0       -       -' in as_text(result)
