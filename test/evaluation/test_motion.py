# SPDX-License-Identifier: Apache-2.0
"""Motion IoU of sequences, from tracks and from a file in the published format."""

import gzip
from pathlib import Path
import sys

from forecast_detector_ros.annotations.records import FrameRecord
from forecast_detector_ros.evaluation.motion import from_tracks, load_published, VIDEO_LIST
from forecast_detector_ros.evaluation.sequences import EvaluationError, Video
from forecast_detector_ros.metrics.tables import TruthTable
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from ..helpers.boxes import truth

NONE = np.zeros((0, 4), np.float32)


def videos(name: str, there: TruthTable, frames: int) -> Video:
    records = tuple(FrameRecord(NONE, np.zeros(0, np.int64), np.zeros(0, np.float32), NONE,
                                path=Path(name) / f'{n:06d}.JPEG', width=100, height=50)
                    for n in range(frames))
    return Video(name, records, there, there)


@pytest.fixture
def two_videos() -> list[Video]:
    """Return a video of three frames with two objects, and one of two frames with one object."""
    first = truth((0, 0, (0, 0, 10, 10)), (0, 1, (20, 0, 40, 20)), (1, 0, (5, 0, 15, 10)),
                  (1, 1, (20, 0, 40, 20)), (2, 1, (24, 0, 44, 20)), tracks=(0, 1, 0, 1, 1))
    second = truth((1, 2, (0, 0, 10, 10)), tracks=(0,))
    return [videos('val/one', first, 3), videos('val/two', second, 2)]


@pytest.fixture
def publish(tmp_path):
    """Return a function that writes motion IoUs, a list for each frame, and the list of videos."""
    def write(frames: list[list[float]], lines: str, packed: bool = False) -> Path:
        cells = np.empty((len(frames), 1), object)
        for number, values in enumerate(frames):
            cells[number, 0] = np.array(values, float).reshape(-1, 1) if values else (
                np.zeros((1, 0)))
        path = tmp_path / 'motion.mat'
        savemat(path, {'motion_iou': cells})
        name = f'{VIDEO_LIST}.gz' if packed else VIDEO_LIST
        (tmp_path / name).write_bytes(gzip.compress(lines.encode()) if packed
                                      else lines.encode())
        return path
    return write


#: IoU of boxes shifted by half their side, and of squares of 20 pixels shifted by 4
THIRD, TWO_THIRDS = 1 / 3, 2 / 3

PUBLISHED = [[THIRD, (1 + TWO_THIRDS) / 2], [THIRD, (1 + TWO_THIRDS) / 2], [TWO_THIRDS], [], [0.0]]
LINES = 'val/one 1 0 3\nval/two 4 0 2\n'


@pytest.mark.parametrize('packed', [False, True])
def test_published_and_computed_values_agree(two_videos, publish, packed):
    published = load_published(publish(PUBLISHED, LINES, packed))
    computed = from_tracks(two_videos)
    for item, values in zip(two_videos, computed):
        np.testing.assert_allclose(published.of(item), values)
    assert computed[0] == pytest.approx([THIRD, 5 / 6, THIRD, 5 / 6, TWO_THIRDS])


def test_part_of_a_video_is_found_by_the_names_of_its_pictures(two_videos, publish):
    whole = two_videos[0]
    part = Video('one', whole.frames[2:], whole.truth, truth((0, 1, (24, 0, 44, 20))))
    published = load_published(publish(PUBLISHED, LINES))
    assert published.of(part) == pytest.approx([TWO_THIRDS])


def test_frame_without_values_counts_as_fast(two_videos, publish):
    frames = [*PUBLISHED[:4], []]
    assert load_published(publish(frames, LINES)).of(two_videos[1]).tolist() == [0.0]


def test_list_may_have_another_path(two_videos, publish, tmp_path):
    path = publish(PUBLISHED, LINES)
    other = (tmp_path / VIDEO_LIST).rename(tmp_path / 'videos.txt')
    assert len(load_published(path, other).of(two_videos[1])) == 1
    with pytest.raises(EvaluationError, match=f'motion.mat: needs {VIDEO_LIST}'):
        load_published(path)


def test_files_that_do_not_fit_the_videos(two_videos, publish):
    published = load_published(publish([[0.5], *PUBLISHED[1:]], LINES))
    with pytest.raises(EvaluationError, match='1 boxes in frame 000000 of one, but 2 are annot'):
        published.of(two_videos[0])
    with pytest.raises(EvaluationError, match='video three is not in it'):
        published.of(videos('val/three', truth(), 1))
    with pytest.raises(EvaluationError, match='video two has no frame 000002, only 0 to 1'):
        published.of(videos('val/two', truth((1, 2, (0, 0, 10, 10))), 3))
    with pytest.raises(EvaluationError, match='two has no boxes for average precision'):
        published.of(Video('two', two_videos[1].frames, truth()))


@pytest.mark.parametrize('lines, message', [
    ('val/one 1 0\n', 'line 1: must be a name'),
    ('val/one 1 0 x\n', 'line 1: must be a name'),
    ('val/one 1 0 3\nval/two 4 0 3\n', 'line 2: frames 4 to 6, but there are 5'),
    ('val/one 0 0 3\n', 'line 1: frames 0 to 2'),
])
def test_faulty_lists_are_refused(publish, lines, message):
    with pytest.raises(EvaluationError, match=f'{VIDEO_LIST}: {message}'):
        load_published(publish(PUBLISHED, lines))


def test_faulty_files_are_refused(publish, tmp_path):
    path = publish([[1.5]], 'one 1 0 1\n')
    with pytest.raises(EvaluationError, match=r'motion.mat: .*outside \[0, 1\]'):
        load_published(path)
    savemat(path, {'motion_iou': np.zeros(3)})
    with pytest.raises(EvaluationError, match='motion.mat: must have a column of cells'):
        load_published(path)
    savemat(path, {'other': np.zeros(3)})
    with pytest.raises(EvaluationError, match='motion.mat: must have a column of cells'):
        load_published(path)
    path.write_bytes(b'not MATLAB at all' * 20)
    with pytest.raises(EvaluationError, match='motion.mat: not a MATLAB 5 file'):
        load_published(path)
    path.write_bytes(b'')
    with pytest.raises(EvaluationError, match='motion.mat: not a MATLAB 5 file'):
        load_published(path)
    with pytest.raises(EvaluationError, match='none.mat: cannot be read: No such file'):
        load_published(tmp_path / 'none.mat')
    cells = np.empty((1, 1), object)
    cells[0, 0] = 'text'
    savemat(path, {'motion_iou': cells})
    with pytest.raises(EvaluationError, match='motion.mat: motion_iou has a cell without numbers'):
        load_published(path)


@pytest.mark.parametrize('damage', [
    lambda data: data[:60],
    lambda data: data[:200] + bytes([data[200] ^ 255]) + data[201:]], ids=['cut off', 'changed'])
def test_damaged_files_are_refused(publish, damage):
    path = publish(PUBLISHED, LINES)
    savemat(path, {'motion_iou': loadmat(path)['motion_iou']}, do_compression=True)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(EvaluationError, match='motion.mat: not a MATLAB 5 file: [^\n]+$'):
        load_published(path)


def test_packed_list_must_be_packed(publish, tmp_path):
    path = publish(PUBLISHED, LINES, packed=True)
    (tmp_path / f'{VIDEO_LIST}.gz').write_text(LINES)
    with pytest.raises(EvaluationError, match='not a list of videos'):
        load_published(path)
    data = bytearray(gzip.compress(LINES.encode()))
    # The compressed bytes follow a header of ten bytes.
    data[10] ^= 255
    (tmp_path / f'{VIDEO_LIST}.gz').write_bytes(data)
    with pytest.raises(EvaluationError, match='not a list of videos'):
        load_published(path)


def test_missing_library_is_named(publish, monkeypatch):
    path = publish(PUBLISHED, LINES)
    monkeypatch.setitem(sys.modules, 'scipy.io', None)
    with pytest.raises(EvaluationError, match='pip install scipy'):
        load_published(path)


def test_no_tracks_at_all_is_an_error():
    with pytest.raises(EvaluationError, match='no annotated box has a track_id'):
        from_tracks([videos('one', truth((0, 0, (0, 0, 1, 1))), 1)])
