# SPDX-License-Identifier: Apache-2.0
"""Read pictures from files and folders; check the errors of unreadable ones."""
import os
from pathlib import Path

import cv2
from forecast_detector_ros.images.video_source import Device, open_source, SourceError
import numpy as np
import pytest


def write_video(path: Path, frames: int, codec: str = 'mp4v') -> None:
    """Write pictures of 64 x 48 pixels, each brighter than the one before."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25.0, (64, 48))
    rng = np.random.default_rng(0)
    for index in range(frames):
        noise = rng.integers(0, 40, (48, 64, 3), np.uint8)
        writer.write(noise + np.uint8(5 * index))
    writer.release()


def read_all(source) -> list[np.ndarray]:
    """Return copies of all pictures."""
    pictures = []
    while (picture := source.read()) is not None:
        pictures.append(picture.copy())
    return pictures


def test_video_gives_every_frame_in_order_and_its_rate(tmp_path: Path) -> None:
    write_video(tmp_path / 'clip.mp4', 20)
    source = open_source(str(tmp_path / 'clip.mp4'))
    pictures = read_all(source)
    means = [picture.mean() for picture in pictures]
    assert len(pictures) == 20
    assert source.rate == 25.0
    assert pictures[0].shape == (48, 64, 3)
    assert pictures[0].dtype == np.uint8
    assert means == sorted(means)
    assert source.loss() is None


def test_video_can_be_played_again(tmp_path: Path) -> None:
    write_video(tmp_path / 'clip.mp4', 5)
    source = open_source(str(tmp_path / 'clip.mp4'))
    first = read_all(source)
    source.rewind()
    np.testing.assert_array_equal(first, read_all(source))


def test_truncated_video_gives_readable_frames_and_reports_the_loss(tmp_path: Path) -> None:
    path = tmp_path / 'clip.avi'
    write_video(path, 40, 'MJPG')
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    source = open_source(str(path))
    readable = len(read_all(source))
    assert 5 < readable < 35
    loss = source.loss()
    assert loss is not None
    assert f'broke off after {readable} of 40 frames' in loss
    assert '\n' not in loss


@pytest.mark.parametrize('content', [b'', b'\0' * 5000, b'no video at all\n' * 100])
def test_file_that_is_not_a_video_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'clip.mp4'
    path.write_bytes(content)
    with pytest.raises(SourceError, match='damaged') as caught:
        open_source(str(path))
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_video_without_its_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'clip.mp4'
    write_video(path, 20)
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    with pytest.raises(SourceError, match='truncated'):
        open_source(str(path))


@pytest.mark.parametrize(('source', 'complaint'), [
    ('', 'source is not set'),
    ('/nowhere/clip.mp4', 'no such file'),
    ('/dev/video987', 'no such device'),
    ('/dev/null', 'cannot be opened'),
    ('~nobody.mp4', 'no such file'),
    ('²', 'no such file'),
    (300 * 'x', 'File name too long'),
])
def test_missing_source_is_refused_in_one_line(source: str, complaint: str) -> None:
    with pytest.raises(SourceError, match=complaint) as caught:
        open_source(source)
    assert '\n' not in str(caught.value)


class Capture:
    """Stand in for cv2.VideoCapture: a device that delivers one picture each time it is opened."""

    log: list[object] = []

    def __init__(self, source: str | int, backend: int) -> None:
        self.log.append(('open', source, backend))
        self._pictures = 1

    def isOpened(self) -> bool:  # noqa: N802
        """Return True."""
        return True

    def set(self, kind: int, value: float) -> None:  # noqa: A003
        """Note a setting."""
        self.log.append((kind, value))

    def get(self, kind: int) -> float:
        """Return a rate."""
        return 30.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        """Return the picture, then failures."""
        self._pictures -= 1
        return (True, np.zeros((8, 8, 3), np.uint8)) if self._pictures >= 0 else (False, None)

    def release(self) -> None:
        """Note that the device is free."""
        self.log.append('release')


def test_device_that_stopped_is_freed_and_opened_with_the_same_settings(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, 'VideoCapture', Capture)
    monkeypatch.setattr(Capture, 'log', [])
    device = open_source('7', 15.0)
    assert isinstance(device, Device)
    opened = list(Capture.log)
    assert opened == [('open', 7, cv2.CAP_V4L2), (cv2.CAP_PROP_BUFFERSIZE, 1),
                      (cv2.CAP_PROP_FPS, 15.0)]
    device.read()
    with pytest.raises(SourceError, match='^7: the device stopped delivering pictures$'):
        device.read()
    device.reopen()
    assert Capture.log == [*opened, 'release', *opened]
    assert device.read().shape == (8, 8, 3)


def test_folder_is_read_in_natural_order_and_unreadable_images_are_named(tmp_path: Path) -> None:
    # A superscript digit is not a number.
    for index, name in ((10, '10'), (9, '9'), (2, '2²4')):
        cv2.imwrite(str(tmp_path / f'{name}.png'), np.full((8, 8, 3), index, np.uint8))
    (tmp_path / '5.jpg').write_bytes(b'not an image')
    (tmp_path / 'notes.txt').write_text('not an image either')
    source = open_source(str(tmp_path))
    assert [int(picture[0, 0, 0]) for picture in read_all(source)] == [2, 9, 10]
    assert source.rate is None
    assert source.loss() == f'{tmp_path}: 1 of 4 images unreadable: 5.jpg'
    source.rewind()
    assert len(read_all(source)) == 3


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match='holds no image'):
        open_source(str(tmp_path))


def test_folder_with_nothing_readable_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'a.png').write_bytes(b'broken')
    with pytest.raises(SourceError, match='none of the 1 images'):
        open_source(str(tmp_path)).read()


@pytest.mark.parametrize('name', ['2026-01-01T12:30:00.mp4', 'cam:1.mp4'])
def test_name_with_a_colon_is_not_a_protocol(tmp_path: Path, name: str,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / 'clip.mp4', 3)
    (tmp_path / 'clip.mp4').rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    source = open_source(name)
    assert len(read_all(source)) == 3
    source.rewind()
    assert len(read_all(source)) == 3


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    write_video(tmp_path / 'clip.mp4', 3)
    name = tmp_path / os.fsdecode(b'caf\xe9.mp4')
    (tmp_path / 'clip.mp4').rename(name)
    with pytest.raises(SourceError, match='the name of a video must be UTF-8'):
        open_source(str(name))
    name.unlink()
    cv2.imwrite(str(tmp_path / 'x.png'), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / 'x.png').rename(tmp_path / os.fsdecode(b'caf\xe9.png'))
    assert len(read_all(open_source(str(tmp_path)))) == 1
