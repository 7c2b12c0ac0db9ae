# SPDX-License-Identifier: Apache-2.0
"""Label many videos, bags and folders of pictures, each in whatever process does the job."""
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
    """How a teacher labels; the same for all jobs."""

    teacher: Location
    kind: str
    min_score: float
    nms_threshold: float
    threads: int
    classes: tuple[str, ...]
    ignore: tuple[str, ...]
    videos: bool  #: See `Labelling`
    root: Path  #: Which file names are relative to; frames are extracted to it
    description: str = ''
    every: int = 1
    topic: str | None = None  #: Of a bag; None if it has but one

    def load_teacher(self) -> Teacher:
        """Open the teacher; raises TeacherError."""
        return open_teacher(kept(self.teacher), self.kind, self.min_score, self.nms_threshold,
                            self.threads)

    def labelling(self, folders: Mapping[str, list[Path]], more: bool = False) -> Labelling:
        """Begin to label folders; see `Labelling`."""
        return Labelling(self.root, dict(folders), self.classes, self.ignore, self.videos,
                         self.description, more)

    def prepare(self) -> Callable[[LabelJob, Progress, StopFlag], LabelledFolder]:
        """Open the teacher, and return the function that does one job with it."""
        torch.set_num_threads(self.threads)
        return partial(_label, self, self.load_teacher())


@dataclass(frozen=True)
class LabelJob:
    """One video or bag, or one folder of pictures."""

    name: str  #: Of its folder, below the root
    source: Location | None = None  #: The video or bag; None: the pictures are there
    pictures: tuple[Path, ...] = ()
    store: PictureStore | None = None  #: Where the pictures are, if they are not at their paths
    known: tuple[LabelledPicture, ...] = ()  #: What is labelled already, from the first one on
    resume: bool = False  #: Whether frames may be there already
    send: bool = False  #: Whether the frames are returned: this may be another machine

    def before(self, root: Path) -> LabelledFolder:
        """Give what is known before the job is done, with file names relative to `root`."""
        return LabelledFolder(
            self.pictures or tuple(root / item.image['file_name'] for item in self.known),
            self.known)


@dataclass(frozen=True)
class LabelledFolder:
    """The result of a job; after an interrupt some of the pictures."""

    paths: tuple[Path, ...]  #: All pictures of the folder, labelled or not
    labelled: tuple[LabelledPicture, ...]
    losses: tuple[str, ...] = ()  #: One line for each thing that could not be read
    frames: bytes | None = None  #: The folder of extracted frames, packed, if it is sent
    error: str = ''  #: Why the pictures that follow are not labelled; empty if nothing failed


def merge(settings: LabelSettings, folders: Sequence[tuple[str, LabelledFolder]], more: bool,
          output: Path) -> Labelling:
    """
    Put folders together, in their order, as if they had been labelled one after the other.

    `more` says whether there are others.  Raises TeacherError, with `output` as the file.
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
        # Below the folder that names are relative to, as they are in the store.
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
    # The folder itself comes before those that somebody may have put into it.
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
        error = str(wrong)  # The labels made so far are worth keeping.
    return LabelledFolder(tuple(paths), tuple(labelling.pictures), error=error)
