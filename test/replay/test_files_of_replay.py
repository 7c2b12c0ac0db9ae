# SPDX-License-Identifier: Apache-2.0
"""Check the files of a replay: a failed video affects only itself, and no file stays open."""

from dataclasses import replace
import os
from pathlib import Path

import cv2
from forecast_detector_ros.images.frame import SourceError
from forecast_detector_ros.recording.output_files import FASTEST
import pytest

from .conftest import OPTIONS
from ..helpers.bags import raw_message, write_bag


def pictures(path):
    video = cv2.VideoCapture(str(path))
    count = 0
    while video.read()[0]:
        count += 1
    return count, video.get(cv2.CAP_PROP_FPS)


def test_topics_of_the_same_name_have_separate_videos(replay, tmp_path):
    path = write_bag(tmp_path / 'walk', {'/a/b': [raw_message(n) for n in range(4)],
                                         '/a_b': [raw_message(n) for n in range(2)]})
    assert replay(path, replace(OPTIONS, video=True))['losses'] == []
    folder = tmp_path / 'out/walk'
    assert [pictures(folder / f'annotated_a_b{end}.mp4')[0] for end in ('', '_')] == [4, 2]


def test_images_in_a_burst_give_a_playable_video(replay, tmp_path):
    messages = [raw_message(number) for number in range(12)]
    for number, message in enumerate(messages):
        message.header.stamp.sec, message.header.stamp.nanosec = 100, 312_321 * number
    path = write_bag(tmp_path / 'walk', {'/a': messages})
    replay(path, replace(OPTIONS, video=True))
    assert pictures(tmp_path / 'out/walk/annotated.mp4') == (12, FASTEST)


def test_video_that_cannot_be_written_is_a_loss_and_not_a_failure(replay, tmp_path):
    path = write_bag(tmp_path / 'walk', {'/a': [raw_message(n, size=(1, 1)) for n in range(3)]})
    summary = replay(path, replace(OPTIONS, video=True))
    (loss,) = summary['losses']
    assert 'annotated.mp4' in loss and summary['cameras']['/a']['images'] == 3
    assert not (tmp_path / 'out/walk/annotated.mp4').exists()


def test_a_replay_that_fails_leaves_no_file_and_none_open(replay, tmp_path):
    path = write_bag(tmp_path / 'walk', {'/camera': [raw_message(n) for n in range(4)]})

    def fail(done, total):
        if done == 3:
            raise SourceError('broken')

    with pytest.raises(SourceError, match='broken'):
        replay(path, progress=fail)
    assert not (tmp_path / 'out/walk').exists()
    files = [os.readlink(link) for link in Path('/proc/self/fd').iterdir() if link.is_symlink()]
    assert not [file for file in files if file.startswith(str(tmp_path))]
