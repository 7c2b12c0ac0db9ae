# SPDX-License-Identifier: Apache-2.0
"""
Sum up the replays of many bags, and write them as the record of a run.

All figures are computed from the bags' files in the order of the list of bags. So the result does
not depend on the processes and machines that wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
import os
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .bag_replay import SUMMARY_NAME, TABLES_NAME
from .result_files import COCO_NAME, FRAMES_NAME, merge_coco
from ..annotations.findings import DataError
from ..detector.policy import FORECAST, READ
from ..evaluation.accuracy import identity_records
from ..evaluation.evaluation_record import class_accuracies
from ..evaluation.runs import LATENCIES, milliseconds
from ..files import RESULT_MARK, walk, write_json
from ..images.bag_images import is_bag, METADATA_NAME, STORAGE_SUFFIXES
from ..images.video_images import VIDEO_SUFFIXES
from ..jobs.locations import list_files, Location, PICTURES, Url
from ..layout import mean, plain
from ..metrics.tables import (
    DetectionTable,
    join_sequences,
    load_tables,
    recall,
    TruthTable,
)
from ..plain_values import build, parse_plain_json, read_plain_json
from ..recording.recorded_frame import RecordedFrame, summarise_frames
from ..report.noted_frames import changed_frames, marked_box, Watched, worst_frames
from ..report.run_record import Accuracy, NotedFrame, RUN_NAME, RunRecord, save_run, SequenceRecord

BAGS_FOLDER = 'bags'

#: Suffixes of bags and videos; at a URL only the suffix distinguishes a file from a folder.
FILE_SUFFIXES = (*STORAGE_SUFFIXES, '.bag', *VIDEO_SUFFIXES)

DONE = 'done'
FAILED = 'failed'
INTERRUPTED = 'interrupted'
#: States of a bag; `LEFT_OUT`: the run was interrupted before its first image.
LEFT_OUT = 'left out'


@dataclass(frozen=True)
class BagState:
    """The result of one bag of the list."""

    name: str
    path: str
    state: str = LEFT_OUT
    error: str | None = None


def find_bags(paths: Sequence[Location]) -> list[tuple[str, Location]]:
    """
    Return (name, place) of each bag; a folder that is not a bag is searched for bags.

    Names are those of files or folders, with ``-2``, ``-3`` after a repeated name. Raises
    DataError if a path does not exist, or is neither a bag nor a folder of bags; the message names
    its content. Raises LocationError if a URL cannot be listed.
    """
    found: list[Location] = []
    for path in paths:
        if isinstance(path, Url):
            inside: Sequence[Location] = _at_url(path)
        elif not path.exists():
            raise DataError(f'{path}: no such file or folder')
        elif is_bag(path) or not path.is_dir():
            found.append(path)
            continue
        else:
            inside = _inside(path)
        if not inside:
            raise DataError(f'{path}: {_instead_of_bags(path)}')
        found += inside
    counts: dict[str, int] = {}
    named = []
    for path in found:
        name = _name(path)
        counts[name] = counts.get(name, 0) + 1
        named.append((name if counts[name] == 1 else f'{name}-{counts[name]}', path))
    if len({name for name, _ in named}) < len(named):
        raise DataError('the names of the bags are ambiguous: '
                        + ', '.join(sorted(name for name, _ in named)))
    return named


def _instead_of_bags(folder: Location) -> str:
    """Return a message with the content of a folder without bags, and an advice."""
    names = (list(list_files(folder)) if isinstance(folder, Url)
             else [name for _, _, files in walk(folder) for name in files])
    for what, suffixes, advice in (
            ('video', VIDEO_SUFFIXES, 'name the files'),
            ('picture', PICTURES, 'label and demo take folders of pictures, replay does not')):
        count = sum(name.lower().endswith(tuple(suffixes)) for name in names)
        if count:
            return f'holds {count} {what}{"s" * (count > 1)} and no bag; {advice}'
    return 'is no bag, and there is none in it' if names else 'has no files; name a bag or a video'


def _name(bag: Location) -> str:
    if isinstance(bag, Url):
        return bag.stem if bag.name.lower().endswith(FILE_SUFFIXES) else bag.name
    return bag.resolve().name if bag.is_dir() else bag.stem


def _at_url(url: Url) -> list[Url]:
    files = [PurePosixPath(name) for name in list_files(url)]
    if files == [PurePosixPath(url.name)]:
        return [url]
    # As on this machine, a folder with files of a bag is a bag.
    folders = {file.parent for file in files
               if file.name == METADATA_NAME or file.suffix in STORAGE_SUFFIXES}
    bags = {*folders, *(file for file in files
                        if file.suffix == '.bag' and file.parent not in folders)}
    return [url if bag == PurePosixPath() else Url(f'{url.rstrip("/")}/{bag}')
            for bag in sorted(bags) if not any(part.startswith('.') for part in bag.parts)]


def find_videos(folder: Path) -> list[Path]:
    """Return the video files and bags in a folder and all folders below it."""
    return _inside(folder, FILE_SUFFIXES)


def _inside(folder: Path, suffixes: Sequence[str] = ()) -> list[Path]:
    # Real paths, so that linked files count once. Path.resolve fails for a link to itself.
    found: dict[str, Path] = {}
    for place, folders, names in walk(folder):
        for name in (*folders, *names):
            path = Path(place, name)
            taken = path.is_symlink() and os.path.realpath(path) in found
            if not name.startswith('.') and not taken and _is_input(path, suffixes):
                found[os.path.realpath(path)] = path
        folders[:] = [name for name in folders if not name.startswith('.')
                      and os.path.realpath(os.path.join(place, name)) not in found
                      # Unlike Path.exists, it returns False if a folder cannot be read.
                      and not os.path.exists(os.path.join(place, name, RESULT_MARK))]
    return sorted(found.values())


def _is_input(path: Path, suffixes: Sequence[str]) -> bool:
    with suppress(PermissionError):  # `walk` logs such folders.
        return is_bag(path) or path.suffix.lower() in suffixes and path.is_file()
    return False


def write_result(folder: Path, head: dict[str, Any], states: Sequence[BagState]
                 ) -> dict[str, Any]:
    """
    Write summary and detections of all bags with results in `folder`; return the summary.

    :param folder: folder that contains `BAGS_FOLDER`
    :param head: first entries of the summary, with at least the keys `checkpoint`, `labels`,
        `model` and `options`
    :param states: states of all bags, in the order of the list
    """
    summaries: list[dict[str, Any]] = []
    documents: list[dict[str, Any]] = []
    records: list[RecordedFrame] = []
    replayed: list[ReplayedCamera] = []
    scored: list[ScoredCamera] = []
    for state in states:
        if state.state not in (DONE, INTERRUPTED):
            continue
        bag = folder / BAGS_FOLDER / state.name
        summaries.append(read_plain_json(bag / SUMMARY_NAME))
        documents.append(read_plain_json(bag / COCO_NAME))
        cameras = _records(bag / FRAMES_NAME)
        records += [record for frames in cameras.values() for record in frames.values()]
        for topic, tables in load_tables(bag / TABLES_NAME).items():
            name = f'{state.name}{topic}'
            # A camera whose images were all refused has tables but no frames.
            frames = cameras.get(topic, {})
            replayed.append(ReplayedCamera(name, state.path, topic, tuple(frames.values()),
                                           tuple(frames), tables['shown']))
            if 'truth' in tables:
                annotated = tables['annotated']
                shown, low = (_only(tables[key], annotated) for key in ('shown', 'collected'))
                scored.append(ScoredCamera(name, state.path, topic, annotated, shown, low,
                                           tables['truth']))
    record = record_replay(head, replayed, scored,
                           [loss for item in summaries for loss in item['losses']])
    refused = sum(camera['refused'] for item in summaries for camera in item['cameras'].values())
    summary = {
        **head, 'bags': [asdict(state) for state in states],
        'images': len(records) + refused, 'refused': refused,
        **summarise_frames(records, len(records)),
        LATENCIES: {kind: milliseconds(item.latency_ms for item in records
                                       if item.kind == kind and item.latency_ms is not None)
                    for kind in (READ, FORECAST)},
        'accuracy': _accuracy(record, scored),
        'results': {item['name']: item for item in summaries}}
    save_run(folder / RUN_NAME, record)
    write_json(folder / COCO_NAME, merge_coco(documents))
    write_json(folder / SUMMARY_NAME, summary)
    return summary


def _accuracy(record: RunRecord, scored: Sequence[ScoredCamera]) -> dict[str, Any] | None:
    """Return the accuracy over all annotated images of all bags; None without any."""
    if record.accuracy is None:
        return None
    recalls = {item.name: item.recall for item in record.sequences}
    return {
        'frames': sum(len(item.frames) for item in scored),
        'boxes': sum(len(item.truth) for item in scored),
        'mean_recall': record.accuracy.mean_recall, 'ap50': record.accuracy.ap50,
        'classes': {item.label: {'ap50': item.ap50, 'boxes': item.boxes,
                                 'detections': item.detections}
                    for item in record.accuracy.classes},
        'sequences': {item.name: {'frames': len(item.frames), 'boxes': len(item.truth),
                                  'recall': recalls[item.name]} for item in scored}}


def _only(table: DetectionTable, frames: np.ndarray) -> DetectionTable:
    return table.select(np.isin(table.frames, frames))


def _records(path: Path) -> dict[str, dict[int, RecordedFrame]]:
    """Return the frames of a bag by topic and number, in the order of the decisions."""
    records: dict[str, dict[int, RecordedFrame]] = {}
    for line in path.read_text(encoding='utf-8').splitlines():
        fields = parse_plain_json(line)
        topic, number = fields.pop('topic'), fields.pop('frame_index')
        records.setdefault(topic, {})[number] = build(RecordedFrame, fields)
    return records


@dataclass(frozen=True)
class ReplayedCamera:
    """The frames of one topic of a bag."""

    name: str
    path: str  #: Of the bag
    topic: str
    frames: tuple[RecordedFrame, ...]
    #: Numbers of the images in their topic, from 0 on, without refused images.
    numbers: tuple[int, ...]
    shown: DetectionTable  #: Detections with the settings, by the image's number in its topic


@dataclass(frozen=True)
class ScoredCamera:
    """The F annotated frames of one topic of a bag; images are numbered in their topic."""

    name: str
    path: str  #: Of the bag
    topic: str
    #: ``(F,)`` int64: annotated images, with boxes or without, ascending.
    frames: np.ndarray
    shown: DetectionTable  #: Detections with the settings in these frames
    collected: DetectionTable  #: Detections with a low score threshold in these frames
    truth: TruthTable


def record_replay(head: dict[str, Any], cameras: Sequence[ReplayedCamera],
                  scored: Sequence[ScoredCamera], losses: Sequence[str] = ()) -> RunRecord:
    """
    Make the record of a replay.

    :param head: entries of the summary, with at least `labels`, `model`, `options` and `machine`
    :param cameras: all replayed cameras, with unique names
    :param scored: the annotated cameras
    :param losses: one line for each loss of the bags
    """
    labels = head['labels']
    truths = {item.name: item for item in scored}
    identities = identity_records({
        camera.name: (known.shown, _numbers(camera, known.shown), known.truth)
        for camera in cameras if (known := truths.get(camera.name)) is not None})
    sequences = []
    for camera in cameras:
        known = truths.get(camera.name)
        sequences.append(SequenceRecord(
            camera.name, camera.frames, True, None if known is None else len(known.truth),
            None if known is None else plain(recall(known.shown, known.truth)),
            identities.get(camera.name)))
    accuracy, rule = None, ''
    noted: tuple[NotedFrame, ...] = ()
    if scored:
        ap50, classes = class_accuracies(*join_sequences(
            [int(item.frames.max(initial=-1)) + 1 for item in scored],
            [item.collected for item in scored], [item.truth for item in scored]), labels)
        accuracy = Accuracy(
            mean([item.recall for item in sequences if item.boxes is not None]), ap50, classes)
        kinds = {camera.name: {number: frame.kind for number, frame
                               in zip(camera.numbers, camera.frames)} for camera in cameras}
        noted, rule = worst_frames([_watched(item, kinds[item.name]) for item in scored], labels,
                                   True)
    elif len(cameras) == 1:
        noted, rule = _changed(cameras[0], labels)
    bags = list(dict.fromkeys(Path(camera.path).name for camera in cameras))
    topics = sorted({camera.topic for camera in cameras})
    options = head['options']
    return RunRecord(
        _listed([camera.name for camera in cameras], 3) or 'no bag',
        {'bags': _listed(bags, 8), 'topics': _listed(topics, 8), 'lost': _listed(losses, 5),
         **{key: options[key] for key in ('mode', 'latency', 'annotations', 'truth_topic')}},
        head['model'],
        {key: options[key] for key in (
            'policy', 'score_threshold', 'nms_threshold', 'vote_threshold', 'score_memory',
            'classes', 'max_detections', 'max_consecutive_forecasts', 'max_gap_s')},
        {**head['machine'], **{key: head[key] for key in ('device', 'backend', 'precision',
                                                          'threads', 'started', 'command',
                                                          'versions') if key in head}},
        tuple(sequences), accuracy, noted, rule, identities.get(None))


def _numbers(camera: ReplayedCamera, shown: DetectionTable) -> np.ndarray:
    """Return the numbers of objects of detections, ``(N,)`` int64, frame by frame."""
    ids = dict(zip(camera.numbers, (frame.ids for frame in camera.frames)))
    return np.array([int(number) for frame in np.unique(shown.frames).tolist()
                     for number in ids[frame]], np.int64)


def _listed(names: Sequence[str], most: int) -> str | None:
    return ', '.join(names[:most]) + (', ...' if len(names) > most else '') or None


def _watched(item: ScoredCamera, kinds: dict[int, str]) -> Watched:
    return Watched(item.name, int(item.frames.max(initial=-1)) + 1, item.truth, item.shown,
                   lambda number: {'file': _place(item.path), 'position': number,
                                   'topic': item.topic, 'kind': kinds.get(number)})


def _changed(camera: ReplayedCamera, labels: Sequence[str]
             ) -> tuple[tuple[NotedFrame, ...], str]:
    """Return frames with large changes of the number of boxes, and the rule of their choice."""
    changed, rule = changed_frames(camera.name, camera.frames, _place(camera.path))
    numbers = [camera.numbers[item.number] for item in changed]
    shown = camera.shown
    return tuple(
        replace(item, number=number, position=number, topic=camera.topic, found=tuple(
            marked_box(labels[shown.labels[row]], shown.boxes[row], shown.scores[row])
            for row in np.flatnonzero(shown.frames == number)))
        for item, number in zip(changed, numbers)), rule


def _place(path: str) -> str:
    return str(Path(path).absolute())
