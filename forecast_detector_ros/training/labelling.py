# SPDX-License-Identifier: Apache-2.0
"""Label folders of pictures by a teacher, as a COCO-video document with scores."""

from collections.abc import Callable, Sequence
from pathlib import Path
import re
from typing import Any

import cv2
import numpy as np

from .teacher import TEACHER_CLASSES, TeacherBoxes, TeacherError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp')
"""Pictures are the files with these endings, upper or lower case."""


def picture_folders(root: Path, names: Sequence[str] = ()) -> dict[str, list[Path]]:
    """
    Find the folders with pictures in them.

    Parameters
    ----------
    root:
        Searched with all folders below it.
    names:
        Only these folders, relative to `root`, with those below them; empty for all.

    Returns
    -------
    dict
        Pictures in the order of their names, numbers in them by value; by folder relative to
        `root`.  A last part ``frames`` is left out of a folder's name.

    Raises
    ------
    TeacherError
        If a folder does not exist or there are no pictures.

    """
    found: dict[Path, set[Path]] = {}
    for start in ([root / name for name in names] or [root]):
        if not start.is_dir():
            raise TeacherError(f'{start}: no such folder')
        pictures = [path for path in start.rglob('*')
                    if path.suffix.lower() in SUFFIXES and path.is_file()]
        if not pictures:
            raise TeacherError(f'{start}: no pictures ({", ".join(SUFFIXES)}) here')
        for path in pictures:
            found.setdefault(path.parent, set()).add(path)
    folders = {}
    for folder in sorted(found):
        named = folder
        if folder.name == 'frames' and folder != root and folder.parent not in found:
            named = folder.parent
        name = named.relative_to(root).as_posix() if named != root else root.resolve().name
        folders[name] = sorted(found[folder], key=_natural)
    return folders


def _natural(path: Path) -> list[Any]:
    """Order frame10 behind frame9."""
    parts = re.split(r'(\d+)', path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def label_folders(detect: Callable[[np.ndarray], TeacherBoxes], root: Path,
                  folders: dict[str, list[Path]], classes: Sequence[str],
                  ignore: Sequence[str], videos: bool, description: str = '',
                  progress: Callable[[str, int], None] = lambda name, boxes: None
                  ) -> dict[str, Any]:
    """
    Label pictures.

    Parameters
    ----------
    detect:
        The teacher: ``(H, W, 3)`` uint8 BGR to boxes.
    root, folders:
        As for `picture_folders`, and its result.
    classes:
        Names that become annotations, of `TEACHER_CLASSES`; ids are 1, 2, ... in this order.
    ignore:
        Names that become `ignore_annotations`: objects, but of no class that is wanted.
    videos:
        Whether the pictures of a folder are the frames of one video.
    description:
        Goes into the document's info.
    progress:
        Called after every folder with its name and number of boxes.

    Returns
    -------
    dict
        COCO-style document; boxes xywh in pixels.

    Raises
    ------
    TeacherError
        If a class is not one of the teacher's, a picture cannot be decoded, or the pictures of
        a video differ in size.

    """
    for name in (*classes, *ignore):
        if name not in TEACHER_CLASSES:
            raise TeacherError(f'class {name!r} is unknown to the teacher, which has '
                               f'{", ".join(TEACHER_CLASSES)}')
    document: dict[str, Any] = {
        'info': {'description': description},
        'videos': [{'name': name, 'fps': None, 'frames': len(paths)}
                   for name, paths in folders.items() if videos],
        'images': [], 'annotations': [],
        'categories': [{'id': i, 'name': name} for i, name in enumerate(classes, 1)],
        'ignore_annotations': []}
    for name, paths in folders.items():
        before = len(document['annotations'])
        size = None
        for index, path in enumerate(paths):
            image = _read(path)
            if videos and image.shape[:2] != (size or image.shape[:2]):
                raise TeacherError(f'{path}: is {image.shape[1]}x{image.shape[0]} pixels, the '
                                   'frames of a video must be of one size; for stills use '
                                   '--stills')
            size = image.shape[:2]
            entry = {'id': len(document['images']) + 1,
                     'file_name': path.relative_to(root).as_posix(),
                     'width': image.shape[1], 'height': image.shape[0]}
            if videos:
                entry.update(video=name, frame_index=index)
            document['images'].append(entry)
            _annotate(document, entry['id'], detect(image), classes, ignore)
        progress(name, len(document['annotations']) - before)
    return document


def _annotate(document: dict[str, Any], image_id: int, found: TeacherBoxes,
              classes: Sequence[str], ignore: Sequence[str]) -> None:
    for box, label, score in zip(found.boxes.tolist(), found.labels, found.scores):
        name = TEACHER_CLASSES[label]
        width, height = box[2] - box[0], box[3] - box[1]
        if width <= 0 or height <= 0:
            continue  # Wholly in the padding.
        common = {'image_id': image_id,
                  'bbox': [round(value, 2) for value in (*box[:2], width, height)],
                  'score': round(float(score), 4)}
        if name in classes:
            document['annotations'].append({
                'id': len(document['annotations']) + 1, **common,
                'category_id': list(classes).index(name) + 1, 'area': round(width * height, 1),
                'iscrowd': 0})
        elif name in ignore:
            document['ignore_annotations'].append({**common, 'coco_class': name})


def _read(path: Path) -> np.ndarray:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise TeacherError(f'{path}: cannot be read: {error.strerror}') from None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise TeacherError(f'{path}: not a picture that OpenCV can decode')
    return image
