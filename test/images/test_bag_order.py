# SPDX-License-Identifier: Apache-2.0
"""Read bags without an index, with unusual folder names, and with a damaged file."""

from forecast_detector_ros.images.bag_images import ImageBag
from mcap.writer import Writer
import pytest
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from ..helpers.bags import RATE, raw_message, STORE, write_bag

COUNT = 8
TYPE = 'sensor_msgs/msg/Image'


def write_unindexed(path):
    """Write two cameras without chunks and summary; the second one is 150 ms later."""
    definition, _ = STORE.generate_msgdef(TYPE, ros_version=2)
    with path.open('wb') as stream:
        writer = Writer(stream, use_chunking=False, use_summary_offsets=False)
        writer.start('ros2')
        schema = writer.register_schema(TYPE, 'ros2msg', definition.encode())
        channels = [writer.register_channel(topic, 'cdr', schema) for topic in ('/a', '/b')]
        for number in range(COUNT):
            data = bytes(STORE.serialize_cdr(raw_message(number), TYPE))
            for channel, late in zip(channels, (0, 150_000_000)):
                writer.add_message(channel, number * 100_000_000 - late + 10**9, data,
                                   number * 100_000_000)
        writer.finish()


def test_unindexed_file_is_read_in_the_order_of_its_stamps(tmp_path):
    write_unindexed(tmp_path / 'bag.mcap')
    with ImageBag(tmp_path / 'bag.mcap') as bag:
        found = [(image.stamp_ns, image.topic) for image in bag.images(['/a', '/b'])]
        assert bag.losses == []
    assert len(found) == 2 * COUNT and found == sorted(found)
    whole = (tmp_path / 'bag.mcap').read_bytes()
    (tmp_path / 'cut.mcap').write_bytes(whole[:len(whole) // 2])
    with ImageBag(tmp_path / 'cut.mcap') as bag:
        left = list(bag.images(['/a', '/b']))
        assert bag.losses
    assert COUNT - 2 <= len(left) < 2 * COUNT


@pytest.mark.parametrize('name', ['a#1', 'what?', '100%25'])
def test_folder_may_have_any_name(tmp_path, name):
    (tmp_path / 'plain').mkdir()
    write_bag(tmp_path / 'plain/bag', {'/a': [raw_message(n) for n in range(3)]},
              storage=StoragePlugin.SQLITE3)
    folder = (tmp_path / 'plain').rename(tmp_path / name)
    with ImageBag(folder / 'bag') as bag:
        assert len(list(bag.images(['/a']))) == 3


@pytest.mark.parametrize('with_metadata', [True, False])
def test_damaged_file_loses_only_its_own_rest(tmp_path, with_metadata):
    folder = tmp_path / 'bag'
    folder.mkdir()
    for part in range(2):
        split = tmp_path / f'part{part}'
        write_bag(split, {'/a': [raw_message(5 * part + n, size=(80, 1200)) for n in range(5)]},
                  compression=CompressionMode.STORAGE)
        (split / f'{split.name}.mcap').rename(folder / f'bag_{part}.mcap')
    if with_metadata:
        text = (split / 'metadata.yaml').read_text()
        (folder / 'metadata.yaml').write_text(
            text.replace('- part1.mcap', '- bag_0.mcap\n  - bag_1.mcap'))
    file = folder / 'bag_0.mcap'
    content = bytearray(file.read_bytes())
    content[-400_000:-100_000] = bytes(300_000)  # More than a block of zstd
    file.write_bytes(content)
    with ImageBag(folder) as bag:
        found = [round(RATE * (image.header_stamp_ns / 1e9 - 100)) for image in bag.images(['/a'])]
    assert 5 <= len(found) < 10 and set(range(5, 10)) <= set(found)
    assert 'bag_0.mcap: breaks off after ' in bag.losses[-1]
    assert len(bag.losses) == 1 or (not with_metadata and 'is missing' in bag.losses[0])
