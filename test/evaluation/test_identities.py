# SPDX-License-Identifier: Apache-2.0
"""Numbers of objects on videos in MOTChallenge's format, with detections by hand."""

import json

import cv2
from forecast_detector_ros.detector.processing import Detections
from forecast_detector_ros.detector.stream import Tracks
from forecast_detector_ros.evaluation.identities import (
    identities_as_text,
    number_detections,
    summarise_identities,
)
from forecast_detector_ros.evaluation.runs import VideoRun
from forecast_detector_ros.evaluation.sequences import EvaluationError, load_mot_videos
from forecast_detector_ros.metrics.tables import DetectionTable
import numpy as np
import pytest

CLASSES = ('dog', 'person')
FRAMES = 12


@pytest.fixture
def walkers(tmp_path):
    """Write two persons that pass each other, in MOTChallenge's format; load them."""
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
    """Give a run that detects some of the annotated boxes."""
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


def test_half_of_the_boxes_missed_is_half_of_mota(walkers):
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
    item = type(walkers)(walkers.name, walkers.frames, nobody)
    with pytest.raises(EvaluationError, match='no annotated box has a track_id'):
        summarise_identities([item], [run_of(walkers, np.arange(4))])
