# SPDX-License-Identifier: Apache-2.0
"""Stand in for `ros2 bag play`, with some of its options: play images and the clock."""
import argparse
from pathlib import Path
import time

import rclpy
from rclpy.qos import QoSProfile
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

CLASSES = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}


def main() -> None:
    """Advertise the topics of the bag, wait, publish the messages in time, and exit."""
    parser = argparse.ArgumentParser()
    parser.add_argument('verbs', nargs=2)
    parser.add_argument('bag', type=Path)
    parser.add_argument('--rate', type=float, default=1.0)
    parser.add_argument('--delay', type=float, default=0.0)
    parser.add_argument('--clock', type=float, nargs='?', const=40.0, default=0.0)
    options = parser.parse_args()
    assert options.verbs == ['bag', 'play']
    rclpy.init(args=[])
    node = rclpy.create_node('player')
    clock = node.create_publisher(Clock, '/clock', QoSProfile(depth=1))
    with AnyReader([options.bag]) as reader:
        publishers = {
            item.topic: node.create_publisher(
                CLASSES[item.msgtype], item.topic, QoSProfile(depth=10))
            for item in reader.connections}
        time.sleep(options.delay)
        begin = time.monotonic()

        def play_until(bag_ns: int) -> None:
            while True:
                passed_ns = int((time.monotonic() - begin) * options.rate * 1e9)
                now_ns = min(bag_ns, reader.start_time + passed_ns)
                if options.clock:
                    message = Clock()
                    message.clock.sec, message.clock.nanosec = divmod(now_ns, 10**9)
                    clock.publish(message)
                if now_ns == bag_ns:
                    return
                time.sleep(1.0 / (options.clock or 40.0))

        for connection, stamp, data in reader.messages():
            play_until(stamp)
            publishers[connection.topic].publish(bytes(data))
        play_until(reader.end_time + 10**8)
    node.destroy_node()
    rclpy.shutdown()


if __name__ == '__main__':
    main()
