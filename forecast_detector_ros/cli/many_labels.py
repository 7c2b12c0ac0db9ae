# SPDX-License-Identifier: Apache-2.0
"""Run the teacher of `label` over many sources, by whatever engine the options name."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import logging
from time import monotonic

from .engine_options import engine_of
from .progress import show_progress
from .shell import DONE, FAILURE, print_result, say
from ..errors import InputError
from ..files import write_atomically
from ..jobs.engine import run_many
from ..jobs.job import Interrupt, Job
from ..jobs.locations import PictureStore, unpack
from ..labelling.label_folders import LabelledPicture, Labelling, picture_folders, SAVE_EVERY_S
from ..labelling.label_jobs import LabelJob, LabelledFolder, LabelSettings, merge
from ..replay.collect import find_bags

_log = logging.getLogger(__name__)


def footage_jobs(options: argparse.Namespace, settings: LabelSettings) -> list[LabelJob]:
    """Return a job for each video or bag; raises InputError."""
    known = _known(options, settings)
    send = options.engine is not None
    return [LabelJob(name, source, known=tuple(known.get(name, ())), resume=options.resume,
                     send=send) for name, source in find_bags(options.sources)]


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
    Label all sources, write what came out, and name those that failed; give the exit code.

    Raises InputError if there is nothing to write, KeyboardInterrupt after an interrupt.
    """
    jobs = [Job(number, job.name, job) for number, job in enumerate(label_jobs)]
    folders: dict[int, LabelledFolder] = {}
    failures: dict[int, str] = {}
    done: dict[int, tuple[int, int]] = {}
    saved = monotonic()
    with Interrupt() as interrupt, show_progress('labelled') as show:
        def tell(job: Job, pictures: int, total: int) -> None:
            done[job.number] = pictures, total
            # Sources that are not open yet are taken to be as long as the others on average.
            known = sum(total for _, total in done.values())
            show(sum(pictures for pictures, _ in done.values()), known * len(jobs) // len(done))

        for outcome in run_many(engine_of(options), settings.prepare, jobs, (InputError,),
                                interrupt, tell):
            number, value = outcome.job.number, outcome.value
            if outcome.error is not None:
                failures[number] = outcome.error
                continue
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
    print_result(options, {'output': str(options.output), 'pictures': labelling.total,
                           'boxes': labelling.boxes},
                 f'{options.output}: {labelling.total} pictures, {labelling.boxes} boxes')
    return FAILURE if failures else DONE


def _save(options: argparse.Namespace, settings: LabelSettings, jobs: Sequence[Job],
          folders: dict[int, LabelledFolder]) -> Labelling:
    present = [(jobs[number].name, folders[number]) for number in sorted(folders)]
    labelling = merge(settings, present, len(folders) < len(jobs), options.output)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.output, (json.dumps(labelling.document()) + '\n').encode())
    return labelling
