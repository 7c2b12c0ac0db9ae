# SPDX-License-Identifier: Apache-2.0
"""Label pictures, videos or bags by a teacher, and write COCO-video JSON with scores."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
import logging
from pathlib import Path
from time import monotonic

import torch

from .options import (
    add_engine,
    add_nms_threshold,
    add_threads,
    asked_output,
    engine_of,
    fraction,
    outputs_at,
    positive,
)
from .shell import (
    check_output,
    DONE,
    FAILURE,
    print_result,
    run_verb,
    say,
    show_many,
    show_progress,
    verb_parser,
)
from ..errors import InputError
from ..files import write_json
from ..images.bag_images import is_bag
from ..images.extract_frames import extract_frames
from ..jobs.engine import Interrupt, Job, run_many
from ..jobs.locations import (
    kept,
    Location,
    location,
    name_of,
    picture_store,
    PictureStore,
    unpack,
    Url,
)
from ..labelling.label_folders import (
    check_teacher_classes,
    is_partial,
    label_into,
    LabelledPicture,
    Labelling,
    picture_folders,
    SAVE_EVERY_S,
)
from ..labelling.label_jobs import LabelJob, LabelledFolder, LabelSettings, merge
from ..labelling.teacher import Teacher, TeacherError
from ..labelling.teacher_kinds import AUTO, digest, KINDS
from ..replay.collect import FILE_SUFFIXES, find_bags, find_videos

_log = logging.getLogger(__name__)


def video_jobs(options: argparse.Namespace, settings: LabelSettings) -> list[LabelJob]:
    """Return a job for each video or bag; raises InputError."""
    known = _known(options, settings)
    send = options.engine is not None
    jobs = [LabelJob(name, source, known=tuple(known.pop(name, ())), resume=options.resume,
                     send=send) for name, source in find_bags(options.sources)]
    if known:
        raise TeacherError(f'{options.output}: has labels of {next(iter(known))}, which is not '
                           'among the sources; name this source, too, or another --output')
    return jobs


def picture_jobs(options: argparse.Namespace, settings: LabelSettings,
                 store: PictureStore | None) -> list[LabelJob]:
    """Return a job for each folder of pictures; raises TeacherError."""
    folders = picture_folders(settings.root, options.folders)
    labelling = settings.labelling(folders)
    if options.resume and options.output.exists():
        labelling.resume(options.output)
    known: dict[str, list[LabelledPicture]] = {}
    for picture in labelling.pictures:
        known.setdefault(picture.image['file_name'], []).append(picture)
    return [LabelJob(name, pictures=tuple(paths), store=store, known=tuple(
        picture for path in paths
        for picture in known.get(path.relative_to(settings.root).as_posix(), ())))
        for name, paths in folders.items()]


def _known(options: argparse.Namespace, settings: LabelSettings
           ) -> dict[str, list[LabelledPicture]]:
    known: dict[str, list[LabelledPicture]] = {}
    if options.resume and options.output.exists():
        for picture in settings.labelling({}).written(options.output):
            known.setdefault(picture.image['video'], []).append(picture)
    return known


def label_many(options: argparse.Namespace, settings: LabelSettings,
               label_jobs: Sequence[LabelJob]) -> int:
    """
    Label all sources, write the labels, and name the sources that failed; return the exit code.

    Raises InputError if nothing could be labelled, KeyboardInterrupt after an interrupt.
    """
    jobs = [Job(number, job.name, job) for number, job in enumerate(label_jobs)]
    folders: dict[int, LabelledFolder] = {}
    failures: dict[int, str] = {}
    saved = monotonic()
    with Interrupt() as interrupt, show_progress('labelled') as show:
        for outcome in run_many(engine_of(options), settings.prepare, jobs, (InputError,),
                                interrupt, show_many(show, len(jobs))):
            number, value = outcome.job.number, outcome.value
            if outcome.error is not None:
                failures[number] = outcome.error
                continue
            if value.error:
                failures[number] = value.error
            if value.labelled or not value.error:
                folders[number] = value
            for line in value.losses:
                _log.warning('%s', line)
            if value.frames is not None and not (settings.root / outcome.job.name).exists():
                unpack(value.frames, settings.root / outcome.job.name)
            if monotonic() - saved > SAVE_EVERY_S:
                _save(options, settings, jobs, folders)
                saved = monotonic()
    labelling = _save(options, settings, jobs, folders) if folders else None
    for number, error in sorted(failures.items()):
        say('label', f'left out: {jobs[number].name}: {error}')
    if interrupt.is_set:
        raise KeyboardInterrupt
    if labelling is None:
        raise InputError('nothing could be labelled')
    _tell(options, labelling)
    return FAILURE if failures else DONE


def _tell(options: argparse.Namespace, labelling: Labelling) -> None:
    place = asked_output(options) or options.output
    print_result(options, {'output': str(place), 'pictures': labelling.total,
                           'boxes': labelling.boxes},
                 f'{place}: {labelling.total} pictures, {labelling.boxes} boxes')


def _save(options: argparse.Namespace, settings: LabelSettings, jobs: Sequence[Job],
          folders: dict[int, LabelledFolder]) -> Labelling:
    # Labels of an earlier run stay, even if their source fails in this run.
    present = [(job.name, folders.get(job.number) or job.argument.before(settings.root))
               for job in jobs if job.number in folders or job.argument.known]
    labelling = merge(settings, present, len(folders) < len(jobs), options.output)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.output, labelling.document(), indent=None, nan=True)
    return labelling


VERB = 'label'

#: Person, the classes that ImageNet VID and COCO share, and furniture.
CLASSES = ('person', 'airplane', 'bear', 'bicycle', 'bird', 'bus', 'car', 'cattle', 'dog', 'cat',
           'elephant', 'horse', 'motorcycle', 'sheep', 'train', 'watercraft', 'zebra', 'chair',
           'dining_table', 'bottle', 'sofa', 'tv')


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; its exit code is 1 when a source failed (the others are done)."""
    parser = make_parser()
    options = parser.parse_args(args)

    def work(chosen: argparse.Namespace) -> int:
        extracts = _check(parser, chosen)
        if isinstance(chosen.frames, Path):
            check_output('--frames', chosen.frames, True)
        with outputs_at(chosen, 'output', 'frames'):
            return _label(chosen, extracts)

    return run_verb(VERB, options, work,
                    interrupted='interrupted; the same command with --resume continues',
                    files=('output',))


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> bool:
    """Find the sources; return True for videos and bags, False for folders of pictures."""
    if options.frames is not None:
        options.sources = [path for source in options.sources for path in _opened(source)]
    extracts = [not isinstance(source, Url) and (source.is_file() or is_bag(source))
                or isinstance(source, Url) and source.name.lower().endswith(FILE_SUFFIXES)
                for source in options.sources]
    first = options.sources[0]
    if options.resume and isinstance(options.output, Url):
        parser.error('--resume needs an --output on this machine')
    if len(set(extracts)) > 1:
        parser.error('videos and bags need another call than folders of pictures')
    if not extracts[0] and len(extracts) > 1:
        parser.error(f'{options.sources[1]} is a second folder of pictures: name the folder '
                     'that both are in, and them with --folders')
    if extracts[0] and options.frames is None:
        parser.error(f'{first} is a video or a bag: name a folder for its frames with --frames')
    for name, given in (('--frames', options.frames), ('--topic', options.topic),
                        ('--every', options.every != 1)):
        if given and not extracts[0] and (isinstance(first, Url) or first.is_dir()):
            parser.error(f'{name} is for videos and bags, and there is none in {first}')
    for name, given in (('--folders', options.folders), ('--stills', options.stills)):
        if given and extracts[0]:
            parser.error(f'{name} is for folders of pictures')
    return extracts[0]


def _opened(source: Location) -> Sequence[Location]:
    """Return the videos and bags of a folder; if there are none, the source itself."""
    if isinstance(source, Url) or is_bag(source) or not source.is_dir():
        return [source]
    return find_videos(source) or [source]


def _label(options: argparse.Namespace, extracts: bool) -> int:
    output = options.output
    if not options.resume and is_partial(output):
        raise TeacherError(f'{output}: is incomplete; continue it with --resume, or delete it')
    check_teacher_classes((*options.classes, *options.ignore))
    torch.set_num_threads(options.threads)
    store = None
    root = options.frames
    if not extracts:
        root = options.sources[0]
        if isinstance(root, Url):
            store = picture_store(root)
            root = store.folder
    settings = LabelSettings(
        options.teacher, options.teacher_kind, options.min_score, options.nms_threshold,
        options.threads, tuple(options.classes), tuple(options.ignore), not options.stills, root,
        every=options.every, topic=options.topic)
    teacher = settings.load_teacher()
    settings = replace(settings, description=(
        f'labels by {name_of(options.teacher)} ({teacher.kind}, SHA-256 '
        f'{digest(kept(options.teacher))}...), score >= {options.min_score:g}, class-wise NMS '
        f'{options.nms_threshold:g}; boxes xywh in pixels of the stored pictures; '
        f'ignore_annotations: {", ".join(options.ignore) or "none"}'))
    jobs = (video_jobs(options, settings) if extracts
            else picture_jobs(options, settings, store))
    # If one process does all the work, it can save each picture's labels.
    if engine_of(options).is_here(len(jobs)) and store is None and (
            not extracts or len(jobs) == 1 and not isinstance(options.sources[0], Url)):
        _label_here(options, settings, teacher, extracts)
        return DONE
    return label_many(options, settings, jobs)


def _label_here(options: argparse.Namespace, settings: LabelSettings, teacher: Teacher,
                extracts: bool) -> None:
    output, folders = options.output, options.folders
    if extracts:
        with show_progress('frames') as show:
            extraction = extract_frames(options.sources[0], options.frames, options.every,
                                        options.topic, options.resume, show)
        for line in extraction.losses:
            _log.warning('%s', line)
        _log.info('%s: %d frames', extraction.folder, extraction.frames)
        folders = [extraction.folder.name]
    labelling = settings.labelling(picture_folders(settings.root, folders))
    if options.resume and output.exists():
        labelling.resume(output)
        _log.info('%s: %d of %d pictures are labelled already', output, labelling.labelled,
                  labelling.total)
    with show_progress('labelled') as show:
        label_into(output, labelling, teacher.detect,
                   lambda: show(labelling.labelled, labelling.total))
    _tell(options, labelling)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = verb_parser(VERB, 'SOURCE... --teacher FILE --output FILE', __doc__)
    parser.add_argument('sources', type=location, nargs='+', metavar='SOURCE',
                        help='folder of pictures; with --frames: videos, bags, folders of them')
    parser.add_argument('--folders', nargs='+', default=[], metavar='NAME',
                        help='label only these folders in SOURCE')
    parser.add_argument('--frames', type=location, metavar='FOLDER',
                        help='write frames of a video or bag here, as JPEG')
    parser.add_argument('--every', type=positive, default=1, metavar='N',
                        help='take every N-th frame of a video or bag (default 1)')
    parser.add_argument('--topic', metavar='T',
                        help='topic of images; needed if a bag has several')
    parser.add_argument('--teacher', type=location, required=True, metavar='FILE',
                        help='.onnx or .xml of a detector, or .yaml of several')
    parser.add_argument('--teacher-kind', choices=[AUTO, *KINDS], default=AUTO, metavar='NAME',
                        help=f'{", ".join(KINDS)} (default {AUTO}: found by the outputs)')
    parser.add_argument('--output', type=location, required=True, metavar='FILE',
                        help='COCO-video JSON')
    parser.add_argument('--resume', action='store_true',
                        help='continue an earlier run')
    parser.add_argument('--stills', action='store_true',
                        help='the pictures of a folder are no video')
    parser.add_argument('--classes', nargs='+', default=list(CLASSES), metavar='NAME',
                        help='classes of COCO, with _ for blanks '
                        f'(default {" ".join(CLASSES)})')
    parser.add_argument('--ignore', nargs='*', default=['truck'], metavar='NAME',
                        help='classes that are neither objects nor background (default truck)')
    parser.add_argument('--min-score', type=fraction, default=0.2, metavar='S',
                        help='boxes of a lower score are not written (default 0.2)')
    add_nms_threshold(parser, 0.45)
    add_threads(parser)
    add_engine(parser.add_argument_group('many sources'))
    return parser
