# SPDX-License-Identifier: Apache-2.0
"""
Check training data: read it as training does, but collect errors instead of stopping.

The readers of the formats find most errors. This file has the checks that need whole frames, whole
videos or all sources: pictures, sizes, small boxes, empty videos, classes without boxes,
imbalance. It also prints the findings, and tables of classes and sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
import math
from pathlib import Path
import time
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from .findings import Collected, DataError, Findings, Kind, NO_TRACKS, PROBLEM, REMARK, UNREADABLE
from .records import decode_picture, FrameRecord, VideoRecord
from .sources import load_source, SourceConfig
from ..boxes import box_area
from ..layout import plain, table

#: A class with this many times fewer boxes than the most frequent one is a finding.
IMBALANCE = 100
MATCH_IOU = 0.5  #: IoU from which on a box and an anchor match (Liu et al. 2016, section 2.2).

# EXIF orientations that turn the picture by 90 degrees; OpenCV obeys them when it decodes.
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)

#: Called with items, their number and a description of the work; yields the items again.
Progress = Callable[[Iterable, int, str], Iterable]


def silent(things: Iterable, total: int, text: str) -> Iterable:
    """Show no progress."""
    return things


@dataclass(frozen=True)
class CheckConfig:
    """The settings of a check."""

    sample: int | None = 2000  #: Pictures of a source whose header is read, evenly spread, or all
    #: Frames whose annotation is read, if each has its own file, evenly spread; None: all.
    most_annotations: int | None = 60_000
    decode: bool = False  #: Whether to decode every picture with an annotation
    anchor_scale: float = 0.1  #: The network's smallest anchor, a fraction of its input
    tracks: bool = False  #: Whether a video must have a track


@dataclass
class ClassTally:
    """The numbers of one class."""

    videos: int = 0
    frames: int = 0
    areas: list[np.ndarray] = field(default_factory=list)  #: Box area over picture area
    cutouts: int = 0

    @property
    def boxes(self) -> int:
        """Return the number of boxes."""
        return sum(len(area) for area in self.areas)

    @property
    def median_side(self) -> float:
        """Return the median of sqrt(box area / picture area), 0 to 1; NaN without boxes."""
        return float(np.median(np.sqrt(np.concatenate(self.areas)))) if self.boxes else np.nan


@dataclass
class SourceTally:
    """The content of one source."""

    name: str
    data_format: str
    videos: int = 0
    frames: int = 0
    read: int = 0  #: Frames whose annotation was read
    boxes: int = 0  #: Targets in them
    ignored: int = 0  #: Ignore regions in them
    empty: int = 0  #: Frames among them without targets
    pictures: int = 0  #: Pictures among theirs that were read without an error
    seconds: float = 0.0
    has_tracks: bool = False


@dataclass
class CheckResult:
    """Everything that was found."""

    findings: Collected
    classes: dict[str, ClassTally]
    sources: list[SourceTally]

    @property
    def exit_code(self) -> int:
        """0: no problems; 1: problems that harm training; 2: a source cannot be read at all."""
        if self.findings.count(UNREADABLE):
            return 2
        return 1 if self.findings.count(PROBLEM) else 0


def check_sources(sources: Sequence[SourceConfig], root: Path, classes: Sequence[str],
                  config: CheckConfig, most: int | None = None,
                  progress: Progress = silent,
                  cutouts: Callable[[Findings], Iterable[int]] | None = None) -> CheckResult:
    """
    Check the sources of a recipe.

    :param root: folder that their paths start from
    :param most: lines of each kind that are kept; None for all
    :param cutouts: returns the label of every cut-out, or raises DataError, and reports unusable
        ones to its argument; None if there are none
    :returns: also the errors that would be a `DataError` in training; none is raised here
    """
    result = CheckResult(Collected(most), {name: ClassTally() for name in classes}, [])
    for source in sources:
        name = source.annotations + (f' + {source.truth}' if source.truth else '')
        tally = SourceTally(name, source.format)
        result.sources.append(tally)
        begin = time.monotonic()
        try:
            records = load_source(source, root, classes, result.findings)
            _check_records(records, source, classes, config, tally, result, progress)
        except DataError as error:
            result.findings.note(Kind.SOURCE, str(error))
        tally.seconds = time.monotonic() - begin
    if cutouts:
        try:
            for label in cutouts(result.findings):
                result.classes[classes[label]].cutouts += 1
        except DataError as error:
            result.findings.fault(error)
    _check_classes(result)
    tracks = any(tally.has_tracks for tally, source in zip(result.sources, sources)
                 if source.kind == 'video')
    if config.tracks and not tracks and not result.findings.count(UNREADABLE):
        result.findings.fault(DataError(NO_TRACKS))
    return result


def _check_records(records: Sequence[VideoRecord], source: SourceConfig, classes: Sequence[str],
                   config: CheckConfig, tally: SourceTally, result: CheckResult,
                   progress: Progress) -> None:
    findings = result.findings
    tally.videos, tally.frames = len(records), sum(len(record.frames) for record in records)
    # Only frames whose annotation is still to be read cost anything.
    lazy = any(not isinstance(record.frames, tuple) for record in records)
    chosen = _evenly(tally.frames, config.most_annotations if lazy else None)
    sampled = _evenly(len(chosen), None if config.decode else config.sample)
    pictures = set(chosen[sampled].tolist())
    places = progress(_places(records, chosen), len(chosen),
                      f'{source.annotations}: {"pictures" if config.decode else "annotations"}')
    video, seen, boxes = -1, np.zeros(len(classes), dtype=bool), 0
    for number, video_number, index in places:
        if video_number != video:
            _end_video(records, video, seen, boxes, tally, result)
            video, seen, boxes = video_number, np.zeros(len(classes), dtype=bool), 0
        try:
            frame = records[video_number].frames[index]
            tally.read += 1
            seen[frame.labels] = True
            boxes += len(frame.boxes)
            _count(frame, classes, config, tally, result)
            if number in pictures:
                _check_picture(frame, config.decode)
                tally.pictures += 1
        except DataError as error:
            # The reader has already reported a missing file.
            if error.kind is not Kind.MISSING_FILE:
                findings.fault(error)
    _end_video(records, video, seen, boxes, tally, result)


def _evenly(count: int, most: int | None) -> np.ndarray:
    """Return `most` numbers from 0 to count - 1, evenly spread; all if there are no more."""
    if most is None or count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def _places(records: Sequence[VideoRecord], chosen: np.ndarray) -> Iterable[tuple[int, int, int]]:
    """Yield (number of the frame, number of its video, index in it)."""
    starts = np.cumsum([0, *(len(record.frames) for record in records)])
    for number in chosen.tolist():
        video = int(np.searchsorted(starts, number, side='right')) - 1
        yield number, video, number - int(starts[video])


def _count(frame: FrameRecord, classes: Sequence[str], config: CheckConfig, tally: SourceTally,
           result: CheckResult) -> None:
    tally.boxes += len(frame.boxes)
    tally.ignored += len(frame.ignore)
    tally.empty += not len(frame.boxes)
    tally.has_tracks |= bool((frame.tracks >= 0).any())
    areas = box_area(frame.boxes) / (frame.width * frame.height)
    for label in np.unique(frame.labels):
        of_class = result.classes[classes[label]]
        of_class.frames += 1
        of_class.areas.append(areas[frame.labels == label])
    # IoU is at most the ratio of areas, whatever the anchor's aspect and place.
    for number in np.flatnonzero(areas < MATCH_IOU * config.anchor_scale ** 2):
        x0, y0, x1, y1 = frame.boxes[number]
        result.findings.note(Kind.SMALL, (
            f'{frame.path}: {classes[frame.labels[number]]} of {x1 - x0:.0f} x {y1 - y0:.0f} '
            f'pixels at ({x0:.0f}, {y0:.0f}): IoU below {MATCH_IOU:g} with every anchor'))


def _end_video(records: Sequence[VideoRecord], number: int, seen: np.ndarray, boxes: int,
               tally: SourceTally, result: CheckResult) -> None:
    if number < 0:
        return
    for present, of_class in zip(seen, result.classes.values()):
        of_class.videos += int(present)
    if not boxes and len(records[number].frames) > 1:
        result.findings.note(Kind.EMPTY_VIDEO, f'{tally.name}: video {records[number].name} has '
                                               'no box in any frame that was read')


def _check_picture(frame: FrameRecord, whole: bool) -> None:
    """Decode a picture, or read its header alone; raises DataError."""
    if whole:
        decode_picture(frame)
        return
    width, height = picture_size(frame.path)
    if (width, height) != (frame.width, frame.height):
        raise DataError(f'{frame.path}: is {width}x{height} pixels, but its annotation says '
                        f'{frame.width}x{frame.height}', Kind.WRONG_SIZE)


def picture_size(path: Path) -> tuple[int, int]:
    """
    Return width and height that OpenCV will decode a picture to, from its header alone.

    :raises DataError: the file is missing or no picture
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Without the first condition Pillow decodes a whole PNG in search of it.
            turned = 'exif' in image.info and image.getexif().get(_ORIENTATION) in _TURNED
    except UnidentifiedImageError:
        raise DataError(f'{path}: not a picture (or its header is broken)', Kind.PICTURE) from None
    except FileNotFoundError:
        raise DataError(f'{path}: no such file', Kind.MISSING_FILE) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f'{path}: cannot be read: {" ".join(str(error).split())}',
                        Kind.PICTURE) from None
    return (height, width) if turned else (width, height)


def _check_classes(result: CheckResult) -> None:
    if result.findings.count(UNREADABLE):
        # A missing class may be in a source that could not be read.
        return
    findings, counts = result.findings, {name: of_class.boxes
                                         for name, of_class in result.classes.items()}
    frequent = max(counts, key=lambda name: counts[name])
    if not counts[frequent] and not any(item.cutouts for item in result.classes.values()):
        findings.note(Kind.NO_BOXES, 'no source has a box of any class')
        return
    for name, of_class in result.classes.items():
        if not of_class.boxes:
            if of_class.cutouts:
                findings.note(Kind.ONLY_CUTOUTS, f'{name}: no box in any source, only '
                                                 f'{of_class.cutouts} cut-outs')
            else:
                findings.note(Kind.CLASS_WITHOUT_BOXES, f'{name}: no box in any source')
        elif of_class.boxes * IMBALANCE <= counts[frequent]:
            findings.note(Kind.IMBALANCE, f'{name}: {of_class.boxes} boxes, '
                          f'{counts[frequent] / of_class.boxes:.0f} times fewer than {frequent} '
                          f'({counts[frequent]}); see balance in the recipe')


def finding_lines(result: CheckResult) -> list[str]:
    """Return a line for each kept finding, gravest first, and lines with the numbers left out."""
    findings = result.findings
    lines = []
    for severity in (UNREADABLE, PROBLEM, REMARK):
        for kind in Kind:
            if kind.severity != severity or kind not in findings.counts:
                continue
            start = f'{severity}: {kind.title}: '
            kept = findings.lines[kind]
            lines += [start + text for text in kept]
            more = findings.counts[kind] - len(kept)
            if more:
                lines.append(f'{start}{more:,} {"more" if kept else "found"}')
    return lines


def class_table(result: CheckResult) -> list[str]:
    """
    Return the table of classes.

    Its last column is the boxes' median side: sqrt(box area / picture area).
    """
    rows = [('class', 'videos', 'frames', 'boxes', 'cut-outs', 'median side')]
    for name, tally in result.classes.items():
        side = tally.median_side
        rows.append((name, f'{tally.videos:,}', f'{tally.frames:,}', f'{tally.boxes:,}',
                     f'{tally.cutouts:,}', '-' if math.isnan(side) else f'{100 * side:.1f} %'))
    return table(rows[0], rows[1:]).splitlines()


def source_table(result: CheckResult) -> list[str]:
    """Return the table of sources; `read` is the number of frames whose annotation was read."""
    rows = [('source', 'format', 'videos', 'frames', 'read', 'pictures', 'boxes', 'ignored',
             'empty', 'seconds')]
    rows += [(tally.name, tally.data_format, f'{tally.videos:,}', f'{tally.frames:,}',
              f'{tally.read:,}', f'{tally.pictures:,}', f'{tally.boxes:,}', f'{tally.ignored:,}',
              f'{tally.empty:,}', f'{tally.seconds:.1f}') for tally in result.sources]
    return table(rows[0], rows[1:], left=2).splitlines()


def summary_line(result: CheckResult) -> str:
    """Return the verdict."""
    count = result.findings.count
    unreadable = count(UNREADABLE)
    words = [f'{unreadable:,} unreadable'] if unreadable else []
    words += [_plural(count(PROBLEM), PROBLEM), _plural(count(REMARK), REMARK)]
    return ', '.join(words)


def report_lines(result: CheckResult) -> list[str]:
    """Return all lines that the command prints."""
    findings = finding_lines(result)
    # If no source could be read, there is nothing to count.
    tables = ([*class_table(result), '', *source_table(result), '']
              if any(tally.frames for tally in result.sources) or not findings else [])
    return [*findings, *([''] if findings else []), *tables, summary_line(result)]


def plain_findings(result: CheckResult) -> dict[str, Any]:
    """Return everything for JSON: findings by kind with the lines that were kept, and counts."""
    findings = result.findings
    return {
        'findings': [{'severity': kind.severity, 'kind': kind.title,
                      'count': findings.counts[kind], 'lines': findings.lines[kind]}
                     for kind in Kind if kind in findings.counts],
        'classes': {name: {'videos': tally.videos, 'frames': tally.frames, 'boxes': tally.boxes,
                           'cutouts': tally.cutouts, 'median_side': plain(tally.median_side)}
                    for name, tally in result.classes.items()},
        'sources': [asdict(tally) for tally in result.sources]}


def _plural(count: int, word: str) -> str:
    return f'{count:,} {word}{"" if count == 1 else "s"}'
