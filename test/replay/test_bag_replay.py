# SPDX-License-Identifier: Apache-2.0
"""Compare the replay of small bags with detection frame by frame, for every storage."""

from dataclasses import replace
import json
import shutil

import cv2
from forecast_detector_ros.detector.detector import step_stamped
from forecast_detector_ros.detector.policy import AlwaysReadPolicy, BudgetPolicy
from forecast_detector_ros.detector.stream import StreamState
from forecast_detector_ros.images.frame import FrameError, SourceError
from forecast_detector_ros.images.image_messages import compressed_frame, image_frame
from forecast_detector_ros.images.video_images import VIDEO_TOPIC
from forecast_detector_ros.images.video_source import VideoFile
from forecast_detector_ros.jobs.engine import Interrupt, StoppedError
from forecast_detector_ros.metrics.tables import load_tables
from forecast_detector_ros.recording.output_files import DECISION, DETECTIONS
from forecast_detector_ros.recording.result_messages import read_decision, read_detections
from forecast_detector_ros.replay.arrivals import EVERY_FRAME, GivenLatency, REAL_TIME
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionMode, Reader, StoragePlugin, Writer

from .conftest import OPTIONS
from ..helpers.bags import jpeg_message, raw_message, STORE, write_bag

COUNT = 10


def by_hand(detector, messages, numbers):
    """Step through the messages with these numbers; return the result of each."""
    state, results = StreamState(), {}
    settings = OPTIONS.settings(detector.card)
    for number in numbers:
        message = messages[number]
        make = image_frame if hasattr(message, 'encoding') else compressed_frame
        stamp = message.header.stamp
        try:
            results[number], state = step_stamped(
                detector, make(message), stamp.sec * 10**9 + stamp.nanosec, state, settings)
        except FrameError:
            continue
    return results


def lines(folder):
    return [json.loads(line) for line in (folder / 'frames.jsonl').read_text().splitlines()]


def written(folder):
    """Return (time, message) of detections and of decisions in the bag of a result."""
    found = {DETECTIONS: [], DECISION: []}
    with AnyReader([folder / 'bag'], default_typestore=STORE) as reader:
        for connection, time_ns, data in reader.messages():
            found[connection.msgtype].append(
                (time_ns, reader.deserialize(data, connection.msgtype)))
    return found[DETECTIONS], found[DECISION]


def of_topic(folder, topic):
    """Return (time, message) of a topic in the bag of a result."""
    with AnyReader([folder / 'bag'], default_typestore=STORE) as reader:
        return [(time_ns, reader.deserialize(data, connection.msgtype))
                for connection, time_ns, data in reader.messages() if connection.topic == topic]


def head(message):
    """Return stamp and frame_id, which do not depend on the type store."""
    stamp = message.header.stamp
    return stamp.sec, stamp.nanosec, message.header.frame_id


def check(detector, folder, topic, messages, numbers):
    """Compare the result of a replay with detection frame by frame."""
    wanted = by_hand(detector, messages, numbers)
    found = {item['frame_index']: item for item in lines(folder)
             if item['topic'] == topic and item['kind'] != 'dropped'}
    assert list(found) == list(wanted) and len(found) > 1
    shown = load_tables(folder / 'tables.npz')[topic]['shown']
    assert len(shown) > 3
    for number, result in wanted.items():
        item, decision = found[number], result.decision
        assert (item['kind'], item['reason']) == (decision.kind, decision.reason)
        assert item['consecutive_forecasts'] == decision.consecutive_forecasts
        if item['confidence'] is not None:
            assert item['confidence'] == pytest.approx(decision.confidence, abs=1e-6)
        rows = shown.frames == number
        np.testing.assert_array_equal(shown.boxes[rows], result.detections.boxes)
        np.testing.assert_array_equal(shown.scores[rows], result.detections.scores)
        assert item['labels'] == [detector.labels[k] for k in result.detections.labels]


def test_a_time_budget_counts_the_given_latencies(replay, tmp_path):
    path = write_bag(tmp_path / 'walk', {'/left': [raw_message(n, seed=1) for n in range(40)]})
    options = replace(OPTIONS, changes={'policy': BudgetPolicy(6.0)})
    replay(path, options)
    kinds = [item['kind'] for item in lines(tmp_path / 'out/walk')]
    # The budget is 167 ms per frame; a read takes 250 ms and a forecast 60 ms.
    assert 0.5 < kinds.count('read') / 40 < 0.65


def test_a_video_is_replayed_like_its_pictures_by_hand(detector, replay, tmp_path):
    path = tmp_path / 'clip.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), 10.0, (128, 96))
    rng = np.random.default_rng(0)
    for _ in range(COUNT):
        writer.write(cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (128, 96)))
    writer.release()
    summary = replay(path, replace(OPTIONS, video=True))
    video, messages = VideoFile(path), []
    while (picture := video.read()) is not None:
        messages.append(replace(raw_message(len(messages), size=(96, 128)),
                                data=picture.reshape(-1)))
    check(detector, tmp_path / 'out/clip', VIDEO_TOPIC, messages, range(COUNT))
    assert summary['cameras'][VIDEO_TOPIC]['images'] == COUNT and summary['losses'] == []
    assert VideoFile(tmp_path / 'out/clip/annotated.mp4').announced == COUNT


def test_every_frame_of_two_cameras(detector, replay, tmp_path):
    left = [raw_message(n, seed=1, frame_id='left') for n in range(COUNT)]
    right = [jpeg_message(n, seed=2, frame_id='right') for n in range(COUNT)]
    path = write_bag(tmp_path / 'walk', {'/left': left, '/right/compressed': right})
    summary = replay(path)
    folder = tmp_path / 'out/walk'
    check(detector, folder, '/left', left, range(COUNT))
    check(detector, folder, '/right/compressed', right, range(COUNT))
    assert summary == json.loads((folder / 'summary.json').read_text())
    assert [(topic, item['images'], item['read'], item['forecast'], item['refused'])
            for topic, item in summary['cameras'].items()] == [
                ('/left', 10, 5, 5, 0), ('/right/compressed', 10, 5, 5, 0)]
    assert not summary['interrupted'] and summary['losses'] == []

    detections, decisions = written(folder)
    assert len(detections) == len(decisions) == 2 * COUNT
    for camera, messages in (('left', left), ('right', right)):
        mine = [item for item in detections if item[1].header.frame_id == camera]
        told = [item[1] for item in decisions if item[1].header.frame_id == camera]
        sent = [head(item) for item in messages]
        assert [head(item) for _, item in mine] == [head(item) for item in told] == sent
        assert {item.status[0].name for item in told} == {f'forecast_detector: /{camera}'}
        # Messages have the recording time of their image.
        assert [time for time, _ in mine] == [200 * 10**9 + n * 10**8 for n in range(COUNT)]
        assert all(head(one) == head(item) for _, item in mine for one in item.detections)
    hardware = {item[1].status[0].hardware_id for item in decisions}
    assert hardware == {'/left', '/right/compressed'}


def test_bag_and_coco_and_table_have_the_same_boxes(detector, replay, tmp_path):
    path = write_bag(tmp_path / 'walk', {'/camera': [raw_message(n) for n in range(COUNT)]})
    replay(path)
    folder = tmp_path / 'out/walk'
    shown = load_tables(folder / 'tables.npz')['/camera']['shown']
    coco = json.loads((folder / 'detections.json').read_text())
    names = {item['id']: item['name'] for item in coco['categories']}
    assert list(names.values()) == list(detector.labels)
    images = {item['id']: item for item in coco['images']}
    assert [(item['video'], item['frame_index'], item['width'], item['height'])
            for item in coco['images']] == [('walk', n, 80, 48) for n in range(COUNT)]
    assert coco['images'][3]['stamp_ns'] == 100_300_000_000
    boxes = np.array([item['bbox'] for item in coco['annotations']])
    boxes[:, 2:] += boxes[:, :2]
    np.testing.assert_allclose(boxes, shown.boxes, atol=1e-4)
    assert [images[item['image_id']]['frame_index']
            for item in coco['annotations']] == shown.frames.tolist()
    detections, decisions = written(folder)
    corners = np.concatenate([read_detections(item)[0] for _, item in detections])
    np.testing.assert_allclose(corners, shown.boxes, atol=1e-4)
    labels = [label for _, item in detections for label in read_detections(item)[1]]
    assert labels == [names[item['category_id']] for item in coco['annotations']]
    for (_, item), line in zip(decisions, lines(folder)):
        told = read_decision(item)
        assert {key: line[key] for key in told} == told


@pytest.mark.parametrize('storage, mode', [
    (StoragePlugin.MCAP, CompressionMode.STORAGE), (StoragePlugin.MCAP, CompressionMode.FILE),
    (StoragePlugin.SQLITE3, CompressionMode.NONE), (StoragePlugin.SQLITE3, CompressionMode.FILE),
    (StoragePlugin.SQLITE3, CompressionMode.MESSAGE)])
def test_storage_changes_nothing(replay, tmp_path, storage, mode):
    messages = {'/camera': [raw_message(n) for n in range(4)]}
    replay(write_bag(tmp_path / 'plain', messages))
    replay(write_bag(tmp_path / 'other', messages, storage, mode))
    assert lines(tmp_path / 'out/other') == lines(tmp_path / 'out/plain')


def test_split_bag_keeps_its_state(replay, tmp_path):
    messages = [raw_message(n) for n in range(6)]
    replay(write_bag(tmp_path / 'plain', {'/camera': messages}))
    folder = tmp_path / 'split'
    folder.mkdir()
    for part in range(2):
        write_bag(tmp_path / f'p{part}', {'/camera': messages[3 * part:3 * part + 3]})
    # The second part begins at the end of the first one.
    with Reader(tmp_path / 'p1') as reader, Writer(
            tmp_path / 'later', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection('/camera', 'sensor_msgs/msg/Image', typestore=STORE)
        for _, time_ns, data in reader.messages():
            writer.write(connection, time_ns + 300_000_000, data)
    (tmp_path / 'p0/p0.mcap').rename(folder / 'split_0.mcap')
    (tmp_path / 'later/later.mcap').rename(folder / 'split_1.mcap')
    summary = replay(folder)
    assert lines(tmp_path / 'out/split') == lines(tmp_path / 'out/plain')
    assert 'metadata.yaml is missing' in summary['losses'][0]


def test_real_time_drops_what_the_node_would_drop(detector, replay, tmp_path):
    messages = [raw_message(n) for n in range(COUNT)]
    path = write_bag(tmp_path / 'walk', {'/camera': messages})
    summary = replay(path, replace(OPTIONS, mode=REAL_TIME))
    folder = tmp_path / 'out/walk'
    # A read takes 250 ms, a forecast 60 ms; an image comes every 100 ms.
    check(detector, folder, '/camera', messages, [0, 2, 3, 5, 6, 8, 9])
    assert [(item['frame_index'], item['kind']) for item in lines(folder)] == [
        (0, 'read'), (1, 'dropped'), (2, 'forecast'), (3, 'read'), (4, 'dropped'),
        (5, 'forecast'), (6, 'read'), (7, 'dropped'), (8, 'forecast'), (9, 'read')]
    detections, decisions = written(folder)
    done = [0.25, 0.31, 0.56, 0.62, 0.87, 0.93, 1.18]
    assert [time / 1e9 - 200 for time, _ in detections] == pytest.approx(done)
    values = [{pair.key: pair.value for pair in item.status[0].values} for _, item in decisions]
    # This bag received the images 100 s after their stamps.
    ages = [1e3 * (100 + end - n / 10) for end, n in zip(done, (0, 2, 3, 5, 6, 8, 9))]
    assert [float(item['image_age_ms']) for item in values] == pytest.approx(ages)
    assert [item['dropped_frames'] for item in values] == list('0112233')
    assert {item['latency_ms'] for item in values} == {'250.000', '60.000'}
    camera = summary['cameras']['/camera']
    assert (camera['dropped'], camera['processed'], camera['read']) == (3, 7, 4)
    assert len(json.loads((folder / 'detections.json').read_text())['images']) == 7


@pytest.mark.parametrize('mode', [EVERY_FRAME, REAL_TIME])
def test_expected_detections_are_in_the_bag_and_take_time(detector, replay, tmp_path, mode):
    messages = [raw_message(n) for n in range(2 * COUNT)]
    path = write_bag(tmp_path / 'walk', {'/camera': messages})
    options = replace(OPTIONS, mode=mode, latency=GivenLatency(150.0, 30.0), ahead=True)
    replay(path, options)
    folder = tmp_path / 'out/walk'
    shown, expected = ({head(message): (time, message)
                        for time, message in of_topic(folder, topic)}
                       for topic in ('/detections', '/detections_ahead'))
    kinds = {item['frame_index']: item['kind'] for item in lines(folder)}
    assert ('dropped' in kinds.values()) == (mode == REAL_TIME)
    stamps = [head(message) for message in messages]
    seen = [n for n in kinds if kinds[n] != 'dropped' and n >= 3]
    # Detections are expected one period after each image, once three gaps are known.
    assert list(expected)[:-1] == [stamps[n + 1] for n in seen if n + 1 < len(stamps)]
    same = 0
    for n in seen[1:]:
        if kinds[n] == 'forecast' and kinds[n - 1] != 'dropped':
            foreseen, found = expected[stamps[n]], shown[stamps[n]]
            assert foreseen[0] <= found[0]
            mine, theirs = (read_detections(item[1]) for item in (foreseen, found))
            np.testing.assert_array_equal(mine[0], theirs[0])
            assert mine[1:] == theirs[1:]
            same += len(found[1].detections)
    assert same > 3
    if mode == REAL_TIME:
        # The expected detections are ready one forecast after those of the image.
        for n in seen:
            if n + 1 < len(stamps):
                assert expected[stamps[n + 1]][0] - shown[stamps[n]][0] == 30 * 10**6


def test_expected_detections_are_optional(replay, tmp_path):
    path = write_bag(tmp_path / 'walk', {'/camera': [raw_message(n) for n in range(COUNT)]})
    replay(path)
    assert of_topic(tmp_path / 'out/walk', '/detections_ahead') == []


def test_measured_latency_is_that_of_the_step(replay, tmp_path):
    path = write_bag(tmp_path / 'walk', {'/camera': [raw_message(n) for n in range(3)]})
    replay(path, replace(OPTIONS, latency=None))
    for line in lines(tmp_path / 'out/walk'):
        assert line['latency_ms'] >= line['preprocess_ms'] + line['inference_ms'] > 0


def test_image_that_cannot_be_read_is_refused_and_reported(detector, replay, tmp_path):
    messages = [jpeg_message(n) for n in range(6)]
    messages[2].data = messages[2].data[:40]
    path = write_bag(tmp_path / 'walk', {'/c/compressed': messages})
    summary = replay(path, replace(OPTIONS, video=True))
    camera = summary['cameras']['/c/compressed']
    assert (camera['images'], camera['refused']) == (6, 1)
    assert camera['refusals'][0].startswith('image 2: ')
    # As in the node, the refused image does not change the state.
    check(detector, tmp_path / 'out/walk', '/c/compressed', messages, range(6))


def test_images_above_the_limit_of_pixels_are_refused(detector, replay, tmp_path):
    sizes = [(48, 80), (48, 81), (48, 80), (48, 80)]
    path = write_bag(tmp_path / 'walk', {
        '/a': [raw_message(n, size=size) for n, size in enumerate(sizes)],
        '/b/compressed': [jpeg_message(n, size=size) for n, size in enumerate(sizes)]})
    summary = replay(path, replace(OPTIONS, video=True, max_image_pixels=48 * 80, changes={
        **OPTIONS.changes, 'policy': AlwaysReadPolicy()}))
    for camera in summary['cameras'].values():
        assert (camera['images'], camera['read'], camera['refused']) == (4, 3, 1)
        assert camera['refusals'] == [
            'image 1: image of 81x48 pixels is larger than max_image_pixels, 3840']
    # A forecast frame is decoded only for the video, not for the detector.
    shutil.rmtree(tmp_path / 'out')
    summary = replay(path, replace(OPTIONS, video=True, max_image_pixels=48 * 80))
    assert [item['refused'] for item in summary['cameras'].values()] == [1, 0]
    video = cv2.VideoCapture(str(tmp_path / 'out/walk/annotated_b_compressed.mp4'))
    count = 0
    while video.read()[0]:
        count += 1
    assert count == 3


def test_annotated_video_has_every_picture(replay, tmp_path):
    path = write_bag(tmp_path / 'walk', {'/a': [raw_message(n) for n in range(14)],
                                         '/b': [raw_message(n) for n in range(3)]})
    replay(path, replace(OPTIONS, mode=REAL_TIME, video=True))
    for name, count in (('a', 14), ('b', 3)):
        video = cv2.VideoCapture(str(tmp_path / f'out/walk/annotated_{name}.mp4'))
        assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
        pictures = []
        while (item := video.read())[0]:
            pictures.append(item[1])
        assert len(pictures) == count and pictures[0].shape == (48, 80, 3)


def test_only_the_chosen_topics_are_replayed(replay, tmp_path):
    path = write_bag(tmp_path / 'walk', {'/a': [raw_message(n) for n in range(3)],
                                         '/b': [raw_message(n) for n in range(3)]})
    summary = replay(path, replace(OPTIONS, topics=('b', '/b')))
    assert list(summary['cameras']) == ['/b']
    with pytest.raises(SourceError, match="no image topic 'c'; there is /a"):
        replay(path.rename(tmp_path / 'walk2'), replace(OPTIONS, topics=('c',)))
    assert not (tmp_path / 'out/walk2').exists()


def test_interrupt_leaves_a_complete_result_of_the_processed_part(detector, replay, tmp_path):
    messages = [raw_message(n) for n in range(COUNT)]
    path = write_bag(tmp_path / 'walk', {'/camera': messages})
    interrupt = Interrupt()

    def progress(done, total):
        assert total == COUNT
        interrupt.is_set = done == 4

    summary = replay(path, replace(OPTIONS, video=True), interrupt, progress)
    assert summary['interrupted'] and summary['cameras']['/camera']['images'] == 4
    check(detector, tmp_path / 'out/walk', '/camera', messages, range(4))
    assert len(written(tmp_path / 'out/walk')[0]) == 4
    assert not [item for item in (tmp_path / 'out/walk').rglob('*') if '.part' in item.name]


def test_interrupt_before_the_first_image_is_not_a_failure(replay, tmp_path):
    path = write_bag(tmp_path / 'walk', {'/camera': [raw_message(0)]})
    interrupt = Interrupt()
    interrupt.is_set = True
    with pytest.raises(StoppedError):
        replay(path, interrupt=interrupt)
    assert list((tmp_path / 'out').iterdir()) == []


def test_truncated_bag_gives_its_readable_part(detector, replay, tmp_path):
    # Each image is so large that it fills a chunk of the file.
    messages = [raw_message(n, size=(500, 800)) for n in range(9)]
    path = write_bag(tmp_path / 'walk', {'/camera': messages})
    file = path / 'walk.mcap'
    file.write_bytes(file.read_bytes()[:-file.stat().st_size // 3])
    (path / 'metadata.yaml').unlink()
    summary = replay(path)
    left = summary['cameras']['/camera']['images']
    assert 1 < left < 9 and f'{left} messages are left' in summary['losses'][0]
    check(detector, tmp_path / 'out/walk', '/camera', messages, range(left))


def test_bag_without_a_readable_image_leaves_nothing(replay, tmp_path):
    path = write_bag(tmp_path / 'walk', {'/camera': [raw_message(0)]})
    (path / 'walk.mcap').write_bytes(b'nothing')
    with pytest.raises(SourceError, match=r'walk.mcap: cannot be read'):
        replay(path)
    assert list((tmp_path / 'out').iterdir()) == []


def test_detections_of_a_run_are_perfect_annotations_for_it(detector, replay, tmp_path):
    path = write_bag(tmp_path / 'walk', {'/camera': [raw_message(n) for n in range(COUNT)]})
    replay(path)
    annotations = tmp_path / 'truth.json'
    annotations.write_text((tmp_path / 'out/walk/detections.json').read_text())
    for match in ('order', 'stamp'):
        path = path.rename(tmp_path / match)
        summary = replay(path, replace(OPTIONS, annotations=annotations, match=match,
                                       min_score=0.0))
        camera = summary['cameras']['/camera']
        assert (camera['annotated_frames'], camera['annotations_without_image']) == (COUNT, 0)
        tables = load_tables(tmp_path / 'out' / match / 'tables.npz')['/camera']
        shown = tables['shown']
        # At the border some boxes have no area, so they are not annotations.
        shown = shown.select(np.all(shown.boxes[:, 2:] > shown.boxes[:, :2], axis=1))
        assert 10 < len(tables['truth']) == len(shown)
        np.testing.assert_array_equal(tables['truth'].frames, shown.frames)
        np.testing.assert_allclose(tables['truth'].boxes, shown.boxes, atol=1e-3)
        assert tables['annotated'].tolist() == list(range(COUNT))
        assert len(set(tables['truth'].tracks.tolist())) > 1
