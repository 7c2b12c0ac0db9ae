# SPDX-License-Identifier: Apache-2.0
"""Bags with pictures, and with detections, for the tests of the replay and the report."""

import cv2
from forecast_detector_ros.detector.processing import Detections
from forecast_detector_ros.recording.output_files import DETECTIONS, vision_typestore
from forecast_detector_ros.recording.result_messages import MessageBuilder
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

STORE = vision_typestore()
SIZE = (48, 80)  #: (height, width) of the pictures
RATE = 10


def header(number, frame_id='camera'):
    """Make the header of the image `number`, ten a second from 100 s on."""
    stamp = 100 * 10**9 + number * 10**9 // RATE
    return STORE.types['std_msgs/msg/Header'](
        stamp=STORE.types['builtin_interfaces/msg/Time'](sec=stamp // 10**9,
                                                         nanosec=stamp % 10**9),
        frame_id=frame_id)


def pixels(number, seed=0, grey=None, size=SIZE):
    """Draw a picture at random, or of one grey."""
    if grey is not None:
        return np.full((*size, 3), grey, np.uint8)
    return np.random.default_rng([seed, number]).integers(0, 256, (*size, 3), np.uint8)


def raw_message(number, seed=0, grey=None, frame_id='camera', size=SIZE):
    """Make a sensor_msgs/Image."""
    return STORE.types['sensor_msgs/msg/Image'](
        header=header(number, frame_id), height=size[0], width=size[1], encoding='bgr8',
        is_bigendian=0, step=3 * size[1], data=pixels(number, seed, grey, size).reshape(-1))


def jpeg_message(number, seed=0, grey=None, frame_id='camera', size=SIZE):
    """Make a sensor_msgs/CompressedImage."""
    data = cv2.imencode('.jpg', pixels(number, seed, grey, size))[1].reshape(-1)
    return STORE.types['sensor_msgs/msg/CompressedImage'](
        header=header(number, frame_id), format='jpeg', data=data)


def truth_message(number, boxes, labels, frame_id='camera'):
    """Make a Detection2DArray of boxes, (N, 4) xyxy, and the names of their classes."""
    builder = MessageBuilder(STORE.types.__getitem__)
    found = Detections(np.array(boxes, np.float32).reshape(-1, 4),
                       np.arange(len(labels)), np.ones(len(labels), np.float32))
    return builder.detections(header(number, frame_id), found, labels)


def write_bag(path, topics, storage=StoragePlugin.MCAP, compression=CompressionMode.NONE,
              rate=RATE):
    """Write the messages of each topic at a rate; what is not serialised is, by its type."""
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        rows = []
        for topic, messages in topics.items():
            kind = next((item.__msgtype__ for item in messages if not isinstance(item, bytes)),
                        DETECTIONS)
            connection = writer.add_connection(topic, kind, typestore=STORE)
            for number, message in enumerate(messages):
                data = (message if isinstance(message, bytes)
                        else STORE.serialize_cdr(message, kind))
                rows.append((200 * 10**9 + number * 10**9 // rate, len(rows), connection, data))
        for time_ns, _, connection, data in sorted(rows, key=lambda row: row[:2]):
            writer.write(connection, time_ns, data)
    return path
