# SPDX-License-Identifier: Apache-2.0
"""
ImageNet VID and DET as they are distributed (ILSVRC 2015).

    Annotations/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000/000000.xml
    Data/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000/000000.JPEG
    Annotations/DET/train/ILSVRC2014_train_0000/ILSVRC2014_train_00000663.xml
    Data/DET/train/ILSVRC2014_train_0000/ILSVRC2014_train_00000663.JPEG

Loading lists folders and reads one XML file of each snippet. Each other file is read when its
frame is accessed, because VID's training set alone has 1.1 million.

The development kit of ILSVRC 2015 describes the XML files (readme.txt, sections 2.2 and 4.2). They
have `size` with `width` and `height`. Each `object` has a `name` (a WordNet id), a `bndbox` of
`xmin`, `ymin`, `xmax`, `ymax`, and in VID a `trackid`. Corners count pixels from 0 and are
inclusive: the kit's evaluation uses xmax - xmin + 1 as the width. A box from 3 to 5 therefore
covers [3, 6) here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import os
from pathlib import Path
import re
import sys
from typing import overload
from xml.etree import ElementTree

from .findings import check_classes, DataError, Findings, Kind, Strict
from .imagenet_lists import FRAME_DIGITS, Listed, read_pictures, read_snippets
from .records import (
    box_in_picture,
    FrameBoxes,
    FrameRecord,
    MOST_TRACKS,
    names_in,
    PictureFolder,
    read_videos,
    UNKNOWN_TRACK,
    VideoRecord,
)
from ..files import walk

#: Use of a snippet of which a list names some frames. `snippet`: a video of all its frames, for
#: clips of consecutive frames; `listed`: a video of the listed frames, for training on single
#: frames.
FRAMES = ('snippet', 'listed')
PICTURE = '.JPEG'  #: Suffix of ImageNet's pictures


class XmlFrames(Sequence[FrameRecord]):
    """The frames of a snippet, or one picture of DET; each XML file is read when it is needed."""

    def __init__(self, pictures: PictureFolder, annotations: PictureFolder, folder: str,
                 names: Sequence[str], labels: Mapping[str, int | None], other_wnids: bool,
                 findings: Findings) -> None:
        """
        Store the names; nothing is read yet.

        :param pictures, annotations: contain `folder` with `<name>.JPEG` and with `<name>.xml`
        :param names: in the order of time
        :param labels, other_wnids, findings: see `read_xml`
        """
        self._pictures, self._annotations = pictures, annotations
        self._folder, self._names = folder, tuple(names)
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
        Read the annotation of a frame, or of each frame of a slice.

        :raises DataError: the annotation is unusable, is outside its folder, or has another size
            than the frame that was read first
        """
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        name = f'{self._folder}/{self._names[index]}'
        path, picture = (folder.place(f'{name}{ending}', f'{folder.root}', 'file')
                         for folder, ending in ((self._annotations, '.xml'),
                                                (self._pictures, PICTURE)))
        record = read_xml(path, picture, self._labels, self._other_wnids, self._findings)
        size = record.width, record.height
        if self._size is None:
            self._size = size
        elif size != self._size:
            raise DataError(f'{path}: size is {size[0]}x{size[1]}, but other frames of the '
                            f'snippet are {self._size[0]}x{self._size[1]}', Kind.WRONG_SIZE)
        return record


def load_vid(annotations: str | Path, images: str | Path, classes: Sequence[str],
             list_file: str | Path | None = None, split: str = 'train',
             frames: str = 'snippet', findings: Findings | None = None,
             outside: bool = False) -> list[VideoRecord]:
    """
    Find the snippets of ImageNet VID.

    An object of one of the `classes` is a target; an object of another class of VID is an ignore
    region. A name in `classes` is one of `VID_CLASSES`, `cat` for `domestic_cat`, or a class that
    VID does not have.

    :param annotations, images: `Annotations/VID` and `Data/VID`
    :param classes: names; a label is an index into them
    :param list_file: names snippets or frames of them (see `imagenet_lists`); None: all of `split`
    :param split: folder below `annotations`, if there is no list
    :param frames: one of `FRAMES`
    :param findings: receives the errors; default: the first one is raised
    :param outside: whether names and symbolic links may lead out of the two folders
    :returns: in the order of the list, or of the names; a name is the path below `annotations`
    :raises DataError: one line: the file, the entry, and what is wrong with it
    """
    annotations, images = Path(annotations), Path(images)
    findings = Strict() if findings is None else findings
    _check_folders(annotations, images)
    descriptions, pictures = PictureFolder(annotations, outside), PictureFolder(images, outside)
    labels = labels_of(classes, VID_CLASSES, annotations, findings)
    if list_file is not None:
        snippets = read_snippets(Path(list_file), findings)
    else:
        snippets = {name: Listed(f'{annotations / name}', None, None)
                    for name in _snippet_names(descriptions, split)}

    def read(entry: tuple[str, Listed]) -> VideoRecord:
        name, listed = entry
        places = (pictures.place(name, listed.where, 'snippet'),
                  descriptions.place(name, listed.where, 'snippet'))
        names = _frame_names(name, listed, *places, frames == 'listed', findings)
        video = XmlFrames(pictures, descriptions, name, names, labels, False, findings)
        if isinstance(findings, Strict):
            # Read one frame now, so that a tree that is not VID is an error before the run.
            video[0]
        return VideoRecord(name, video)

    return read_videos(snippets.items(), read, findings,
                       f'{list_file or annotations}: no usable snippet')


def load_det(annotations: str | Path, images: str | Path, classes: Sequence[str],
             list_file: str | Path | None = None, split: str = 'train',
             findings: Findings | None = None, outside: bool = False) -> list[VideoRecord]:
    """
    Find the pictures of ImageNet DET, each a video of one frame.

    Parameters are those of `load_vid`, for `Annotations/DET` and `Data/DET`. Objects of classes
    that VID does not have are ignore regions, except `person`. Without a list, all pictures of
    `split` that have an annotation are used.

    :raises DataError: one line: the file, the entry, and what is wrong with it
    """
    annotations, images = Path(annotations), Path(images)
    findings = Strict() if findings is None else findings
    _check_folders(annotations, images)
    descriptions, folder = PictureFolder(annotations, outside), PictureFolder(images, outside)
    labels = labels_of(classes, {**VID_CLASSES, **DET_PERSON}, annotations, findings)
    if list_file is not None:
        pictures = read_pictures(Path(list_file), findings)
    else:
        pictures = {name: f'{annotations / name}.xml'
                    for name in _picture_names(descriptions, split)}

    def read(entry: tuple[str, str]) -> VideoRecord:
        name, where = entry
        for path in (folder.place(f'{name}{PICTURE}', where, 'picture'),
                     descriptions.place(f'{name}.xml', where, 'picture')):
            if not path.is_file():
                raise DataError(f'{where}: no file {path}', Kind.MISSING_FILE)
        inner, _, stem = name.rpartition('/')
        return VideoRecord(name, XmlFrames(
            folder, descriptions, inner or '.', (stem,), labels, True, findings))

    return read_videos(pictures.items(), read, findings,
                       f'{list_file or annotations}: no usable picture')


def _check_folders(annotations: Path, images: Path) -> None:
    for folder, what in ((annotations, 'annotations'), (images, 'pictures')):
        if not folder.is_dir():
            raise DataError(f'{folder}: no such folder of {what}', Kind.SOURCE)


def _snippet_names(annotations: PictureFolder, split: str) -> list[str]:
    """Return the folders below `split` that hold XML files, relative to `annotations`."""
    return sorted(os.path.relpath(folder, annotations.root)
                  for folder, _, files in _walk(annotations, split)
                  if any(name.endswith('.xml') for name in files))


def _picture_names(annotations: PictureFolder, split: str) -> list[str]:
    return sorted(os.path.relpath(os.path.join(folder, name[:-4]), annotations.root)
                  for folder, _, files in _walk(annotations, split)
                  for name in files if name.endswith('.xml'))


def _walk(annotations: PictureFolder, split: str) -> Iterator[tuple[str, list[str], list[str]]]:
    folder = annotations.place(split, f'{annotations.root}', 'split')
    if not folder.is_dir():
        raise DataError(f'{folder}: no such folder of annotations', Kind.SOURCE)
    return walk(folder)


def _frame_names(name: str, listed: Listed, images: Path, annotations: Path, only_listed: bool,
                 findings: Findings) -> list[str]:
    """
    Return the names of the frames of a snippet that are used and have picture and annotation.

    :param images, annotations: the snippet's own folders
    """
    pictures = _stems(images, PICTURE, listed.where)
    descriptions = _stems(annotations, '.xml', listed.where)
    if only_listed and listed.frames is not None:
        wanted = sorted(listed.frames)
    elif listed.count is not None:
        wanted = list(range(listed.count))
    else:
        last = max((int(stem) for stem in pictures | descriptions
                    if stem.isdecimal() and len(stem) <= FRAME_DIGITS), default=-1)
        wanted = list(range(last + 1))
    names = []
    for frame in wanted:
        # All snippets have the same few thousand names, so interning saves memory.
        stem = sys.intern(f'{frame:06d}')
        for there, path in ((pictures, images / f'{stem}{PICTURE}'),
                            (descriptions, annotations / f'{stem}.xml')):
            if stem not in there:
                findings.fault(DataError(f'{listed.where}: no file {path}', Kind.MISSING_FRAME))
        if stem in pictures and stem in descriptions:
            names.append(stem)
    if not names:
        raise DataError(f'{listed.where}: {name} has no frames', Kind.MISSING_FRAME)
    return names


def _stems(folder: Path, ending: str, where: str) -> set[str]:
    return {name.removesuffix(ending) for name in names_in(folder, where) if name.endswith(ending)}


#: WordNet id -> name of the 30 classes of VID, in the order of the development kit's meta_vid.
VID_CLASSES = {
    'n02691156': 'airplane', 'n02419796': 'antelope', 'n02131653': 'bear',
    'n02834778': 'bicycle', 'n01503061': 'bird', 'n02924116': 'bus', 'n02958343': 'car',
    'n02402425': 'cattle', 'n02084071': 'dog', 'n02121808': 'domestic_cat',
    'n02503517': 'elephant', 'n02118333': 'fox', 'n02510455': 'giant_panda',
    'n02342885': 'hamster', 'n02374451': 'horse', 'n02129165': 'lion', 'n01674464': 'lizard',
    'n02484322': 'monkey', 'n03790512': 'motorcycle', 'n02324045': 'rabbit',
    'n02509815': 'red_panda', 'n02411705': 'sheep', 'n01726692': 'snake',
    'n02355227': 'squirrel', 'n02129604': 'tiger', 'n04468005': 'train',
    'n01662784': 'turtle', 'n04530566': 'watercraft', 'n02062744': 'whale',
    'n02391049': 'zebra'}
#: A class of DET that VID lacks; the other 169 are always ignore regions.
DET_PERSON = {'n00007846': 'person'}
OTHER_NAMES = {'cat': 'domestic_cat'}  #: Names that a recipe may use for a class of VID
_WNID = re.compile(r'n\d{8}')


def labels_of(classes: Sequence[str], known: Mapping[str, str], annotations: Path,
              findings: Findings) -> dict[str, int | None]:
    """
    Return WordNet id -> label, an index into `classes`, or None for a class not trained.

    :raises DataError: none of the classes is known; `findings` receives each unknown one
    """
    index = {OTHER_NAMES.get(name, name): label for label, name in enumerate(classes)}
    check_classes(index, known.values(), f'{annotations}', findings)
    return {wnid: index.get(name) for wnid, name in known.items()}


def read_xml(path: Path, picture: Path, labels: Mapping[str, int | None], other_wnids: bool,
             findings: Findings) -> FrameRecord:
    """
    Read the annotation of one picture.

    :param picture: the annotated file, which is not opened
    :param labels: from `labels_of`: objects with a label are targets, those with None ignore
        regions
    :param other_wnids: whether WordNet ids that are not in `labels` are ignore regions; else they
        are errors
    :param findings: receives unusable objects and dropped boxes
    :raises DataError: the file is missing, is not XML, or has no size of the picture
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f'{path}: no such file; every picture needs its annotation',
                        Kind.MISSING_FILE) from None
    except OSError as error:
        raise DataError(f'{path}: cannot be read: {error.strerror}') from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        # LookupError and ValueError: the declared encoding is unknown or wrong.
        raise DataError(f'{path}: not valid XML: {error}') from None
    width = _number(root, 'size/width', f'{path}')
    height = _number(root, 'size/height', f'{path}')
    if not (width >= 1 and height >= 1 and width % 1 == 0 and height % 1 == 0):
        raise DataError(f'{path}: size is {width:g} x {height:g}; it must be whole numbers from '
                        '1 on')
    boxes = FrameBoxes()
    for number, element in enumerate(root.iter('object')):
        try:
            _add(element, f'{path}: object[{number}]', boxes, (int(width), int(height)), labels,
                 other_wnids, findings)
        except DataError as error:
            findings.fault(error)
    return boxes.record(picture, int(width), int(height))


def _add(element: ElementTree.Element, where: str, boxes: FrameBoxes, size: tuple[int, int],
         labels: Mapping[str, int | None], other_wnids: bool, findings: Findings) -> None:
    wnid = _text(element, 'name', where)
    if wnid not in labels and not (other_wnids and _WNID.fullmatch(wnid)):
        wanted = 'a WordNet id such as n02084071' if other_wnids else 'one of the 30 ids of VID'
        raise DataError(f'{where}: name is {wnid!r:.40}; it must be {wanted}',
                        Kind.UNKNOWN_CATEGORY)
    x0, y0, x1, y1 = (_number(element, f'bndbox/{key}', where)
                      for key in ('xmin', 'ymin', 'xmax', 'ymax'))
    track = UNKNOWN_TRACK
    if element.find('trackid') is not None:
        text = _text(element, 'trackid', where)
        if not text.isdecimal() or int(text) >= MOST_TRACKS:
            raise DataError(f'{where}: trackid is {text!r:.40}; it must be a whole number from 0 '
                            'on, below 2**62')
        track = int(text)
    box = box_in_picture((x0, y0, x1 + 1, y1 + 1), *size, where, findings)
    if box is None:
        return
    label = labels.get(wnid)
    if label is None:
        boxes.add_ignore(box)
    elif boxes.has_track(track):
        raise DataError(f'{where}: trackid {track} is used twice; it must name one object',
                        Kind.DUPLICATE)
    else:
        boxes.add(box, label, where, findings, track=track)


def _text(element: ElementTree.Element, key: str, where: str) -> str:
    text = element.findtext(key)
    if text is None or not text.strip():
        raise DataError(f'{where}: {key} is missing')
    return text.strip()


def _number(element: ElementTree.Element, key: str, where: str) -> float:
    text = _text(element, key, where)
    try:
        return float(text)
    except ValueError:
        raise DataError(f'{where}: {key} is {text!r:.40}; it must be a number') from None
