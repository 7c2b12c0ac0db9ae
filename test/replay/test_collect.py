# SPDX-License-Identifier: Apache-2.0
"""Many bags: their names, one summary of all, and shares that merge into the same."""

import json

from forecast_detector_ros.annotations.errors import DataError
from forecast_detector_ros.detector.policy import AlternatePolicy
from forecast_detector_ros.evaluation.many import Interrupt, ManyError
from forecast_detector_ros.replay.arrivals import GivenLatency
from forecast_detector_ros.replay.bag_replay import BagJob, replay_bag, ReplayOptions
from forecast_detector_ros.replay.collect import (
    BAGS_FOLDER,
    BagState,
    DONE,
    FAILED,
    find_bags,
    LEFT_OUT,
    merge_results,
    write_result,
)
from forecast_detector_ros.replay.result_files import merge_coco
from forecast_detector_ros.report.run_record import load_run
import pytest

from ..helpers.bags import jpeg_message, raw_message, truth_message, write_bag

OPTIONS = ReplayOptions(changes={'policy': AlternatePolicy(1), 'score_threshold': 0.3},
                        latency=GivenLatency(40.0, 8.0), truth_topic='/truth')
NAMES = ('a', 'b', 'c')


def head(labels):
    return {'checkpoint': 'abc', 'labels': list(labels), 'model': {'name': 'small'},
            'options': dict.fromkeys(('policy', 'score_threshold', 'nms_threshold', 'classes',
                                      'max_detections', 'max_consecutive_forecasts', 'mode',
                                      'latency', 'max_gap_s', 'annotations', 'truth_topic')),
            'machine': {'cores': 2}}


@pytest.fixture
def bags(tmp_path):
    """Write three bags that differ, each with annotations; the last is compressed video."""
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
    """Give a function that replays some of the bags into a folder of results."""
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


def test_shares_merge_into_what_one_run_gives(run, tmp_path):
    whole = run(tmp_path / 'whole', *NAMES)
    run(tmp_path / 'first', 'a', 'c')
    run(tmp_path / 'second', 'b')
    (tmp_path / 'merged').mkdir()
    # In whatever order the parts are named.
    merged, missing = merge_results([tmp_path / 'second', tmp_path / 'first'],
                                    tmp_path / 'merged')
    assert missing == [] and figures(merged) == figures(whole)
    assert whole['accuracy']['ap50'] > 0 and whole['accuracy']['boxes'] > 8
    assert whole['accuracy']['frames'] == 4 + 3 + 6 and whole['images'] == 15
    for name in ('detections.json', 'run.json'):
        assert (tmp_path / 'merged' / name).read_text() == (
            tmp_path / 'whole' / name).read_text()


def test_run_of_annotated_bags(run, detector, tmp_path):
    summary = run(tmp_path / 'whole', *NAMES)
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


def test_missing_and_failed_bags_are_told(run, tmp_path):
    run(tmp_path / 'first', 'a')
    part = tmp_path / 'first/summary.json'
    document = json.loads(part.read_text())
    document['bags'][2].update(state=FAILED, error='is broken')
    part.write_text(json.dumps(document))
    (tmp_path / 'merged').mkdir()
    summary, missing = merge_results([tmp_path / 'first'], tmp_path / 'merged')
    assert [(state.name, state.state, state.error) for state in missing] == [
        ('b', LEFT_OUT, 'no part has it'), ('c', FAILED, 'is broken')]
    assert list(summary['results']) == ['a']


@pytest.mark.parametrize('change, words', [
    ({'checkpoint': 'other'}, 'checkpoint differs from'),
    ({'bags': []}, 'is a share of another list of bags'),
    ({}, 'number 1 of 3 is in two of the parts'),
])
def test_parts_that_do_not_fit_are_one_line(run, tmp_path, change, words):
    run(tmp_path / 'first', 'a')
    (tmp_path / 'second').mkdir()
    document = json.loads((tmp_path / 'first/summary.json').read_text())
    (tmp_path / 'second/summary.json').write_text(json.dumps({**document, **change}))
    (tmp_path / 'merged').mkdir()
    with pytest.raises(ManyError, match=words) as caught:
        merge_results([tmp_path / 'first', tmp_path / 'second'], tmp_path / 'merged')
    assert '\n' not in str(caught.value)


def test_what_is_no_part_is_one_line(tmp_path):
    with pytest.raises(ManyError, match='a part is a folder that replay wrote'):
        merge_results([tmp_path], tmp_path)


def test_bags_are_found_and_named(tmp_path):
    for name in ('day/one', 'day/deep/two', 'night/one'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_bag(tmp_path / name, {'/camera': [raw_message(0)]})
    assert [name for name, _ in find_bags([tmp_path])] == ['two', 'one', 'one-2']
    file = tmp_path / 'day/one/one.mcap'
    assert find_bags([file, tmp_path / 'none']) == [('one', file), ('none', tmp_path / 'none')]
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='empty: is no bag, and there is none in it'):
        find_bags([tmp_path / 'empty'])


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
