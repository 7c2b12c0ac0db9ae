# SPDX-License-Identifier: Apache-2.0
"""
One annotation file of ImageNet VID or DET: the XML of one picture.

The format is that of the ILSVRC 2015 development kit (readme.txt, sections 2.2 and 4.2): `size`
with `width` and `height`, and for each `object` its `name` (a WordNet id), a `bndbox` of
`xmin`, `ymin`, `xmax`, `ymax`, and in VID a `trackid`. Corners count pixels from 0 and are
inclusive: the kit's evaluation takes xmax - xmin + 1 for the width. A box from 3 to 5 therefore
covers [3, 6) here.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
import re
from xml.etree import ElementTree

from .errors import DataError, Kind
from .findings import Findings
from .records import box_in_picture, FrameBoxes, FrameRecord, UNKNOWN_TRACK

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
#: A class of DET that VID lacks; the other 169 are ignore regions whatever is trained.
DET_PERSON = {'n00007846': 'person'}
OTHER_NAMES = {'cat': 'domestic_cat'}  #: Names that a recipe may use for a class of VID
_WNID = re.compile(r'n\d{8}')


def labels_of(classes: Sequence[str], known: Mapping[str, str]) -> dict[str, int | None]:
    """Return WordNet id -> label, an index into `classes`, or None for a class not trained."""
    index = {OTHER_NAMES.get(name, name): label for label, name in enumerate(classes)}
    return {wnid: index.get(name) for wnid, name in known.items()}


def read_xml(path: Path, picture: Path, labels: Mapping[str, int | None], other_wnids: bool,
             findings: Findings) -> FrameRecord:
    """
    Read the annotation of one picture.

    :param picture: the file that it describes; it is not opened
    :param labels: from `labels_of`: objects with a label are targets, those with None ignore
        regions
    :param other_wnids: WordNet ids that are not in `labels` are ignore regions, and no mistake
    :param findings: who is told of unusable objects and dropped boxes
    :raises DataError: the file is missing, no XML, or does not say the size of its picture
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f'{path}: no such file; every picture needs its annotation',
                        Kind.MISSING_FILE) from None
    except OSError as error:
        raise DataError(f'{path}: cannot be read: {error.strerror}') from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        # The last two: an encoding that is unknown, or not the one that is declared.
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
        if not text.isdecimal():
            raise DataError(f'{where}: trackid is {text!r:.40}; it must be a whole number from 0 '
                            'on')
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
