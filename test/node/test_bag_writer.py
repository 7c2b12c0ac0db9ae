# SPDX-License-Identifier: Apache-2.0
"""Check that readers without this package can open a bag."""
import errno
import os
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from forecast_detector_ros.node.recording import BagError, BagWriter, message_folder
from mcap.reader import make_reader
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.highlevel import AnyReader
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

# Type hash of vision_msgs 4.1.1.
DETECTIONS_HASH = 'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968'
BEST_EFFORT = QoSProfile(depth=3, reliability=ReliabilityPolicy.BEST_EFFORT)


def detections(second: int) -> Detection2DArray:
    """Return a message with one detection."""
    message = Detection2DArray()
    message.header.stamp.sec = second
    message.header.frame_id = 'camera'
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = 'bicycle', 0.625
    message.detections = [Detection2D(header=message.header, results=[result])]
    message.detections[0].bbox.size_x = 42.0
    return message


def write_bag(path: Path, number: int = 3) -> None:
    """Write `number` messages on /detections and one on /decision."""
    bag = BagWriter(path)
    bag.add_topic('/detections', Detection2DArray, QoSProfile(depth=10))
    bag.add_topic('/decision', DiagnosticArray, BEST_EFFORT)
    for second in range(number):
        bag.write('/detections', serialize_message(detections(second)), second * 10**9)
    bag.write('/decision', serialize_message(
        DiagnosticArray(status=[DiagnosticStatus(message='read')])), number * 10**9)
    assert not path.exists()
    bag.close()


def test_rosbags_reads_the_bag_from_its_own_definitions(tmp_path: Path) -> None:
    write_bag(tmp_path / 'bag')
    with AnyReader([tmp_path / 'bag']) as reader:
        topics = {connection.topic: connection for connection in reader.connections}
        assert topics['/detections'].digest == DETECTIONS_HASH
        assert topics['/decision'].ext.offered_qos_profiles[0].reliability.name == 'BEST_EFFORT'
        messages = [(time, reader.deserialize(data, connection.msgtype))
                    for connection, time, data in reader.messages([topics['/detections']])]
    assert [time for time, _ in messages] == [0, 10**9, 2 * 10**9]
    hypothesis = messages[2][1].detections[0].results[0].hypothesis
    assert (hypothesis.class_id, hypothesis.score) == ('bicycle', 0.625)


def test_mcap_reads_the_bag_and_rclpy_its_messages(tmp_path: Path) -> None:
    write_bag(tmp_path / 'bag')
    with (tmp_path / 'bag' / 'bag.mcap').open('rb') as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        messages = list(reader.iter_messages(topics=['/detections']))
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == 4
    schema, channel, message = messages[1]
    assert (schema.name, schema.encoding) == ('vision_msgs/msg/Detection2DArray', 'ros2msg')
    assert b'MSG: vision_msgs/ObjectHypothesis\nstring class_id\n' in schema.data
    assert channel.message_encoding == 'cdr'
    assert deserialize_message(message.data, Detection2DArray) == detections(1)


def test_existing_bag_is_not_overwritten(tmp_path: Path) -> None:
    write_bag(tmp_path / 'bag')
    with pytest.raises(BagError, match='exists already'):
        BagWriter(tmp_path / 'bag')


def test_unfinished_bag_leaves_nothing_under_its_name(tmp_path: Path) -> None:
    BagWriter(tmp_path / 'bag')
    assert not (tmp_path / 'bag').exists()
    write_bag(tmp_path / 'bag')
    # The first, unfinished bag is kept under another name.
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bag', 'bag.unfinished-1']


def test_unfinished_bag_that_cannot_be_renamed_is_one_clear_line(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BagWriter(tmp_path / 'bag')

    def rename(*_: object) -> None:
        raise OSError(errno.EROFS, 'Read-only file system')

    monkeypatch.setattr(os, 'rename', rename)
    with pytest.raises(BagError, match=r'bag: cannot be written: Read-only file system$'):
        BagWriter(tmp_path / 'bag')


def test_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(BagError) as caught:
        BagWriter(tmp_path / 'file' / 'bag')
    assert '\n' not in str(caught.value)


def test_definitions_are_those_of_the_package_in_use() -> None:
    assert (message_folder('vision_msgs') / 'Detection2DArray.msg').is_file()
    with pytest.raises(BagError, match='not installed'):
        message_folder('json')
