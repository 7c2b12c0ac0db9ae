# SPDX-License-Identifier: Apache-2.0
"""Replay many bags: their names in folders and at URLs, and a common summary."""

from pathlib import Path

from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.detector.policy import AlternatePolicy, FORECAST, READ
from forecast_detector_ros.files import RESULT_MARK
from forecast_detector_ros.jobs.engine import Interrupt
from forecast_detector_ros.jobs.locations import LocationError, Url
from forecast_detector_ros.metrics.tables import DetectionTable, one_hot, TruthTable
from forecast_detector_ros.recording.recorded_frame import DROPPED, RecordedFrame
from forecast_detector_ros.replay.arrivals import GivenLatency
from forecast_detector_ros.replay.bag_replay import BagJob, replay_bag, ReplayOptions
from forecast_detector_ros.replay.collect import (
    BAGS_FOLDER,
    BagState,
    DONE,
    find_bags,
    record_replay,
    ReplayedCamera,
    ScoredCamera,
    write_result,
)
from forecast_detector_ros.replay.result_files import merge_coco
from forecast_detector_ros.report.run_record import load_run, MarkedBox, RunRecord
import numpy as np
import pytest

from ..helpers.bags import jpeg_message, raw_message, truth_message, write_bag
from ..helpers.boxes import A, B, detections
from ..helpers.runs import frame

OPTIONS = ReplayOptions(changes={'policy': AlternatePolicy(1), 'score_threshold': 0.3},
                        latency=GivenLatency(40.0, 8.0), truth_topic='/truth')
NAMES = ('a', 'b', 'c')


def head(labels):
    return {'checkpoint': 'abc', 'labels': list(labels), 'model': {'name': 'small'},
            'options': dict.fromkeys(('policy', 'score_threshold', 'nms_threshold',
                                      'vote_threshold', 'score_memory', 'classes',
                                      'max_detections', 'max_consecutive_forecasts', 'mode',
                                      'latency', 'max_gap_s', 'annotations', 'truth_topic')),
            'machine': {'cores': 2}}


@pytest.fixture
def bags(tmp_path):
    """Write three different bags with annotations; the last has compressed images."""
    boxes = [[4, 4, 40, 40], [30, 10, 70, 44]]
    paths = {}
    for seed, name in enumerate(NAMES):
        make = jpeg_message if name == 'c' else raw_message
        topic = '/camera/compressed' if name == 'c' else '/camera'
        count = 4 + seed
        paths[name] = write_bag(tmp_path / name, {
            topic: [make(n, seed=seed) for n in range(count)],
            '/truth': [truth_message(n, boxes[:1 + (n + seed) % 2],
                                     ('cat', 'dog')[:1 + (n + seed) % 2])
                       for n in range(0, count, 1 + seed % 2)]})
    return paths


@pytest.fixture
def run(detector, bags, tmp_path):
    """Return a function that replays some of the bags into a folder of results."""
    def replay(folder, *names):
        states = [BagState(name, str(bags[name])) for name in NAMES]
        for place, name in enumerate(NAMES):
            if name in names:
                replay_bag(detector, OPTIONS, BagJob(bags[name], name,
                                                     folder / BAGS_FOLDER / name),
                           lambda done, total: None, Interrupt())
                states[place] = BagState(name, str(bags[name]), DONE)
        folder.mkdir(exist_ok=True)
        return write_result(folder, head(detector.labels), states)
    return replay


def figures(summary):
    return {key: value for key, value in summary.items() if key not in ('bags', 'merged')}


def test_run_of_annotated_bags(run, detector, tmp_path):
    summary = run(tmp_path / 'whole', *NAMES)
    assert summary['accuracy']['ap50'] > 0 and summary['accuracy']['boxes'] > 8
    assert summary['accuracy']['frames'] == 4 + 3 + 6 and summary['images'] == 15
    record = load_run(tmp_path / 'whole/run.json')
    assert [item.name for item in record.sequences] == ['a/camera', 'b/camera',
                                                        'c/camera/compressed']
    assert record.accuracy.ap50 == summary['accuracy']['ap50']
    assert {item.label: item.ap50 for item in record.accuracy.classes} == {
        name: item['ap50'] for name, item in summary['accuracy']['classes'].items()}
    assert record.source['bags'] == 'a, b, c'
    kinds = {item.name: [frame.kind for frame in item.frames] for item in record.sequences}
    assert record.noted and all(item.kind == kinds[item.sequence][item.number]
                                for item in record.noted)
    with pytest.raises(StopIteration):
        next(item for item in record.noted if not (item.missed or item.wrong))


def test_bags_are_found_and_named(tmp_path):
    for name in ('day/one', 'day/deep/two', 'night/one'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_bag(tmp_path / name, {'/camera': [raw_message(0)]})
    assert [name for name, _ in find_bags([tmp_path])] == ['two', 'one', 'one-2']
    file = tmp_path / 'day/one/one.mcap'
    with pytest.raises(DataError, match='none: no such file or folder'):
        find_bags([file, tmp_path / 'none'])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='empty: has no files; name a bag or a video'):
        find_bags([tmp_path / 'empty'])


@pytest.mark.parametrize(('files', 'words'), [
    (['notes.txt'], 'is no bag, and there is none in it'),
    (['a/1.JPG', 'a/2.png', 'notes.txt'], 'holds 2 pictures and no bag; label and demo take '
     'folders of pictures, replay does not'),
    (['a/walk.mp4', '1.jpg'], 'holds 1 video and no bag; name the files')])
@pytest.mark.parametrize('place', [Path, lambda path: Url(f'file://{path}')])
def test_content_of_a_folder_without_bags_is_reported(tmp_path, files, words, place):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError) as raised:
        find_bags([place(tmp_path)])
    assert str(raised.value) == f'{place(tmp_path)}: {words}'


def test_results_and_cycles_are_skipped_and_links_add_no_bag(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/camera': [raw_message(0)]})
    (tmp_path / 'latest').symlink_to(bag)
    (tmp_path / 'here').symlink_to(tmp_path)
    (tmp_path / 'itself').symlink_to('itself')
    result = tmp_path / 'replay_output'
    result.mkdir()
    (result / RESULT_MARK).touch()
    write_bag(result / 'bag', {'/camera': [raw_message(0)]})
    assert find_bags([tmp_path]) == [('bag', bag)]


def test_a_thousand_bags_are_found_and_named(tmp_path):
    for robot in ('left', 'right'):
        for number in range(500):
            bag = tmp_path / robot / f'{number:04d}'
            bag.mkdir(parents=True)
            (bag / 'metadata.yaml').touch()
    found = find_bags([tmp_path / 'right', *sorted((tmp_path / 'left').iterdir())])
    names = [f'{number:04d}' for number in range(500)]
    assert [name for name, _ in found] == [*names, *(f'{name}-2' for name in names)]
    assert [path for _, path in found] == [
        tmp_path / robot / name for robot in ('right', 'left') for name in names]


def test_bags_are_found_at_urls_as_in_folders(tmp_path):
    for name in ('day/one', 'day/deep/two', 'night/one', '.hidden/three'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_bag(tmp_path / name, {'/camera': [raw_message(0)]})
    (tmp_path / 'night/old.bag').touch()
    (tmp_path / 'night/notes.txt').touch()
    root = Url(f'file://{tmp_path}')
    assert find_bags([root]) == [
        ('two', f'{root}/day/deep/two'), ('one', f'{root}/day/one'),
        ('old', f'{root}/night/old.bag'), ('one-2', f'{root}/night/one')]
    assert [name for name, _ in find_bags([root])] == [
        name for name, _ in find_bags([tmp_path])]
    for inside in ('day/one', 'day/one/one.mcap'):
        assert find_bags([Url(f'{root}/{inside}')]) == [('one', f'{root}/{inside}')]
    with pytest.raises(LocationError, match='none: no such file or folder'):
        find_bags([Url(f'{root}/none')])
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty/notes.txt').touch()
    with pytest.raises(DataError, match='empty: is no bag, and there is none in it'):
        find_bags([Url(f'{root}/empty')])


def test_coco_documents_are_joined_with_new_numbers():
    def document(*boxes):
        return {'categories': [{'id': 1, 'name': 'cat'}],
                'images': [{'id': n + 1, 'frame_index': n} for n in range(2)],
                'annotations': [{'id': n + 1, 'image_id': image, 'category_id': 1}
                                for n, image in enumerate(boxes)]}
    merged = merge_coco([document(1, 2), document(), document(2)])
    assert [item['id'] for item in merged['images']] == [1, 2, 3, 4, 5, 6]
    assert [(item['id'], item['image_id']) for item in merged['annotations']] == [
        (1, 1), (2, 2), (3, 6)]
    assert merge_coco([]) == {'categories': [], 'images': [], 'annotations': []}


HEAD = {'labels': ['cat', 'dog'], 'model': {}, 'machine': {'cores': 2}, 'device': 'cpu',
        'options': dict.fromkeys(('policy', 'score_threshold', 'nms_threshold',
                                  'vote_threshold', 'score_memory', 'classes', 'max_detections',
                                  'max_consecutive_forecasts', 'mode', 'latency',
                                  'max_gap_s', 'annotations', 'truth_topic'))}


def test_noted_frames_have_the_numbers_of_their_images():
    # Image 1 is refused, so the second frame is image 2.
    camera = ReplayedCamera(
        'walk/camera', 'bags/walk', '/camera', (frame(0, READ), frame(2, FORECAST, 'dog', 'cat')),
        (0, 2), detections((2, 1, .8, A), (2, 0, .7, B)))
    record = record_replay(HEAD, [camera], [], ['walk: its end is lost'])
    assert RunRecord.from_json(record.to_json()) == record
    (noted,) = record.noted
    assert (noted.number, noted.position, noted.topic, noted.kind) == (2, 2, '/camera', FORECAST)
    assert noted.file.endswith('/bags/walk') and noted.note == '+1 cat, +1 dog'
    assert noted.found == (MarkedBox('dog', A, 0.8), MarkedBox('cat', B, 0.7))
    assert record.source['lost'] == 'walk: its end is lost' and record.accuracy is None
    assert record.machine == {'cores': 2, 'device': 'cpu'}


def test_object_numbers_of_the_bag_are_compared_with_annotations():
    pytest.importorskip('trackeval')
    # Frame 4 is dropped; in frame 6 two objects have exchanged their numbers.
    numbers, ids = (3, 4, 5, 6), (('1', '2'), (), ('1', '2'), ('2', '1'))
    frames = tuple(RecordedFrame(n, READ if row else DROPPED, labels=('dog',) * len(row),
                                 scores=(0.5,) * len(row), ids=row)
                   for n, row in zip(numbers, ids))
    places = np.array([3, 3, 5, 5, 6, 6])
    boxes = np.array([[0, 0, 10, 10], [50, 0, 60, 10]] * 3, np.float32)
    dogs = np.ones(6, np.int64)
    shown = DetectionTable(places, boxes, dogs, np.full(6, 0.5, np.float32))
    truth = TruthTable(places, boxes, one_hot(dogs, 2), np.zeros(0, np.int64),
                       np.zeros((0, 4), np.float32), np.array([8, 9] * 3))
    record = record_replay(
        HEAD, [ReplayedCamera('walk/camera', 'walk', '/camera', frames, numbers, shown)],
        [ScoredCamera('walk/camera', 'walk', '/camera', np.array([3, 5, 6]), shown, shown, truth)])
    (walk,) = record.sequences
    assert walk.numbered == 2
    assert walk.identities == record.identities
    assert (walk.identities.objects, walk.identities.boxes) == (2, 6)
    assert walk.identities.switches == 2 and walk.identities.mota == pytest.approx(1 - 2 / 6)
    assert RunRecord.from_json(record.to_json()) == record


def test_record_may_be_empty():
    record = record_replay(HEAD, [], [])
    assert record.title == 'no bag' and record.frames == ()
