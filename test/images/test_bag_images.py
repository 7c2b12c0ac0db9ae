# SPDX-License-Identifier: Apache-2.0
"""Read images of complete and truncated bags, of every storage and compression."""
from itertools import product
from pathlib import Path
import shutil
import sqlite3
import sys
from types import SimpleNamespace

import cv2
from forecast_detector_ros.images.bag_images import (
    BagImage,
    ImageBag,
    is_bag,
    MAGIC,
    salvage,
    whole_length,
)
from forecast_detector_ros.images.frame import FrameError, SourceError
from forecast_detector_ros.images.image_messages import ENCODINGS, image_frame
from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st
from mcap.reader import NonSeekingReader
from mcap.writer import Writer as McapWriter
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores

COUNT = 12


@pytest.fixture(scope='module')
def content(tmp_path_factory):
    """Return the bytes of a file with messages in many small chunks."""
    path = tmp_path_factory.mktemp('mcap') / 'whole.mcap'
    with path.open('wb') as stream:
        writer = McapWriter(stream, chunk_size=150)
        writer.start('ros2')
        schema = writer.register_schema('std_msgs/msg/String', 'ros2msg', b'string data')
        channel = writer.register_channel('/talk', 'cdr', schema)
        for number in range(COUNT):
            writer.add_message(channel, number, bytes([number]) * 40, number)
        writer.finish()
    return path.read_bytes()


def messages(path):
    with path.open('rb') as stream:
        return [message.data[0] for _, _, message in
                NonSeekingReader(stream).iter_messages(log_time_order=False)]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_copy_holds_all_messages_before_the_cut(content, tmp_path, data):
    cut = data.draw(st.integers(len(MAGIC), len(content)))
    file, copy = tmp_path / 'cut.mcap', tmp_path / 'copy.mcap'
    file.write_bytes(content[:cut])
    lost = salvage(file, copy)
    assert 0 <= lost <= cut
    assert file.read_bytes() == content[:cut]
    if cut - lost == len(MAGIC):
        return  # Even the header is lost.
    found = messages(copy)
    # The copy has at least all messages that the reference reader finds in the file.
    with file.open('rb') as stream:
        direct = []
        try:
            for _, _, message in NonSeekingReader(stream).iter_messages(log_time_order=False):
                direct.append(message.data[0])
        except Exception:
            pass
    assert found == list(range(len(found))) and len(found) >= len(direct)


def test_whole_file_loses_no_message(content, tmp_path):
    (tmp_path / 'whole.mcap').write_bytes(content)
    salvage(tmp_path / 'whole.mcap', tmp_path / 'copy.mcap')
    assert messages(tmp_path / 'copy.mcap') == list(range(COUNT))


def test_zeros_at_the_end_are_left_behind(content, tmp_path):
    file, copy = tmp_path / 'cut.mcap', tmp_path / 'copy.mcap'
    half = content[:len(content) // 2]
    file.write_bytes(half)
    length = whole_length(file)
    file.write_bytes(half[:length] + bytes(500))
    assert salvage(file, copy) == 500
    assert messages(copy)


def test_other_files_have_no_complete_record(tmp_path):
    (tmp_path / 'text').write_text('something else')
    (tmp_path / 'empty').write_bytes(b'')
    assert whole_length(tmp_path / 'text') == whole_length(tmp_path / 'empty') == 0


STORE = get_typestore(Stores.LATEST)
HEIGHT, WIDTH = 8, 12


def image(number, encoding='bgr8', rows=None, frame_id='camera'):
    """Make an image message with a stamp of `number` + 0.5 seconds."""
    types = STORE.types
    if rows is None:
        rows = np.full((HEIGHT, 3 * WIDTH), number, np.uint8)
    header = types['std_msgs/msg/Header'](
        stamp=types['builtin_interfaces/msg/Time'](sec=number, nanosec=500_000_000),
        frame_id=frame_id)
    return types['sensor_msgs/msg/Image'](
        header=header, height=HEIGHT, width=WIDTH, encoding=encoding, is_bigendian=0,
        step=rows.shape[1], data=rows.reshape(-1))


def compressed(number):
    """Make a PNG message."""
    picture = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
    return STORE.types['sensor_msgs/msg/CompressedImage'](
        header=image(number).header, format='png', data=cv2.imencode('.png', picture)[1])


def write(path, topics, storage=StoragePlugin.MCAP, compression=CompressionMode.NONE, start=1000):
    """Write the messages of each topic, one per nanosecond; bytes are not serialised."""
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        for topic, messages in topics.items():
            kind = next((m.__msgtype__ for m in messages if not isinstance(m, bytes)),
                        'sensor_msgs/msg/Image')
            connection = writer.add_connection(topic, kind, typestore=STORE)
            for number, message in enumerate(messages):
                data = (message if isinstance(message, bytes)
                        else STORE.serialize_cdr(message, kind))
                writer.write(connection, start + number, data)
    return path


def read(path, topic=None):
    """Return the images of a topic and the losses."""
    with ImageBag(path) as bag:
        return list(bag.images([bag.choose(topic)])), bag.losses


def numbers(images: list[BagImage]) -> list[int]:
    """Return the grey value of every picture."""
    return [int(item.frame().load().array[0, 0, 0]) for item in images]


@pytest.mark.parametrize('storage', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize('mode', list(CompressionMode))
def test_images_come_out_of_every_storage(tmp_path, storage, mode):
    if storage == StoragePlugin.SQLITE3 and mode == CompressionMode.STORAGE:
        pytest.skip('sqlite3 has no compression of its own')
    path = write(tmp_path / 'bag', {'/camera': [image(n) for n in range(4)]}, storage, mode)
    images, losses = read(path)
    assert losses == [] and numbers(images) == [0, 1, 2, 3]
    assert [item.stamp_ns for item in images] == [1000, 1001, 1002, 1003]
    assert [item.header_stamp_ns for item in images] == [n * 10**9 + 500_000_000
                                                         for n in range(4)]
    assert {(item.topic, item.frame_id) for item in images} == {('/camera', 'camera')}
    assert images[0].frame().size == (HEIGHT, WIDTH)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_every_encoding_is_decoded_as_in_the_node(tmp_path, encoding):
    rows = HEIGHT * 3 // 2 if encoding in ('nv12', 'nv21') else HEIGHT
    data = np.random.default_rng(0).integers(0, 256, (rows, 4 * WIDTH + 3), dtype=np.uint8)
    path = write(tmp_path / 'bag', {'/camera': [image(0, encoding, data)]})
    (stored,), _ = read(path)
    live = image_frame(SimpleNamespace(
        encoding=encoding, height=HEIGHT, width=WIDTH, step=4 * WIDTH + 3, is_bigendian=0,
        data=data.tobytes())).load()
    pixels = stored.frame().load()
    assert pixels.order == live.order
    np.testing.assert_array_equal(pixels.array, live.array)


@pytest.mark.parametrize('make', [image, compressed])
def test_image_above_the_limit_of_pixels_is_refused(tmp_path, make):
    (stored,), losses = read(write(tmp_path / 'bag', {'/camera': [make(5)]}))
    most = HEIGHT * WIDTH
    assert stored.frame(most).load().size == (HEIGHT, WIDTH) and losses == []
    with pytest.raises(FrameError, match=f'{WIDTH}x{HEIGHT} pixels is larger than '
                       f'max_image_pixels, {most - 1}'):
        stored.frame(max_pixels=most - 1).load()


def test_topics_are_merged_by_the_time_of_recording(tmp_path):
    path = write(tmp_path / 'bag', {'/left': [image(n) for n in range(3)],
                                    '/right/compressed': [compressed(n) for n in range(10, 13)]})
    with ImageBag(path) as bag:
        assert [(t.name, t.kind, t.count) for t in bag.topics.values()] == [
            ('/left', 'Image', 3), ('/right/compressed', 'CompressedImage', 3)]
        both = list(bag.images(['/right/compressed', '/left']))
        assert sorted(numbers(both)) == [0, 1, 2, 10, 11, 12]
        assert [item.stamp_ns for item in both] == sorted(item.stamp_ns for item in both)
        assert numbers(bag.images(['/right/compressed'])) == [10, 11, 12]


def test_topic_must_be_named_if_there_are_several(tmp_path):
    path = write(tmp_path / 'bag', {'/left': [image(0)], '/right': [image(0), image(1)],
                                    '/idle': []})
    with ImageBag(path) as bag:
        with pytest.raises(SourceError, match=r'several.*/left \(1 Image\), /right \(2 Image\)'):
            bag.choose()
        assert bag.choose('/right') == bag.choose('right') == '/right'
        with pytest.raises(SourceError, match=r"no image topic 'up'; there is .*/left"):
            bag.choose('up')
        assert list(bag.images(['/idle'])) == []


def test_topic_without_messages_is_ignored(tmp_path):
    assert numbers(read(write(tmp_path / 'bag', {'/a': [], '/b': [image(7)]}))[0]) == [7]


def test_bag_without_images_names_what_it_has(tmp_path):
    text = STORE.types['std_msgs/msg/String'](data='hello')
    path = write(tmp_path / 'bag', {'/chatter': [text]})
    with ImageBag(path) as bag, pytest.raises(SourceError, match='no images; topics are /chatter'):
        bag.choose()


def test_split_bag_is_read_in_order_and_without_metadata(tmp_path):
    # A killed recorder leaves a bag without metadata.
    folder = tmp_path / 'bag'
    folder.mkdir()
    for part in (2, 10, 9):
        split = write(tmp_path / f'part{part}', {'/camera': [image(part)]}, start=part)
        shutil.move(split / f'part{part}.mcap', folder / f'bag_{part}.mcap')
    assert is_bag(folder)
    images, losses = read(folder)
    assert numbers(images) == [2, 9, 10]
    assert len(losses) == 1 and 'metadata.yaml is missing' in losses[0]


def test_broken_part_of_a_split_bag_is_named_and_the_rest_is_read(tmp_path):
    folder = write(tmp_path / 'bag', {'/camera': [image(5)]})
    # The second file is truncated, as after a killed recorder.
    whole = (folder / 'bag.mcap').read_bytes()
    (folder / 'bag_1.mcap').write_bytes(whole[:700])
    text = (folder / 'metadata.yaml').read_text()
    assert text.count('- bag.mcap') == 1
    (folder / 'metadata.yaml').write_text(text.replace('- bag.mcap', '- bag.mcap\n  - bag_1.mcap'))
    images, losses = read(folder)
    assert numbers(images) == [5]
    assert len(losses) == 1 and 'bag_1.mcap: cannot be read' in losses[0]


@pytest.mark.parametrize('name', ['bag.mcap', 'bag.db3'])
def test_bag_without_readable_content(tmp_path, name):
    storage = StoragePlugin.MCAP if name.endswith('mcap') else StoragePlugin.SQLITE3
    folder = write(tmp_path / 'bag', {'/camera': [image(5)]}, storage)
    (folder / name).write_bytes((folder / name).read_bytes()[:700])
    for path in (folder, folder / name):
        with pytest.raises(SourceError, match=rf'{name}: cannot be read: ') as caught:
            ImageBag(path)
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize('with_metadata', [True, False])
@pytest.mark.parametrize('mode', [CompressionMode.NONE, CompressionMode.STORAGE])
def test_mcap_of_a_killed_recorder_is_read_up_to_its_end(tmp_path, mode, with_metadata):
    rows = [np.random.default_rng(n).integers(0, 256, (HEIGHT, 50_000), dtype=np.uint8)
            for n in range(9)]
    for number, item in enumerate(rows):
        item[:, 0] = number
    folder = write(tmp_path / 'bag', {'/camera': [image(n, rows=item)
                                                  for n, item in enumerate(rows)]},
                   compression=mode)
    file = folder / 'bag.mcap'
    file.write_bytes(file.read_bytes()[:2_500_000])
    if not with_metadata:
        (folder / 'metadata.yaml').unlink()
    for path in (folder, file):
        images, losses = read(path)
        assert 0 < len(images) < 9 and numbers(images) == list(range(len(images)))
        assert len(losses) == 1 and 'bag.mcap: was not closed; its last' in losses[0]
        assert f'{len(images)} messages are left' in losses[0]


def test_damaged_bag_gives_the_messages_before_the_damage(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, 50_000), dtype=np.uint8)
    noise[:, 0] = 7
    path = write(tmp_path / 'bag', {'/camera': [image(n, rows=noise) for n in range(9)]},
                 compression=CompressionMode.STORAGE)
    file = path / 'bag.mcap'
    content = bytearray(file.read_bytes())
    content[-400_000:-100_000] = bytes(300_000)  # More than a block of zstd
    file.write_bytes(content)
    images, losses = read(path)
    assert 0 < len(images) < 9 and set(numbers(images)) == {7}
    assert len(losses) == 1 and f'breaks off after {len(images)} messages' in losses[0]


def test_broken_message_is_left_out_and_reported(tmp_path):
    path = write(tmp_path / 'bag', {'/camera': [image(0), b'\0\1\0\0nonsense', image(2)]})
    images, losses = read(path)
    assert numbers(images) == [0, 2]
    assert len(losses) == 1 and 'image 2 of /camera is broken' in losses[0]


def test_inconsistent_image_is_refused_by_its_frame(tmp_path):
    path = write(tmp_path / 'bag', {'/camera': [image(0, 'rgba8')]})
    (stored,), losses = read(path)
    assert losses == []
    with pytest.raises(FrameError, match='step is 36'):
        stored.frame()


@pytest.mark.parametrize('name, words', [
    ('none', 'no such bag'), ('clip.mp4', 'is no bag'), ('folder', 'is no bag'),
    ('bad.mcap', 'cannot be read'), ('bad.db3', 'cannot be read'), ('bad.bag', 'cannot be read')])
def test_file_that_is_not_a_bag_is_one_line(tmp_path, name, words):
    (tmp_path / 'folder').mkdir()
    if '.' in name:
        (tmp_path / name).write_bytes(b'something else altogether')
    with pytest.raises(SourceError, match=words) as caught:
        ImageBag(tmp_path / name)
    assert '\n' not in str(caught.value) and name in str(caught.value)


def test_damaged_metadata_does_not_hide_the_images(tmp_path):
    folder = write(tmp_path / 'bag', {'/camera': [image(5)]})
    (folder / 'metadata.yaml').write_text('rosbag2_bagfile_information: {version: [')
    images, losses = read(folder)
    assert numbers(images) == [5]
    assert len(losses) == 1 and '\n' not in losses[0]


def test_missing_rosbags_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, 'forecast_detector_ros.images.bag_reader', raising=False)
    monkeypatch.setitem(sys.modules, 'rosbags.highlevel', None)
    with pytest.raises(SourceError, match='pip install rosbags'):
        ImageBag(Path(tmp_path))


IMAGE, FLAG = 'sensor_msgs/msg/Image', 'std_msgs/msg/Bool'
ODD = list(product(StoragePlugin, ['unknown', '', 'nested', 'hash']))


def write_odd(path, storage, odd, kind):
    """Write a bag with an image and a flag, one definition of which is unusual; return paths."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for topic, name, data in (('/camera', IMAGE, STORE.serialize_cdr(image(7), IMAGE)),
                                  ('/flag', FLAG, b'\0\1\0\0\1')):
            fault = odd if name == kind else None
            text = {'nested': 'other_msgs/Missing part\n', '': ''}.get(
                fault, STORE.generate_msgdef(name, 2)[0])
            digest = f'RIHS01_{0:064}' if fault == 'hash' else STORE.hash_rihs01(name)
            writer.write(writer.add_connection(topic, name, msgdef=text, rihs01=digest), 1, data)
    file, = path.glob('bag.*')
    if odd in ('unknown', '') and storage == StoragePlugin.SQLITE3:
        with sqlite3.connect(file) as db:
            db.execute('UPDATE message_definitions SET encoding=? WHERE topic_type=?', (odd, kind))
    elif odd == 'unknown':
        head = kind.encode() + b'\7\0\0\0'
        file.write_bytes(file.read_bytes().replace(head + b'ros2msg', head + b'unknown'))
    return path, file


@pytest.mark.parametrize('storage, odd', ODD)
def test_unusual_definition_of_a_type_does_not_affect_other_types(tmp_path, storage, odd):
    for path in write_odd(tmp_path / 'bag', storage, odd, FLAG):
        assert numbers(read(path)[0]) == [7] and read(path)[1] == []


@pytest.mark.parametrize('storage, odd', ODD)
def test_images_without_a_usable_definition(tmp_path, storage, odd):
    with ImageBag(write_odd(tmp_path / 'bag', storage, odd, IMAGE)[0]) as bag:
        assert [message.data for message in bag.messages('/flag', FLAG)] == [True]
        if odd != 'hash':  # The standard definition has this topic's hash.
            assert numbers(bag.images([bag.choose()])) == [7] and bag.losses == []
            return
        for ask, *how in ((bag.choose,), (bag.choose, 'camera'), (bag.messages, '/camera', IMAGE)):
            with pytest.raises(SourceError, match=f'/camera .* definition of {IMAGE}: .* RIHS01'):
                ask(*how)
        assert len(bag.losses) == 1 and bag.topics == {}


@pytest.mark.parametrize('damaged', [False, True])
@pytest.mark.parametrize('metadata', [False, True])
def test_sqlite3_of_a_killed_recorder_is_read_with_its_log(tmp_path, metadata, damaged):
    folder = write(tmp_path / 'bag', {'/camera': [image(n) for n in range(2)]},
                   StoragePlugin.SQLITE3)
    file, log = folder / 'bag.db3', folder / 'bag.db3-wal'
    base = sqlite3.connect(file)
    base.executescript('PRAGMA journal_mode=WAL; INSERT INTO messages (topic_id, timestamp, data) '
                       'SELECT topic_id, timestamp + 9, data FROM messages')
    left = {file: file.read_bytes(), log: log.read_bytes()[:9 if damaged else None]}
    base.close()  # Moves the log into the file
    for path, content in left.items():
        path.write_bytes(content)
    if not metadata:
        (folder / 'metadata.yaml').unlink()
    for path in (folder, file):
        images, losses = read(path)
        assert numbers(images) == [0, 1] * (1 if damaged else 2) and len(losses) == 1
        assert ('wal: cannot be read' if damaged else 'db3: was not closed; with') in losses[0]
    assert left == {path: path.read_bytes() for path in folder.glob('bag.db3*')}
