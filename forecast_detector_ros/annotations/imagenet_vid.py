# SPDX-License-Identifier: Apache-2.0
"""
ImageNet VID and DET as they are distributed (ILSVRC 2015).

    Annotations/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000/000000.xml
    Data/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000/000000.JPEG
    Annotations/DET/train/ILSVRC2014_train_0000/ILSVRC2014_train_00000663.xml
    Data/DET/train/ILSVRC2014_train_0000/ILSVRC2014_train_00000663.JPEG

Loading lists folders and reads one XML file of each snippet. All others are read when their frame
is asked for: VID's training set alone has 1.1 million.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import os
from pathlib import Path
import sys
from typing import overload

from .errors import DataError, Kind
from .findings import Findings, Strict
from .imagenet_lists import Listed, read_pictures, read_snippets
from .imagenet_xml import DET_PERSON, labels_of, OTHER_NAMES, read_xml, VID_CLASSES
from .records import FrameRecord, VideoRecord

#: What becomes of a snippet of which a list names some frames. `snippet`: a video of all its
#: frames, for clips of consecutive frames; `listed`: a video of the frames that are named, for
#: training on single frames.
FRAMES = ('snippet', 'listed')
PICTURE = '.JPEG'  #: How the names of ImageNet's pictures end


class XmlFrames(Sequence[FrameRecord]):
    """The frames of a snippet, or one picture of DET; each XML file is read when it is needed."""

    def __init__(self, pictures: Path, annotations: Path, names: Sequence[str],
                 labels: Mapping[str, int | None], other_wnids: bool, findings: Findings) -> None:
        """
        Take the names.

        :param pictures, annotations: folders of `<name>.JPEG` and of `<name>.xml`
        :param names: in the order of time
        :param labels, other_wnids, findings: see `read_xml`
        """
        self._pictures, self._annotations, self._names = pictures, annotations, tuple(names)
        self._labels, self._other_wnids, self._findings = labels, other_wnids, findings
        self._size: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> FrameRecord: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[FrameRecord]: ...

    def __getitem__(self, index: int | slice) -> FrameRecord | Sequence[FrameRecord]:
        """
        Read the annotation of a frame; of each of them, for a slice.

        :raises DataError: it is unusable, or of another size than the frame that was read first
        """
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        name = self._names[index]
        path = self._annotations / f'{name}.xml'
        record = read_xml(path, self._pictures / f'{name}{PICTURE}', self._labels,
                          self._other_wnids, self._findings)
        size = record.width, record.height
        if self._size is None:
            self._size = size
        elif size != self._size:
            raise DataError(f'{path}: size is {size[0]}x{size[1]}, but other frames of the '
                            f'snippet are {self._size[0]}x{self._size[1]}', Kind.WRONG_SIZE)
        return record


def load_vid(annotations: str | Path, images: str | Path, classes: Sequence[str],
             list_file: str | Path | None = None, split: str = 'train',
             frames: str = 'snippet', findings: Findings | None = None) -> list[VideoRecord]:
    """
    Find the snippets of ImageNet VID.

    An object of one of the `classes` is a target; an object of another class of VID is an ignore
    region. A name in `classes` is one of `VID_CLASSES`, `cat` for `domestic_cat`, or a class that
    VID does not have.

    :param annotations, images: `Annotations/VID` and `Data/VID`
    :param classes: names; a label is an index into them
    :param list_file: names snippets, or frames of them (see `imagenet_lists`); without it: all of
        `split`
    :param split: folder below `annotations`, for when there is no list
    :param frames: one of `FRAMES`
    :param findings: who is told of mistakes; default: the first one is raised
    :returns: in the order of the list, or of their names; a name is the path below `annotations`
    :raises DataError: one line: the file, the entry, and what is wrong with it
    """
    annotations, images = Path(annotations), Path(images)
    findings = Strict() if findings is None else findings
    _check_folders(annotations, images)
    labels = _labels(classes, VID_CLASSES, annotations, findings)
    if list_file is not None:
        snippets = read_snippets(Path(list_file), findings)
    else:
        snippets = {name: Listed(f'{annotations / name}', None, None)
                    for name in _snippet_names(annotations, split)}
    records = []
    for name, listed in snippets.items():
        try:
            names = _frame_names(name, listed, annotations, images, frames == 'listed', findings)
            video = XmlFrames(images / name, annotations / name, names, labels, False, findings)
            if isinstance(findings, Strict):
                # A tree that is no VID at all is found out now rather than in the middle of a run.
                video[0]
            records.append(VideoRecord(name, video))
        except DataError as error:
            findings.fault(error)
    if not records:
        raise DataError(f'{list_file or annotations}: no usable snippet', Kind.SOURCE)
    return records


def load_det(annotations: str | Path, images: str | Path, classes: Sequence[str],
             list_file: str | Path | None = None, split: str = 'train',
             findings: Findings | None = None) -> list[VideoRecord]:
    """
    Find the pictures of ImageNet DET, each a video of one frame.

    Parameters are those of `load_vid`, for `Annotations/DET` and `Data/DET`. Objects of the
    classes that VID does not have are ignore regions, but for `person`. Without a list, all
    pictures of `split` that have an annotation are taken.

    :raises DataError: one line: the file, the entry, and what is wrong with it
    """
    annotations, images = Path(annotations), Path(images)
    findings = Strict() if findings is None else findings
    _check_folders(annotations, images)
    labels = _labels(classes, {**VID_CLASSES, **DET_PERSON}, annotations, findings)
    if list_file is not None:
        pictures = read_pictures(Path(list_file), findings)
    else:
        pictures = {name: f'{annotations / name}.xml'
                    for name in _picture_names(annotations, split)}
    records = []
    for name, where in pictures.items():
        try:
            for path in (images / f'{name}{PICTURE}', annotations / f'{name}.xml'):
                if not path.is_file():
                    raise DataError(f'{where}: no file {path}', Kind.MISSING_FILE)
            folder, _, stem = name.rpartition('/')
            records.append(VideoRecord(name, XmlFrames(
                images / folder, annotations / folder, (stem,), labels, True, findings)))
        except DataError as error:
            findings.fault(error)
    if not records:
        raise DataError(f'{list_file or annotations}: no usable picture', Kind.SOURCE)
    return records


def _check_folders(annotations: Path, images: Path) -> None:
    for folder, what in ((annotations, 'annotations'), (images, 'pictures')):
        if not folder.is_dir():
            raise DataError(f'{folder}: no such folder of {what}', Kind.SOURCE)


def _labels(classes: Sequence[str], known: Mapping[str, str], annotations: Path,
            findings: Findings) -> dict[str, int | None]:
    labels = labels_of(classes, known)
    if all(label is None for label in labels.values()):
        raise DataError(f'{annotations}: none of the classes ({", ".join(classes)}) is one of '
                        f'ImageNet\'s: {", ".join(known.values())}', Kind.SOURCE)
    for name in classes:
        if OTHER_NAMES.get(name, name) not in known.values():
            findings.note(Kind.UNLABELLED_CLASS, f'{annotations}: no {name} is labelled; where '
                                                 'one is in a picture, it is taught as background')
    return labels


def _snippet_names(annotations: Path, split: str) -> list[str]:
    """Return the folders below `split` that hold XML files, relative to `annotations`."""
    return sorted(Path(folder).relative_to(annotations).as_posix()
                  for folder, _, files in _walk(annotations / split)
                  if any(name.endswith('.xml') for name in files))


def _picture_names(annotations: Path, split: str) -> list[str]:
    return sorted((Path(folder) / name[:-4]).relative_to(annotations).as_posix()
                  for folder, _, files in _walk(annotations / split)
                  for name in files if name.endswith('.xml'))


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    if not folder.is_dir():
        raise DataError(f'{folder}: no such folder of annotations', Kind.SOURCE)
    return os.walk(folder)


def _frame_names(name: str, listed: Listed, annotations: Path, images: Path, only_listed: bool,
                 findings: Findings) -> list[str]:
    """Return the frames of a snippet that are to be used and that have picture and annotation."""
    pictures = _stems(images / name, PICTURE, listed.where)
    descriptions = _stems(annotations / name, '.xml', listed.where)
    if only_listed and listed.frames is not None:
        wanted = sorted(listed.frames)
    elif listed.count is not None:
        wanted = list(range(listed.count))
    else:
        last = max((int(stem) for stem in pictures | descriptions if stem.isdecimal()),
                   default=-1)
        wanted = list(range(last + 1))
    names = []
    for frame in wanted:
        # The same few thousand names stand in every snippet.
        stem = sys.intern(f'{frame:06d}')
        for there, path in ((pictures, images / name / f'{stem}{PICTURE}'),
                            (descriptions, annotations / name / f'{stem}.xml')):
            if stem not in there:
                findings.fault(DataError(f'{listed.where}: no file {path}', Kind.MISSING_FRAME))
        if stem in pictures and stem in descriptions:
            names.append(stem)
    if not names:
        raise DataError(f'{listed.where}: {name} has no frames', Kind.MISSING_FRAME)
    return names


def _stems(folder: Path, ending: str, where: str) -> set[str]:
    try:
        return {name[:-len(ending)] for name in os.listdir(folder) if name.endswith(ending)}
    except OSError:
        raise DataError(f'{where}: no folder {folder}', Kind.MISSING_FILE) from None
