# SPDX-License-Identifier: Apache-2.0
"""The synthetic set is repeatable by its seed, and its boxes enclose the shapes."""

import cv2
from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.annotations.records import decode_picture
from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.annotations.video_json import load_video_json
import numpy as np
import pytest


def contents(folder):
    return {path.relative_to(folder): path.read_bytes()
            for path in sorted(folder.rglob('*')) if path.is_file()}


def test_the_seed_decides_everything(tmp_path):
    for name, seed in (('a', 1), ('b', 1), ('c', 2)):
        write_synthetic_videos(tmp_path / name, seed=seed, videos=2, frames=3)
    a, b, c = (contents(tmp_path / name) for name in 'abc')
    assert a == b
    assert a.keys() == c.keys() and len(a) == 7
    assert all(a[path] != c[path] for path in a)


def test_every_class_occurs_and_things_move(synthetic):
    assert [len(video.frames) for video in synthetic] == [12] * 4
    labels = {int(label) for video in synthetic for label in video.frames[0].labels}
    assert labels == set(range(len(CLASSES)))
    for video in synthetic:
        # Boxes are in the order of the shapes. The first shape moves in the frames that show it.
        boxes = [frame.boxes[0] for frame in video.frames if len(frame.boxes)]
        assert len(boxes) >= 6
        assert len(np.unique(boxes, axis=0)) > 3


def test_shapes_are_inside_their_boxes(tmp_path):
    path = write_synthetic_videos(tmp_path, seed=5, videos=6, frames=10, objects=1,
                                  extension='png')
    for video in load_video_json(path, tmp_path, CLASSES):
        images = np.stack([decode_picture(frame) for frame in video.frames]).astype(int)
        background = np.median(images, axis=0)
        boxes = np.stack([frame.boxes[0] for frame in video.frames])
        if np.abs(boxes[-1] - boxes[0]).max() < boxes[0, 2] - boxes[0, 0]:
            continue    # The shape is too slow for the median to be the background.
        for image, (x0, y0, x1, y1) in zip(images, boxes.astype(int)):
            differs = (np.abs(image - background) > 30).any(axis=2).astype(np.uint8)
            differs[y0:y1, x0:x1] = 0
            assert differs.sum() == 0


def test_files_are_jpeg_or_png(tmp_path):
    path = write_synthetic_videos(tmp_path, videos=1, frames=1, size=(64, 96))
    picture = tmp_path / 'synthetic-000' / '000001.jpg'
    assert cv2.imread(str(picture)).shape == (64, 96, 3)
    assert path == tmp_path / 'annotations.json'


@pytest.mark.parametrize('wrong', [
    {'size': (31, 100)}, {'videos': 0}, {'frames': 0}, {'objects': 0}, {'extension': 'gif'}])
def test_arguments_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(DataError, match='^synthetic videos: '):
        write_synthetic_videos(tmp_path, **wrong)
