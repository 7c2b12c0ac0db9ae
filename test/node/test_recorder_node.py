# SPDX-License-Identifier: Apache-2.0
"""Run the recorder as a process; the test acts as camera and detector."""
from collections.abc import Iterator
import json
from pathlib import Path
import resource
import signal
import time

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from forecast_detector_ros.images.bag_images import ImageBag
from forecast_detector_ros.images.frame import SourceError
from forecast_detector_ros.node.recorder import RecorderNode
from forecast_detector_ros.node.recording import RecordingError
from forecast_detector_ros.recording.output_files import RATE_FRAMES
import numpy as np
import pytest
import rclpy
from rosbags.highlevel import AnyReader
from vision_msgs.msg import Detection2DArray

from .recorder_stage import finish, on_stage, PATIENCE_S, play, RATE, Stage, start, WIDTH


@pytest.fixture
def stage(ros_domain: int) -> Iterator[Stage]:
    """Return camera and detector on the graph of this test."""
    with on_stage() as stage:
        yield stage


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return the folder to record into."""
    return tmp_path / 'recording'


def pictures(path: Path) -> list[np.ndarray]:
    """Return the pictures of a video."""
    capture = cv2.VideoCapture(str(path))
    found = []
    while (read := capture.read())[0]:
        found.append(read[1])
    return found


def is_red(picture: np.ndarray) -> bool:
    """Return whether a picture has a red border at the bottom."""
    blue, green, red = picture[-2, WIDTH // 2].astype(int)
    return bool(red > 180 and blue < 90 and green < 90)


def test_recording_holds_every_frame_with_its_decision(stage: Stage, output: Path) -> None:
    recorder = start(output, stop_with_camera='true')
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    kinds = play(stage, 20, dropped=(7, 8))
    stage.images.wait_for_all_acked(rclpy.duration.Duration(seconds=5))
    stage.leave()
    stage.wait_until(lambda: recorder.poll() is not None)
    code, frames, log = finish(recorder)
    assert code == 0, log
    assert [frame.kind for frame in frames] == kinds
    assert [frame.labels for frame in frames] == [
        () if kind == 'dropped' else ('bicycle',) for kind in kinds]
    assert frames[1].confidence == 0.75
    assert frames[0].confidence is None
    assert sorted(path.name for path in output.iterdir()) == ['annotated.mkv', 'bag']

    video = pictures(output / 'annotated.mkv')
    assert [is_red(picture) for picture in video] == [kind == 'forecast' for kind in kinds]
    # The grey of the background shows that the pictures are in order.
    grey = [picture[100:110, 120:150].mean() for picture in video]
    np.testing.assert_allclose(grey, 4.0 * np.arange(20), atol=5)
    assert cv2.VideoCapture(str(output / 'annotated.mkv')).get(cv2.CAP_PROP_FPS) == RATE

    with AnyReader([output / 'bag']) as reader:
        stamps: dict[str, list[int]] = {}
        for connection, _, data in reader.messages():
            stamp = reader.deserialize(data, connection.msgtype).header.stamp
            stamps.setdefault(connection.topic, []).append(stamp.sec * 10**9 + stamp.nanosec)
    answered = [frame.stamp_ns for frame in frames if not frame.dropped]
    assert stamps == {'/detections': answered, '/decision': answered}


def test_detections_ahead_are_recorded_once_they_come(stage: Stage, output: Path) -> None:
    ahead = stage.create_publisher(Detection2DArray, 'detections_ahead', 10)
    recorder = start(output)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1
                     and ahead.get_subscription_count() == 1)
    play(stage, 3)
    # By now the bag holds messages of other topics and has been flushed.
    time.sleep(1.5)
    for index in (3, 4):
        ahead.publish(Detection2DArray(header=stage.header(index)))
    ahead.wait_for_all_acked(rclpy.duration.Duration(seconds=5))
    # Published messages arrive within this time.
    time.sleep(0.5)
    recorder.send_signal(signal.SIGINT)
    code, frames, log = finish(recorder)
    assert code == 0, log
    with AnyReader([output / 'bag']) as reader:
        headers = [reader.deserialize(data, connection.msgtype).header
                   for connection, _, data in reader.messages()
                   if connection.topic == '/detections_ahead']
    assert [header.stamp.sec * 10**9 + header.stamp.nanosec for header in headers] == [
        10**12 + round(index * 1e9 / RATE) for index in (3, 4)]
    # The messages do not belong to an image.
    assert [frame.labels for frame in frames] == [('bicycle',)] * 3
    assert '2 /detections_ahead' in log


def test_bag_carries_the_type_hash_of_the_live_topic(stage: Stage, output: Path) -> None:
    recorder = start(output)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    live = {}
    for topic in ('/detections', '/decision'):
        live[topic] = str(stage.get_publishers_info_by_topic(topic)[0].topic_type_hash)
    play(stage, 2)
    recorder.send_signal(signal.SIGINT)
    code, _, log = finish(recorder)
    assert code == 0, log
    with AnyReader([output / 'bag']) as reader:
        recorded = {connection.topic: connection.digest for connection in reader.connections}
    for topic, digest in live.items():
        assert recorded[topic].startswith('RIHS01_')
        assert recorded[topic].removeprefix('RIHS01_') in digest


def test_interrupted_recording_is_complete_up_to_there(stage: Stage, output: Path) -> None:
    recorder = start(output)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    play(stage, 6)
    stage.images.wait_for_all_acked(rclpy.duration.Duration(seconds=5))
    stage.wait_until(lambda: stage.detections.wait_for_all_acked(
        rclpy.duration.Duration(seconds=0.1)))
    time.sleep(0.5)
    assert not (output / 'annotated.mkv').exists()
    recorder.send_signal(signal.SIGINT)
    code, frames, log = finish(recorder)
    assert code == 0, log
    assert 'Traceback' not in log
    assert len(frames) == len(pictures(output / 'annotated.mkv')) == 6
    with AnyReader([output / 'bag']) as reader:
        assert reader.message_count == 12


def stamps_in(bag: Path) -> list[list[int]]:
    """Return the stamps of detections and decisions in an unfinished bag; empty: unreadable."""
    try:
        with ImageBag(bag) as opened:
            headers = [[message.header for message in opened.messages(topic, kind)]
                       for topic, kind in (('/detections', 'vision_msgs/msg/Detection2DArray'),
                                           ('/decision', 'diagnostic_msgs/msg/DiagnosticArray'))]
    except SourceError:
        return []
    return [[header.stamp.sec * 10**9 + header.stamp.nanosec for header in each]
            for each in headers]


def test_bag_of_a_killed_recorder_has_all_messages_of_the_last_flush(
        stage: Stage, output: Path) -> None:
    recorder = start(output)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    play(stage, 6)
    expected = [[10**12 + round(index * 1e9 / RATE) for index in range(6)]] * 2
    bag, sizes = output / '.bag.part' / 'bag', [0]

    def all_there() -> bool:
        sizes.append((bag / 'bag.mcap').stat().st_size)
        return sizes[-1] != sizes[-2] and stamps_in(bag) == expected

    # So few messages do not fill a chunk. They are flushed because a second has passed.
    try:
        stage.wait_until(all_there)
    finally:
        recorder.kill()
    recorder.communicate(timeout=PATIENCE_S)
    assert recorder.returncode == -signal.SIGKILL
    assert stamps_in(bag) == expected
    assert not (output / 'bag').exists()


def test_images_wait_for_a_detector(stage: Stage, output: Path) -> None:
    stage.destroy_publisher(stage.detections)
    recorder = start(output)
    stage.wait_until(lambda: stage.decisions.get_subscription_count() == 1)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        rclpy.spin_once(stage, timeout_sec=0.05)
        assert stage.images.get_subscription_count() == 0
    recorder.send_signal(signal.SIGINT)
    code, frames, log = finish(recorder)
    assert (code, frames) == (0, []), log
    assert 'waiting for a detector on /detections and /decision' in log


def test_compressed_images_are_recorded_and_a_broken_one_is_left_out(
        stage: Stage, output: Path) -> None:
    recorder = start(output, image_transport='compressed', rate=RATE, stop_with_camera='true')
    stage.wait_until(lambda: stage.jpegs.get_subscription_count() == 1)
    for index in range(5):
        stage.show_jpeg(index, b'broken' if index == 2 else None)
        stage.answer(index, 'read')
    stage.jpegs.wait_for_all_acked(rclpy.duration.Duration(seconds=5))
    stage.leave()
    stage.wait_until(lambda: recorder.poll() is not None)
    code, frames, log = finish(recorder)
    assert (code, len(frames)) == (0, 5), log
    assert len(pictures(output / 'annotated.mkv')) == 4
    assert '1 images could not be decoded' in log


@pytest.mark.parametrize(('parameters', 'complaint'), [
    ({'image_transport': 'smoke'}, "neither 'raw' nor 'compressed'"),
    ({'rate': '-2.0'}, 'rate out of range'),
    ({'image_topics': '[/camera/image-raw]'},
     "image_topics: '/camera/image-raw' is no topic name: topic name must not contain"),
    ({'image_topics': '[left, /a//b]'},
     "image_topics: '/a//b' is no topic name: topic name must not contain"),
    ({'image_topics': '[]'}, 'an empty list has no type in ROS'),
    ({'wait_for_detector': 'false',
      'qos_overrides./image_raw.subscription.reliability': 'eventually'},
     'qos_overrides: Unexpected QoS override'),
    ({'output': '/dev/null/here'}, '/dev/null/here'),
    ({'output': 'USED'}, 'holds a recording already'),
])
def test_bad_input_is_one_line_and_exit_code_2(
        output: Path, parameters: dict[str, str], complaint: str) -> None:
    output.mkdir()
    (output / 'annotated.mkv').write_text('precious')
    given = {name: value for name, value in parameters.items() if name != 'output'}
    folder = {'USED': output, None: output.with_name('other')}.get(
        parameters.get('output'), Path('/dev/null/here'))
    code, _, log = finish(start(folder, **given))
    assert code == 2
    assert complaint in log
    assert len(log.strip().splitlines()) == 1
    assert (output / 'annotated.mkv').read_text() == 'precious'


def test_refused_recording_leaves_the_frame_log_of_an_earlier_one(
        output: Path, tmp_path: Path) -> None:
    log = tmp_path / 'frames.jsonl'
    log.write_text('precious')
    (output / 'bag').mkdir(parents=True)
    assert finish(start(output, frame_log=log))[0] == 2
    assert log.read_text() == 'precious'


def test_frame_log_that_cannot_be_written_does_not_affect_the_video(
        stage: Stage, output: Path) -> None:
    recorder = start(output, frame_log='/dev/full')
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    # With this number of frames the rate is known, and the first frame is written.
    play(stage, RATE_FRAMES)
    stage.wait_until(lambda: recorder.poll() is not None)
    code, _, log = finish(recorder)
    assert code == 2
    assert log.rstrip().endswith('frame_log: cannot be written: No space left on device')
    assert len(pictures(output / 'annotated.mkv')) == RATE_FRAMES


def test_frame_log_of_an_earlier_recording_is_replaced(
        stage: Stage, output: Path, tmp_path: Path) -> None:
    log = tmp_path / 'frames.jsonl'
    log.write_text('old')
    recorder = start(output, rate=RATE, frame_log=log)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    play(stage, 1)
    stage.wait_until(lambda: log.read_text().endswith('\n'))
    recorder.send_signal(signal.SIGINT)
    assert finish(recorder)[0] == 0
    assert json.loads(log.read_text())['kind'] == 'read'


def test_remapping_that_makes_two_topics_one_is_one_line(ros_domain: int, output: Path) -> None:
    rclpy.init(args=['--ros-args', '-p', f'output:={output}', '-r', 'decision:=detections'])
    try:
        # The middleware writes the rest of the line, which differs between distributions.
        with pytest.raises(RecordingError, match='^decision: [^\n]+$'):
            RecorderNode()
    finally:
        rclpy.shutdown()


def test_misspelt_parameter_is_named(output: Path) -> None:
    _, _, log = finish(start(output, image_topic='/left', image_transport='smoke'))
    assert "there is no parameter 'image_topic', perhaps 'image_topics' is meant" in log


def test_frame_lines_are_plain_json(stage: Stage, output: Path) -> None:
    recorder = start(output, rate=RATE)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    play(stage, 1)
    assert recorder.stdout is not None
    line = json.loads(recorder.stdout.readline())
    assert line['kind'] == 'read'
    assert line['latency_ms'] == 12.0
    recorder.send_signal(signal.SIGINT)
    assert finish(recorder)[0] == 0


def test_full_disk_is_one_line_and_exit_code_2(
        stage: Stage, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # coverage would also write a file, which would be too large.
    monkeypatch.delenv('COVERAGE_PROCESS_CONFIG', raising=False)
    recorder = start(output, rate=RATE)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    # The limit is set after the start, because Fast DDS uses files as shared memory.
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    index = 0
    while recorder.poll() is None:
        stage.show(index)
        stage.answer(index, 'read')
        index += 1
        rclpy.spin_once(stage, timeout_sec=0.02)
        assert index < 5000, 'it goes on and on'
    code, _, log = finish(recorder)
    assert code == 2, log
    lines = [line for line in log.strip().splitlines() if '[INFO]' not in line]
    assert len(lines) == 1 and 'File too large' in lines[0], log


def test_foreign_message_does_not_end_the_recorder(stage: Stage, output: Path) -> None:
    recorder = start(output, rate=RATE)
    stage.wait_until(lambda: stage.images.get_subscription_count() == 1)
    foreign = DiagnosticArray(header=stage.header(0))
    stage.decisions.publish(foreign)
    play(stage, 3)
    stage.images.wait_for_all_acked(rclpy.duration.Duration(seconds=5))
    time.sleep(0.5)
    recorder.send_signal(signal.SIGINT)
    code, frames, log = finish(recorder)
    assert (code, len(frames)) == (0, 3), log
    assert '1 messages are not of the detector' in log
