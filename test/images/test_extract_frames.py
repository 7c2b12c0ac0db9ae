# SPDX-License-Identifier: Apache-2.0
"""Extract frames of videos and bags to files; run the extraction again."""

import json
from pathlib import Path

import cv2
from forecast_detector_ros.images.extract_frames import extract_frames
from forecast_detector_ros.images.frame import SourceError
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores

from ..helpers.bags import raw_message, write_bag

STORE = get_typestore(Stores.LATEST)


def video(path: Path, frames: int = 7) -> Path:
    """Write pictures of 64x48 pixels; each is brighter by 20 than the one before."""
    path.parent.mkdir(exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 25.0, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 20 * number % 256, np.uint8))
    writer.release()
    return path


def bag(path: Path, topics: tuple[str, ...] = ('/camera',), broken: int | None = None) -> Path:
    """Write RGB images with increasing red and no green or blue; one may be inconsistent."""
    types = STORE.types
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic in topics:
            connection = writer.add_connection(topic, 'sensor_msgs/msg/Image', typestore=STORE)
            for number in range(5):
                pixels = np.zeros((48, 64, 3), np.uint8)
                pixels[..., 0] = 40 * number
                header = types['std_msgs/msg/Header'](
                    stamp=types['builtin_interfaces/msg/Time'](sec=number, nanosec=7),
                    frame_id='left_eye')
                message = types['sensor_msgs/msg/Image'](
                    header=header, height=48, width=64, is_bigendian=0, step=192,
                    encoding='nonsense' if number == broken else 'rgb8', data=pixels.reshape(-1))
                writer.write(connection, 100 + number,
                             STORE.serialize_cdr(message, 'sensor_msgs/msg/Image'))
    return path


def greys(folder: Path) -> dict[str, list[int]]:
    """Return the means of the channels in order BGR, rounded to tens, by file name."""
    return {path.name: [round(float(value), -1) for value in cv2.imread(str(path)).mean((0, 1))]
            for path in sorted(folder.glob('*.jpg'))}


@pytest.mark.parametrize(('every', 'expected'), [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6])])
def test_every_nth_frame_of_a_video(tmp_path, every, expected):
    told = []
    made = extract_frames(video(tmp_path / 'walk.avi'), tmp_path / 'frames', every,
                          progress=lambda *args: told.append(args))
    assert made.folder == tmp_path / 'frames/walk'
    assert greys(made.folder) == {f'{n:06d}.jpg': [20 * n] * 3 for n in expected}
    assert told == [(n + 1, len(expected)) for n in range(len(expected))]
    assert (made.frames, made.losses) == (len(expected), ())
    assert [path.name for path in (tmp_path / 'frames').iterdir()] == ['walk']


def test_frames_of_a_bag_with_their_stamps(tmp_path):
    made = extract_frames(bag(tmp_path / 'drive'), tmp_path / 'frames', every=2)
    assert greys(made.folder) == {'000000.jpg': [0, 0, 0], '000002.jpg': [0, 0, 80],
                                  '000004.jpg': [0, 0, 160]}
    manifest = json.loads((made.folder / 'source.json').read_text())
    assert manifest['source'] == 'drive' and manifest['every'] == 2
    assert manifest['frames'][1] == {'file': '000002.jpg', 'stamp_ns': 102,
                                     'header_stamp_ns': 2_000_000_007, 'frame_id': 'left_eye'}


def test_topic_of_a_bag_must_be_named_if_there_are_several(tmp_path):
    path = bag(tmp_path / 'drive', ('/left', '/right'))
    with pytest.raises(SourceError, match=r'/left \(5 Image\), /right \(5 Image\)'):
        extract_frames(path, tmp_path / 'frames')
    assert not (tmp_path / 'frames').exists()
    assert extract_frames(path, tmp_path / 'frames', topic='/right').frames == 5


def test_image_that_cannot_be_decoded_is_left_out_and_reported(tmp_path):
    made = extract_frames(bag(tmp_path / 'drive', broken=2), tmp_path / 'frames')
    assert sorted(greys(made.folder)) == ['000000.jpg', '000001.jpg', '000003.jpg', '000004.jpg']
    assert len(made.losses) == 1 and "image 2 of /camera: unknown encoding 'non" in made.losses[0]


def test_image_that_is_too_wide_for_a_jpeg_is_left_out_and_reported(tmp_path):
    path = write_bag(tmp_path / 'drive', {'/camera': [
        raw_message(0), raw_message(1, size=(1, 70_000))]})
    made = extract_frames(path, tmp_path / 'frames')
    assert made.losses == (
        f'{path}: image 1 of /camera: 70000x1 pixels do not fit into a JPEG',)
    assert list(greys(made.folder)) == ['000000.jpg']


def test_second_run_is_refused_or_keeps_existing_files(tmp_path):
    path = video(tmp_path / 'walk.avi')
    extract_frames(path, tmp_path / 'frames', 2)
    before = (tmp_path / 'frames/walk/000002.jpg').stat().st_mtime_ns
    with pytest.raises(SourceError, match='walk: exists already; --resume takes'):
        extract_frames(path, tmp_path / 'frames', 2)
    made = extract_frames(path, tmp_path / 'frames', 2, resume=True)
    assert made.frames == 4
    assert (tmp_path / 'frames/walk/000002.jpg').stat().st_mtime_ns == before
    with pytest.raises(SourceError, match='was written with every 2, not 3'):
        extract_frames(path, tmp_path / 'frames', 3, resume=True)
    longer = video(tmp_path / 'other/walk.avi', 9)
    with pytest.raises(SourceError, match='was written with bytes'):
        extract_frames(longer, tmp_path / 'frames', 2, resume=True)


def test_folder_with_other_content_is_refused(tmp_path):
    (tmp_path / 'frames/walk').mkdir(parents=True)
    for resume in (True, False):
        with pytest.raises(SourceError, match='name another folder'):
            extract_frames(video(tmp_path / 'walk.avi'), tmp_path / 'frames', resume=resume)


def test_interrupted_extraction_leaves_nothing_and_starts_again(tmp_path):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    path = video(tmp_path / 'walk.avi')
    with pytest.raises(KeyboardInterrupt):
        extract_frames(path, tmp_path / 'frames', progress=interrupt)
    assert list((tmp_path / 'frames').iterdir()) == []
    assert extract_frames(path, tmp_path / 'frames', resume=True).frames == 7


def test_truncated_video_gives_its_readable_frames(tmp_path):
    path = video(tmp_path / 'walk.avi', 60)
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2])
    made = extract_frames(path, tmp_path / 'frames')
    assert 10 < made.frames < 60
    assert len(made.losses) == 1 and 'broke off' in made.losses[0]


@pytest.mark.parametrize(('name', 'topic', 'words'), [
    ('none.mp4', None, 'no such file'), ('text.mp4', None, 'cannot be opened as a video'),
    ('walk.avi', '/camera', 'is not a bag'), ('text.mcap', None, 'cannot be read'),
    (300 * 'x', None, 'cannot be read: File name too long')])
def test_source_that_cannot_be_read_is_one_line(tmp_path, name, topic, words):
    video(tmp_path / 'walk.avi')
    for text in ('text.mp4', 'text.mcap'):
        (tmp_path / text).write_text('no video')
    with pytest.raises(SourceError, match=words) as caught:
        extract_frames(tmp_path / name, tmp_path / 'frames', topic=topic)
    assert '\n' not in str(caught.value)


def test_bag_whose_images_are_all_broken(tmp_path):
    path = tmp_path / 'bag'
    with Writer(path, version=9) as writer:
        connection = writer.add_connection('/camera', 'sensor_msgs/msg/Image', typestore=STORE)
        writer.write(connection, 1, b'\0\1\0\0nonsense')
    with pytest.raises(SourceError, match='could be read: .*image 1 of /camera is broken'):
        extract_frames(path, tmp_path / 'frames')
    assert not any((tmp_path / 'frames').iterdir())
