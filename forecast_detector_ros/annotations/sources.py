# SPDX-License-Identifier: Apache-2.0
"""The settings of an annotated set of videos or stills in any format, and reading it."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from .findings import DataError, Findings, Kind, Strict
from .imagenet_vid import DET_PERSON, FRAMES, load_det, load_vid, VID_CLASSES
from .json_entries import category_names
from .mot import load_mot, MIN_VISIBILITY, TARGETS
from .records import PictureFolder, VideoRecord
from .video_json import load_video_json

#: Values of a source's `format`.
COCO_VIDEO, IMAGENET_VID, IMAGENET_DET, MOT = FORMATS = (
    'coco_video', 'imagenet_vid', 'imagenet_det', 'mot')
_IMAGENET = (IMAGENET_VID, IMAGENET_DET)

#: Settings that only some formats have: the default, and these formats.
_SPECIAL = {
    'truth': ('', (COCO_VIDEO,)),
    'min_score': (0.0, (COCO_VIDEO,)), 'ignore_score': (0.0, (COCO_VIDEO,)),
    'list_file': ('', (*_IMAGENET, MOT)), 'split': ('train', _IMAGENET),
    'frames': ('snippet', (IMAGENET_VID,)), 'min_visibility': (MIN_VISIBILITY, (MOT,))}


@dataclass(frozen=True)
class SourceConfig:
    """
    One annotated set of videos or stills.

    :raises DataError: if a value is impossible, or is set for a format without this setting
    """

    #: Relative to the data root: a COCO-video JSON; `Annotations/VID` or `Annotations/DET` of
    #: ImageNet; the folder of the sequences of MOTChallenge.
    annotations: str
    #: Folder that the pictures' names start from, relative to the data root: that of the JSON's
    #: `file_name`; `Data/VID` or `Data/DET`; for MOTChallenge the same as `annotations`.
    images: str
    #: One of `FORMATS`.
    format: str = COCO_VIDEO  # noqa: A003
    kind: str = 'video'  #: `video`, or `still` for pictures that become clips by synthetic motion
    min_score: float = 0.0  #: coco_video: smallest score of a target
    #: coco_video: boxes with a score from this to `min_score` are ignore regions.
    ignore_score: float = 0.0
    #: coco_video: a JSON of true boxes, relative to the data root. They replace boxes of
    #: `annotations` as its `complete` and `labels` say.
    truth: str = ''
    #: Whether files may be outside `images` and `annotations`: a name may be an absolute path,
    #: contain ``..``, or be a symbolic link to anywhere.
    outside: bool = False
    #: Patterns of the used videos; empty for all. A pattern is that of a shell (`*` matches `/`
    #: too) and matches a video's name, or a still's `file_name` or any folder of it.
    sequences: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()  #: Patterns of videos that are not used
    #: ImageNet: names frames, snippets or pictures; mot: names sequences. Relative to the data
    #: root; may be .gz. Empty for all in the folders.
    list_file: str = ''
    split: str = 'train'  #: ImageNet without `list_file`: the folder below `annotations`
    #: imagenet_vid: `snippet` makes a video of all frames of each snippet that `list_file` names,
    #: for clips; `listed` one of the listed frames alone, for training on single frames.
    frames: str = 'snippet'
    #: mot: boxes with a smaller visible part are ignore regions.
    min_visibility: float = MIN_VISIBILITY

    def __post_init__(self) -> None:
        """Check the values."""
        for key, allowed in (('format', FORMATS), ('kind', ('video', 'still')),
                             ('frames', FRAMES)):
            if getattr(self, key) not in allowed:
                raise DataError(f'sources: {key} is {getattr(self, key)!r}, must be '
                                f'{", ".join(allowed[:-1])} or {allowed[-1]}')
        for key, (nothing, formats) in _SPECIAL.items():
            if getattr(self, key) != nothing and self.format not in formats:
                raise DataError(f'sources: {key} is for format {" and ".join(formats)}, not for '
                                f'{self.format}')
        for key in ('min_score', 'ignore_score', 'min_visibility'):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise DataError(f'sources: {key} is {getattr(self, key)}, must be in [0, 1]')
        if self.frames == 'listed' and not self.list_file:
            raise DataError('sources: frames: listed needs a list_file')
        if self.kind == 'video' and self.format == IMAGENET_DET:
            raise DataError('sources: format imagenet_det has stills, so kind must be still')


def load_source(source: SourceConfig, root: str | Path, classes: Sequence[str],
                findings: Findings | None = None) -> list[VideoRecord]:
    """
    Read the annotations of a source.

    :param root: folder that its paths start from
    :param classes: names; a label is an index into them
    :param findings: receives the errors; default: the first one is raised
    :returns: the videos that the patterns select. Frames of ImageNet read their annotations when
        they are accessed.
    :raises DataError: one line: the file, the entry, and what is wrong with it
    """
    root = Path(root)
    findings = Strict() if findings is None else findings
    annotations, images = root / source.annotations, root / source.images
    list_file = root / source.list_file if source.list_file else None
    if source.format == COCO_VIDEO:
        records = load_video_json(annotations, PictureFolder(images, source.outside), classes,
                                  source.min_score, source.ignore_score, findings,
                                  root / source.truth if source.truth else None)
    elif source.format == IMAGENET_VID:
        records = load_vid(annotations, images, classes, list_file, source.split, source.frames,
                           findings, source.outside)
    elif source.format == IMAGENET_DET:
        records = load_det(annotations, images, classes, list_file, source.split, findings,
                           source.outside)
    else:
        records = load_mot(annotations, images, classes, list_file, source.min_visibility,
                           findings, source.outside)
    return _chosen(records, source, annotations, findings)


def _chosen(records: list[VideoRecord], source: SourceConfig, annotations: Path,
            findings: Findings) -> list[VideoRecord]:
    """Return the records that the patterns of a source select."""
    everything = records
    if source.sequences:
        taken, unmet = meet([record.name for record in records], source.sequences)
        for pattern in unmet:
            findings.fault(DataError(f'{annotations}: sequences names {pattern}, which is not '
                                     'there', Kind.SEQUENCES))
        records = [record for record in records if record.name in taken]
    left_out, unmet = meet([record.name for record in records], source.exclude)
    for pattern in unmet:
        findings.note(Kind.EXCLUDE, f'{annotations}: exclude names {pattern}, which is not there')
    kept = [record for record in records if record.name not in left_out]
    _note_split_groups(everything, kept, annotations, findings)
    if not kept:
        raise DataError(f'{annotations}: sequences and exclude leave nothing', Kind.SOURCE)
    return kept


def _note_split_groups(records: Sequence[VideoRecord], kept: Sequence[VideoRecord],
                       annotations: Path, findings: Findings) -> None:
    """Note groups of which only a part is kept, because the rest must not be a test set."""
    names = {record.name for record in kept}
    for group in dict.fromkeys(record.group for record in kept if record.group):
        left_out = [record.name for record in records
                    if record.group == group and record.name not in names]
        if left_out:
            findings.note(Kind.SPLIT_GROUP, f'{annotations}: group {group}: {left_out[0]} is left '
                          'out, but others of the same recording are not; do not measure on it')


def meet(names: Sequence[str], patterns: Sequence[str]) -> tuple[set[str], list[str]]:
    """
    Return the names that match any pattern, and the patterns that match no name.

    :param patterns: for names or folders in names, with ``*``, ``?`` and ``[...]``
    """
    met: set[str] = set()
    unmet = []
    for pattern in patterns:
        found = {name for name in names if _meets(name, pattern)}
        met |= found
        if not found:
            unmet.append(pattern)
    return met, unmet


def _meets(name: str, pattern: str) -> bool:
    folders = [str(folder) for folder in PurePosixPath(name).parents]
    return any(text == pattern or fnmatchcase(text, pattern) for text in (name, *folders[:-1]))


def all_classes(source: SourceConfig, root: str | Path) -> tuple[str, ...]:
    """
    Return the names of all classes that a source has.

    :raises DataError: it is a JSON file that cannot be read or has no categories
    """
    if source.format == IMAGENET_VID:
        return tuple(VID_CLASSES.values())
    if source.format == IMAGENET_DET:
        return (*VID_CLASSES.values(), *DET_PERSON.values())
    if source.format == MOT:
        return tuple(TARGETS.values())
    return category_names(Path(root) / source.annotations)
