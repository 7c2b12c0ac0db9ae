# SPDX-License-Identifier: Apache-2.0
"""Label many videos, bags and folders of pictures, one job each, in one or more processes."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from .label_folders import LabelledPicture, Labelling, picture_folders
from .teacher import Teacher, TeacherError
from .teacher_kinds import open_teacher
from ..images.extract_frames import extract_frames
from ..jobs.engine import Progress, StopFlag, StoppedError
from ..jobs.locations import fetched, kept, Location, pack, PictureStore


@dataclass(frozen=True)
class LabelSettings:
    """The settings of a teacher, the same for all jobs."""

    teacher: Location
    kind: str
    min_score: float
    nms_threshold: float
    threads: int
    classes: tuple[str, ...]
    ignore: tuple[str, ...]
    videos: bool  #: See `Labelling`
    root: Path  #: Folder of relative file names, and of extracted frames
    description: str = ''
    every: int = 1
    topic: str | None = None  #: Topic of a bag; None if it has only one

    def load_teacher(self) -> Teacher:
        """Open the teacher; raises TeacherError."""
        return open_teacher(kept(self.teacher), self.kind, self.min_score, self.nms_threshold,
                            self.threads)

    def labelling(self, folders: Mapping[str, list[Path]], more: bool = False) -> Labelling:
        """Return the empty `Labelling` of folders."""
        return Labelling(self.root, dict(folders), self.classes, self.ignore, self.videos,
                         self.description, more)

    def prepare(self) -> Callable[[LabelJob, Progress, StopFlag], LabelledFolder]:
        """Open the teacher, and return the function that does a job."""
        torch.set_num_threads(self.threads)
        return partial(_label, self, self.load_teacher())


@dataclass(frozen=True)
class LabelJob:
    """One video or bag, or one folder of pictures."""

    name: str  #: Name of its folder, below the root
    source: Location | None = None  #: The video or bag; None for a folder of pictures
    pictures: tuple[Path, ...] = ()
    store: PictureStore | None = None  #: Contains the pictures, if they are not at their paths
    known: tuple[LabelledPicture, ...] = ()  #: Earlier labels of the first pictures
    resume: bool = False  #: Whether extracted frames may exist already
    send: bool = False  #: Whether to return the frames, for a job on another machine

    def before(self, root: Path) -> LabelledFolder:
        """Return the earlier labels, with file names relative to `root`."""
        return LabelledFolder(
            self.pictures or tuple(root / item.image['file_name'] for item in self.known),
            self.known)


@dataclass(frozen=True)
class LabelledFolder:
    """The result of a job; after an interrupt some of the pictures."""

    paths: tuple[Path, ...]  #: All pictures of the folder, labelled or not
    labelled: tuple[LabelledPicture, ...]
    losses: tuple[str, ...] = ()  #: One line for each part that could not be read
    frames: bytes | None = None  #: The packed folder of extracted frames, if it is sent
    error: str = ''  #: Why the other pictures are not labelled; empty without an error


def merge(settings: LabelSettings, folders: Sequence[tuple[str, LabelledFolder]], more: bool,
          output: Path) -> Labelling:
    """
    Join the labels of folders, in their order, as if one process had labelled them.

    :param more: whether there are further folders
    :param output: the file that a TeacherError names
    """
    labelling = settings.labelling({name: list(item.paths) for name, item in folders}, more)
    labelling.take((picture for _, item in folders for picture in item.labelled), output)
    return labelling


def _label(settings: LabelSettings, teacher: Teacher, job: LabelJob, progress: Progress,
           interrupt: StopFlag) -> LabelledFolder:
    if job.source is None:
        return _label_pictures(settings, teacher, job, progress, interrupt)
    if not job.send:
        return _label_videos(settings, teacher, job, progress, interrupt)
    with TemporaryDirectory(prefix='forecast_detector_') as root:
        here = replace(settings, root=Path(root))
        done = _label_videos(here, teacher, job, progress, interrupt)
        return replace(done, frames=pack(Path(root) / job.name), paths=tuple(
            settings.root / path.relative_to(root) for path in done.paths))


def _label_pictures(settings: LabelSettings, teacher: Teacher, job: LabelJob, progress: Progress,
                    interrupt: StopFlag) -> LabelledFolder:
    if job.store is None:
        return _run(settings, teacher, job, job.pictures, progress, interrupt)
    with job.store.fetched(job.pictures) as paths:
        # Paths below the root, as in the store.
        depth = len(job.pictures[0].relative_to(settings.root).parts)
        here = replace(settings, root=paths[0].parents[depth - 1])
        done = _run(here, teacher, job, paths, progress, interrupt)
        return replace(done, paths=job.pictures)


def _label_videos(settings: LabelSettings, teacher: Teacher, job: LabelJob, progress: Progress,
                  interrupt: StopFlag) -> LabelledFolder:
    assert job.source is not None

    def extracted(frames: int, expected: int) -> None:
        if interrupt.is_set:
            raise StoppedError
        progress(0, expected)

    with fetched(job.source) as source:
        extraction = extract_frames(source, settings.root, settings.every, settings.topic,
                                    job.resume, extracted, job.name)
    # The first entry is the folder itself; a user may have added subfolders.
    paths, *_ = picture_folders(settings.root, [job.name]).values()
    return replace(_run(settings, teacher, job, paths, progress, interrupt),
                   losses=extraction.losses)


def _run(settings: LabelSettings, teacher: Teacher, job: LabelJob, paths: Sequence[Path],
         progress: Progress, interrupt: StopFlag) -> LabelledFolder:
    labelling = settings.labelling({job.name: list(paths)})
    labelling.take(job.known, settings.root)
    error = ''
    try:
        for _ in labelling.run(teacher.detect):
            progress(labelling.labelled, labelling.total)
            if interrupt.is_set:
                break
    except TeacherError as wrong:
        error = str(wrong)  # The labels so far are kept.
    return LabelledFolder(tuple(paths), tuple(labelling.pictures), error=error)
