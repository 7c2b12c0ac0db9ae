# SPDX-License-Identifier: Apache-2.0
"""Recall and time per frame of several detectors, which run in turns."""

from dataclasses import dataclass

import cv2
from forecast_detector_ros.annotations.records import FrameRecord
from forecast_detector_ros.benchmark.timing import Contender
from forecast_detector_ros.detector.policy import AlternatePolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.evaluation.sequences import Video
from forecast_detector_ros.experiments.prices import (
    compared_classes,
    Contestant,
    draw_prices,
    measure_prices,
    OWN,
    own_contestant,
    PEER,
    peer_contestant,
    price_rows,
    TIME_ONLY,
    timed_contestant,
)
from forecast_detector_ros.labelling.teacher import TEACHER_CLASSES, TeacherBoxes
from forecast_detector_ros.metrics.tables import one_hot, TruthTable
import numpy as np
import pytest

CLASSES = ('cat', 'dog')


@dataclass
class Found:
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


class Clock:
    """A clock that tests move, in milliseconds."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now * 1e-3


@pytest.fixture
def pictures(tmp_path):
    """Return two sequences of four blue frames, 32 x 24, each with a dog at (4, 4, 12, 12)."""
    path = tmp_path / 'picture.png'
    cv2.imwrite(str(path), np.full((24, 32, 3), (200, 0, 0), np.uint8))
    record = FrameRecord(np.zeros((0, 4), np.float32), np.zeros(0, np.int64),
                         np.zeros(0, np.float32), np.zeros((0, 4), np.float32), path=path,
                         width=32, height=24)
    truth = TruthTable(np.arange(4), np.tile(np.float32([[4, 4, 12, 12]]), (4, 1)),
                       one_hot(np.ones(4, np.int64), 2), np.zeros(0, np.int64),
                       np.zeros((0, 4), np.float32))
    return [Video(name, (record,) * 4, truth) for name in ('a', 'b')]


def contestant(clock, name, seen, read=lambda number: True, names=('dog', 'cat', 'whale'),
               read_ms=10.0, forecast_ms=2.0, group=OWN):
    """Make a detector that finds a dog (its label 0) and a whale in the frames of `seen`."""
    def begin():
        frames = iter(range(100))

        def look(pixels):
            assert pixels.order == 'bgr' and pixels.array[0, 0].tolist() == [200, 0, 0]
            number = next(frames)
            clock.now += read_ms if read(number) else forecast_ms
            rows = 2 if number in seen else 0
            boxes = np.float32([[4, 4, 12, 12], [0, 0, 9, 9]])[:rows]
            return Found(boxes, np.array([0, 2])[:rows],
                         np.float32([0.9, 0.8])[:rows]), read(number)
        return look
    return Contestant(name, group, 'alternate(1)', names, begin)


def test_recall_and_price_by_hand(pictures):
    clock = Clock()
    first, second = measure_prices(
        [contestant(clock, 'first', {0, 1, 2}),
         contestant(clock, 'second', {0}, lambda number: number == 0)],
        pictures, CLASSES, clock=clock)
    assert (first.recall, second.recall) == (0.75, 0.25)
    assert first.sequences == {'a': 0.75, 'b': 0.75}
    # The classes do not include the whale.
    assert (first.boxes_per_frame, second.boxes_per_frame) == (0.75, 0.25)
    assert first.ms == first.read_ms == pytest.approx(10) and first.forecast_ms is None
    assert (second.read_ms, second.forecast_ms) == pytest.approx((10, 2))
    assert second.read_ratio == 0.25 and second.ms == pytest.approx(0.25 * 10 + 0.75 * 2)
    assert first.frames == second.frames == 8


def test_a_single_slow_step_does_not_count(pictures):
    clock = Clock()
    slow = iter([10.0] * 3 + [10.0, 500.0] + [10.0] * 20)

    def begin():
        def look(_):
            clock.now += next(slow)
            return None, True
        return look
    (price,) = measure_prices([Contestant('one', TIME_ONLY, 'always', (), begin)], pictures,
                              CLASSES, clock=clock)
    assert price.ms == pytest.approx(10)
    assert price.recall is None and price.boxes_per_frame is None


def test_all_take_turns_on_every_frame(pictures):
    calls = []

    def runner(name):
        return timed_contestant(Contender(name, lambda: calls.append(name)))
    progress = []
    prices = measure_prices([runner('x'), runner('y'), runner('z')], pictures, CLASSES,
                            progress=lambda *numbers: progress.append(numbers))
    turns = [tuple(calls[start:start + 3]) for start in range(9, len(calls), 3)]
    assert len(turns) == 8 and all(sorted(turn) == ['x', 'y', 'z'] for turn in turns)
    assert len(set(turns)) > 1
    assert progress[-1] == (8, 8)
    assert [price.group for price in prices] == [TIME_ONLY] * 3


def test_only_common_classes_are_compared():
    def named(group, *names):
        return Contestant('n', group, 'p', names, lambda: lambda _: (None, True))
    assert compared_classes([named(OWN, 'a', 'b', 'c'), named(PEER, 'c', 'd', 'a'),
                             named(TIME_ONLY)]) == ('a', 'c')
    assert compared_classes([named(OWN, 'a'), named(PEER, 'b')]) == ()


def test_own_detector_under_a_policy(detector, videos):
    settings = DetectorSettings(policy=AlternatePolicy(1), score_threshold=0.0)
    (price,) = measure_prices([own_contestant('tiny', detector, settings)],
                              videos(walk=('dog', 6)), detector.labels)
    assert price.policy == 'alternate(1)' and price.read_ratio == 0.5
    assert price.boxes_per_frame > 0 and price.ms > 0 and price.forecast_ms > 0


def test_a_peer_has_the_classes_of_its_teacher(pictures):
    class Teacher:
        kind = 'made up'

        def detect(self, image):
            assert image[0, 0].tolist() == [200, 0, 0]
            return TeacherBoxes(np.float32([[4, 4, 12, 12]]),
                                np.array([TEACHER_CLASSES.index('dog')]), np.float32([0.9]))
    (price,) = measure_prices([peer_contestant('peer', Teacher())], pictures, CLASSES)
    assert (price.recall, price.group, price.read_ratio) == (1.0, PEER, 1.0)


@pytest.mark.parametrize('others', [True, False])
def test_legend_has_others_only_if_there_are_some(pictures, tmp_path, monkeypatch, others):
    clock, figures = Clock(), []
    monkeypatch.setattr('forecast_detector_ros.experiments.prices.save_figure',
                        lambda figure, *_: figures.append(figure))
    seen = [contestant(clock, 'ours', {0})]
    if others:
        seen.append(contestant(clock, 'rival', {0}, group=PEER))
    draw_prices(measure_prices(seen, pictures, CLASSES, clock=clock), tmp_path)
    texts = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert ('others, every frame read' in texts) == others


def test_table_and_picture(pictures, tmp_path):
    pytest.importorskip('matplotlib')
    clock = Clock()
    prices = measure_prices(
        [contestant(clock, 'ours', {0, 1}, lambda n: n % 2 == 0),
         contestant(clock, 'rival', {0}, group=PEER),
         timed_contestant(Contender('other', lambda: None))], pictures, CLASSES, clock=clock)
    rows = price_rows(prices)
    assert rows[1] == ['ours', 'alternate(1)', '50.0', '6.0', '10.0', '2.0', '50 %', '0.5']
    assert rows[3][2] == rows[3][5] == rows[3][7] == '-'
    draw_prices(prices, tmp_path / 'new/prices.png')
    picture = cv2.imread(str(tmp_path / 'new/prices.png'), cv2.IMREAD_UNCHANGED)
    assert picture.shape[2] == 4
    # The picture is for light and dark pages, so the background is transparent and no ink is near
    # black or white.
    assert picture[2, 2, 3] == 0
    ink = picture[picture[:, :, 3] == 255][:, :3].astype(float).mean(1)
    assert np.percentile(ink, 5) > 60 and np.percentile(ink, 95) < 200
