# SPDX-License-Identifier: Apache-2.0
"""Motion IoU of annotated boxes: from tracks, or as it was published for ImageNet VID."""

from collections.abc import Sequence
from dataclasses import dataclass
import gzip
from pathlib import Path, PurePath
import zlib

import numpy as np

from .sequences import EvaluationError, Video
from ..errors import one_line
from ..metrics.average_precision import motion_iou
from ..metrics.tables import TruthTable

AUTO = 'auto'  #: In place of a file: motion IoU is computed from tracks

#: Usual name of the list of the published file's videos.
VIDEO_LIST = 'VID_val_videos.txt'


def motion_of(videos: Sequence[Video], source: str, video_list: Path | None = None
              ) -> list[np.ndarray]:
    """
    Return the motion IoU of the boxes for average precision, ``(M,)`` float64 for each sequence.

    :param videos: sequences with boxes for average precision
    :param source: `AUTO` to compute it from tracks, or the published file
    :param video_list: as for `load_published`
    :raises EvaluationError: as `from_tracks`, `load_published` and `PublishedMotion.of` do
    """
    if source == AUTO:
        return from_tracks(videos)
    published = load_published(Path(source), video_list)
    return [published.of(item) for item in videos]


def from_tracks(videos: Sequence[Video]) -> list[np.ndarray]:
    """
    Compute the motion IoU of the boxes for average precision, one array per sequence.

    :raises EvaluationError: if no box has a track
    """
    tables = [_labelled(item) for item in videos]
    if not any((table.tracks >= 0).any() for table in tables):
        raise EvaluationError('motion IoU: no annotated box has a track_id, which is the same for '
                              'an object in all frames')
    return [motion_iou(table) for table in tables]


@dataclass(frozen=True)
class PublishedMotion:
    """The published motion IoU of a set of videos."""

    path: Path  #: File of the values

    #: First frame (from 0 on) and number of frames of each video, by the end of its path.
    videos: dict[str, tuple[int, int]]
    starts: np.ndarray  #: ``(F + 1,)`` int64: the first value of each frame, and their number
    values: np.ndarray  #: float64: motion IoU of each box, frame by frame

    def of(self, item: Video) -> np.ndarray:
        """
        Return the motion IoU of the boxes of one sequence, in the order of the annotation.

        A picture's number in its video is its file's name, from 0 on, as in ImageNet VID. If the
        file has no values for a frame, its boxes have 0, as in FGFA's evaluation.

        :raises EvaluationError: if a video or frame is not in the file, or has another number of
            boxes
        """
        name = PurePath(item.source_name).name
        if name not in self.videos:
            raise EvaluationError(f'{self.path}: video {name} is not in it')
        start, length = self.videos[name]
        truth = _labelled(item)
        result = np.zeros(len(truth))
        for number, record in enumerate(item.frames):
            stem = record.path.stem
            if not stem.isdecimal() or int(stem) >= length:
                raise EvaluationError(f'{self.path}: video {name} has no frame {stem}, only 0 to '
                                      f'{length - 1}')
            frame = start + int(stem)
            values = self.values[self.starts[frame]:self.starts[frame + 1]]
            rows = np.flatnonzero(truth.frames == number)
            if len(values) and len(values) != len(rows):
                raise EvaluationError(f'{self.path}: {len(values)} boxes in frame {stem} of '
                                      f'{name}, but {len(rows)} are annotated')
            if len(values):
                result[rows] = values
        return result


def load_published(path: Path, videos: Path | None = None) -> PublishedMotion:
    """
    Read the motion IoU that was published with FGFA.

    :param path: MATLAB file; its variable ``motion_iou`` is a column of cells, one per frame, with
        the values of the frame's boxes, empty if there are none
    :param videos: list of the videos in order, text or gzip: name, first frame from 1 on, 0,
        number of frames. None for ``VID_val_videos.txt`` or its ``.gz`` in the folder of `path`.
    :raises EvaluationError: if SciPy is missing, or a file is missing or has another form
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise EvaluationError('motion IoU from a .mat file needs SciPy: pip install scipy'
                              ) from None
    try:
        # SciPy's own error does not say that the file is missing.
        with open(path, 'rb') as file:
            cells = loadmat(file, variable_names=['motion_iou']).get('motion_iou')
    except OSError as error:
        raise EvaluationError(f'{path}: cannot be read: {error.strerror or error}') from None
    except Exception as error:  # SciPy raises errors of many classes for a damaged file.
        raise EvaluationError(f'{path}: not a MATLAB 5 file: {one_line(error)}') from None
    if cells is None or cells.dtype != object or cells.ndim != 2 or cells.shape[1] != 1:
        raise EvaluationError(f'{path}: must have a column of cells, motion_iou')
    try:
        parts = [np.asarray(cell, np.float64).ravel() for cell in cells[:, 0]]
    except (TypeError, ValueError):
        raise EvaluationError(f'{path}: motion_iou has a cell without numbers') from None
    values = np.concatenate([np.zeros(0), *parts])
    if np.any((values < 0) | (values > 1) | np.isnan(values)):
        raise EvaluationError(f'{path}: motion_iou has values outside [0, 1]')
    starts = np.cumsum([0, *(len(part) for part in parts)])
    return PublishedMotion(path, _read_list(_list_beside(path) if videos is None else videos,
                                            len(parts)), starts, values)


def _list_beside(path: Path) -> Path:
    for name in (VIDEO_LIST, f'{VIDEO_LIST}.gz'):
        if (path.parent / name).is_file():
            return path.parent / name
    raise EvaluationError(f'{path}: needs {VIDEO_LIST} (or {VIDEO_LIST}.gz) in its folder, the '
                          'list of its videos')


def _read_list(path: Path, frames: int) -> dict[str, tuple[int, int]]:
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == '.gz' else content).decode()
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError, zlib.error) as error:
        raise EvaluationError(f'{path}: not a list of videos: {error}') from None
    except OSError as error:
        raise EvaluationError(f'{path}: cannot be read: {error.strerror or error}') from None
    videos = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) != 4 or not all(word.isdecimal() for word in words[1:]):
            raise EvaluationError(f'{path}: line {number}: must be a name, its first frame, 0, '
                                  'and its number of frames')
        start, length = int(words[1]) - 1, int(words[3])
        if not 0 <= start <= start + length <= frames:
            raise EvaluationError(f'{path}: line {number}: frames {start + 1} to '
                                  f'{start + length}, but there are {frames}')
        videos[PurePath(words[0]).name] = (start, length)
    return videos


def _labelled(item: Video) -> TruthTable:
    if item.labelled is None:
        raise EvaluationError(f'motion IoU: {item.name} has no boxes for average precision')
    return item.labelled
