# SPDX-License-Identifier: Apache-2.0
"""
Ground truth of MOTChallenge (MOT16, MOT17, MOT20), and of sets in its format.

    MOT17/train/MOT17-02-FRCNN/seqinfo.ini
    MOT17/train/MOT17-02-FRCNN/gt/gt.txt
    MOT17/train/MOT17-02-FRCNN/img1/000001.jpg

A line of gt.txt is `frame, id, left, top, width, height, consider, class, visibility` (Milan et
al. 2016, "MOT16: A Benchmark for Multi-Object Tracking", arXiv:1603.00831, section 3.3). Frames
and pixels count from 1 (motchallenge.net/instructions): left 1 is the left edge, 0 here.
"""
from __future__ import annotations

from collections.abc import Sequence
import configparser
from dataclasses import dataclass
import os
from pathlib import Path

from .findings import check_classes, DataError, Findings, Kind, Strict
from .imagenet_lists import read_lines
from .records import (
    box_in_picture,
    FrameBoxes,
    MOST_TRACKS,
    names_in,
    PictureFolder,
    read_videos,
    UNKNOWN_TRACK,
    VideoRecord,
)

#: Class ids: 1 to 12 of Milan et al. 2016, section 3.3; 13 is MOT20's.
MOT_CLASSES = {
    1: 'pedestrian', 2: 'person on vehicle', 3: 'car', 4: 'bicycle', 5: 'motorbike',
    6: 'non motorized vehicle', 7: 'static person', 8: 'distractor', 9: 'occluder',
    10: 'occluder on the ground', 11: 'occluder full', 12: 'reflection', 13: 'crowd'}
PEDESTRIAN = 1

#: Class ids that can be targets, under the names of this package's recipes.
TARGETS = {PEDESTRIAN: 'person', 3: 'car', 4: 'bicycle', 5: 'motorcycle'}
#: Boxes with a smaller visible part become ignore regions, as with `AugmentConfig.min_visible`.
MIN_VISIBILITY = 0.3


@dataclass(frozen=True)
class _Sequence:
    """The content of seqinfo.ini."""

    folder: str  #: Folder of the pictures, relative to that of the sequence
    length: int
    width: int
    height: int
    extension: str

    def picture(self, frame: int) -> str:
        return f'{frame:06d}{self.extension}'


def load_mot(annotations: str | Path, images: str | Path, classes: Sequence[str],
             list_file: str | Path | None = None, min_visibility: float = MIN_VISIBILITY,
             findings: Findings | None = None, outside: bool = False) -> list[VideoRecord]:
    """
    Read sequences of MOTChallenge.

    A pedestrian is a target if `person` is a class and the line's flag is set. Cars, bicycles and
    motorbikes are targets if `car`, `bicycle` and `motorcycle` are classes; the flag does not
    apply to vehicles. All others, and boxes below `min_visibility`, are ignore regions: sitting or
    riding persons, distractors, occluders, reflections, crowds.

    :param annotations: folder of the sequences, such as `MOT17/train`
    :param images: folder of the sequences with their pictures; as distributed, the same
    :param classes: names; a label is an index into them
    :param list_file: names of sequences, one per line; a first line `name`, as in MOTChallenge's
        lists, is skipped. None: all folders with a seqinfo.ini.
    :param min_visibility: from 0 to 1
    :param findings: receives the errors; default: the first one is raised
    :param outside: whether names and symbolic links may lead out of the two folders
    :returns: in the order of the list, or of the names
    :raises DataError: one line: the file, the entry, and what is wrong with it
    """
    annotations, images = Path(annotations), Path(images)
    findings = Strict() if findings is None else findings
    index = {name: label for label, name in enumerate(classes)}
    labels = {number: index[name] for number, name in TARGETS.items() if name in index}
    check_classes(classes, TARGETS.values(), f'{annotations}', findings)
    folders = PictureFolder(annotations, outside), PictureFolder(images, outside)
    return read_videos(_names(annotations, list_file), lambda named: _read(
        named[1], named[0], *folders, labels, min_visibility, findings), findings,
        f'{list_file or annotations}: no usable sequence')


def _names(annotations: Path, list_file: str | Path | None) -> list[tuple[str, str]]:
    if list_file is not None:
        lines = read_lines(Path(list_file))
        return lines[1:] if lines[0][1] == 'name' else lines
    if not annotations.is_dir():
        raise DataError(f'{annotations}: no such folder of sequences', Kind.SOURCE)
    return sorted((str(path.parent), path.parent.name)
                  for path in annotations.glob('*/seqinfo.ini'))


def _read(name: str, where: str, annotations: PictureFolder, images: PictureFolder,
          labels: dict[int, int], min_visibility: float, findings: Findings) -> VideoRecord:
    about = annotations.place(f'{name}/seqinfo.ini', where, 'sequence')
    sequence = _seqinfo(about, where)
    path = annotations.place(f'{name}/gt/gt.txt', where, 'sequence')
    if not path.is_file():
        raise DataError(f'{where}: no file {path}; the test sequences have none',
                        Kind.MISSING_FILE)
    frames = {number: FrameBoxes() for number in range(1, sequence.length + 1)}
    seen: set[tuple[int, int]] = set()
    for line_where, line in read_lines(path, Kind.BROKEN):
        try:
            _take(line, line_where, sequence, frames, seen, labels, min_visibility, findings)
        except DataError as error:
            findings.fault(error)
    folder = os.path.join(name, sequence.folder)
    there = names_in(images.place(folder, f'{about}', 'imDir'), where)
    records = []
    for number, boxes in frames.items():
        try:
            picture = images.place(f'{folder}/{sequence.picture(number)}', f'{about}', 'picture')
            if picture.name not in there:
                raise DataError(f'{where}: no file {picture}', Kind.MISSING_FRAME)
        except DataError as error:
            findings.fault(error)
            continue
        records.append(boxes.record(picture, sequence.width, sequence.height))
    if not records:
        raise DataError(f'{where}: {name} has no frames', Kind.MISSING_FRAME)
    return VideoRecord(name, tuple(records))


def _seqinfo(path: Path, where: str) -> _Sequence:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding='utf-8') as file:
            parser.read_file(file)
    except OSError as error:
        raise DataError(f'{where}: {path} cannot be read: {error.strerror}',
                        Kind.MISSING_FILE) from None
    except (configparser.Error, UnicodeDecodeError) as error:
        raise DataError(f'{path}: not an INI file: {" ".join(str(error).split())}') from None
    if 'Sequence' not in parser:
        raise DataError(f'{path}: no section [Sequence]')
    values = parser['Sequence']
    numbers = []
    for key in ('seqLength', 'imWidth', 'imHeight'):
        text = values.get(key, '')
        if not text.isdecimal() or int(text) < 1:
            raise DataError(f'{path}: {key} is {text!r:.40}; it must be a whole number from 1 on')
        numbers.append(int(text))
    length, width, height = numbers
    return _Sequence(values.get('imDir', 'img1'), length, width, height,
                     values.get('imExt', '.jpg'))


def _take(line: str, where: str, sequence: _Sequence, frames: dict[int, FrameBoxes],
          seen: set[tuple[int, int]], labels: dict[int, int], min_visibility: float,
          findings: Findings) -> None:
    values = line.split(',')
    if len(values) != 9:
        raise DataError(f'{where}: has {len(values)} values; it must have 9: frame, id, left, '
                        'top, width, height, consider, class, visibility')
    try:
        frame, track, consider, category = (int(values[place]) for place in (0, 1, 6, 7))
        left, top, width, height, visibility = (float(values[place]) for place in (2, 3, 4, 5, 8))
    except ValueError:
        raise DataError(f'{where}: is {line!r:.80}; frame, id, consider and class must be whole '
                        'numbers, the others numbers') from None
    if frame not in frames:
        raise DataError(f'{where}: frame is {frame}; seqinfo.ini says 1 to {sequence.length}')
    if category not in MOT_CLASSES:
        raise DataError(f'{where}: class is {category}; it must be from 1 to 13',
                        Kind.UNKNOWN_CATEGORY)
    if not 0 <= visibility <= 1:
        raise DataError(f'{where}: visibility is {visibility:g}; it must be from 0 to 1')
    if not -1 <= track < MOST_TRACKS:
        raise DataError(f'{where}: id is {track}; it must be from -1, for unknown, to below 2**62')
    if track != UNKNOWN_TRACK and (frame, track) in seen:
        raise DataError(f'{where}: id {track} is twice in frame {frame}', Kind.DUPLICATE)
    seen.add((frame, track))
    box = box_in_picture((left - 1, top - 1, left - 1 + width, top - 1 + height),
                         sequence.width, sequence.height, where, findings)
    if box is None:
        return
    label = labels.get(category)
    meant = consider != 0 or category != PEDESTRIAN
    if label is not None and meant and visibility >= min_visibility:
        frames[frame].add(box, label, where, findings, track=track)
    else:
        frames[frame].add_ignore(box)
