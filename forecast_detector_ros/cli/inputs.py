# SPDX-License-Identifier: Apache-2.0
"""Options that name annotated video for measuring or for training."""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
import logging
from pathlib import Path

from .options import add_ignore_score, add_min_score, Group
from ..annotations.findings import DataError
from ..annotations.records import PictureFolder
from ..errors import InputError
from ..evaluation.sequences import (
    attach_labels,
    EvaluationError,
    load_annotated,
    load_davis,
    load_mot_videos,
    pick,
    Video,
)
from ..jobs.locations import (
    kept,
    Location,
    location,
    LocationError,
    name_of,
    picture_store,
    Url,
)

_log = logging.getLogger(__name__)


def add_videos(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_videos` reads."""
    data = parser.add_argument_group('video (one of --davis, --annotations and --mot)')
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument('--davis', type=location, nargs='+', metavar='FOLDER',
                        help='folders with frames and a boxes.json')
    source.add_argument('--annotations', type=location, nargs='+', metavar='FILE',
                        help='COCO-video JSON')
    source.add_argument('--mot', type=location, nargs='+', metavar='FOLDER',
                        help="folders in MOTChallenge's format")
    data.add_argument('--images', type=location, metavar='FOLDER',
                      help="folder of the pictures (default: the JSON's)")
    add_outside(data)
    data.add_argument('--pseudo-labels', type=location, metavar='FILE',
                      help='with --davis: JSON of all objects')
    add_min_score(data, 0.4)
    add_ignore_score(data, None)
    data.add_argument('--truth', type=location, metavar='FILE',
                      help='with --annotations: JSON of true boxes')
    data.add_argument('--accept', type=_accept, action='append', default=[],
                      metavar='SEQUENCE=CLASS',
                      help='with --davis: further class (repeatable)')
    data.add_argument('--sequences', nargs='+', default=[], metavar='NAME',
                      help='only these sequences; * and ? are wildcards')


def load_videos(options: argparse.Namespace, labels: Sequence[str],
                failures: dict[str, str] | None = None, lazily: bool = False) -> list[Video]:
    """
    Load the video that the options name.

    :param options: contain those of `add_videos`
    :param labels: the detector's classes
    :param failures: receives the error of each unusable input, by its path, if another input is
        usable; None: the first unusable input is an error
    :param lazily: whether pictures at a URL are fetched only when their sequence is run
    :raises DataError, EvaluationError: with a message of one line
    """
    ignore = options.min_score if options.ignore_score is None else options.ignore_score
    inputs = options.annotations or options.davis or options.mot
    if not options.davis:
        for key in ('pseudo_labels', 'accept'):
            if getattr(options, key):
                raise EvaluationError(f'--{key.replace("_", "-")} goes with --davis only')
    elif options.pseudo_labels and len(inputs) > 1:
        raise EvaluationError('--pseudo-labels goes with one folder of --davis')
    if options.truth and len(options.annotations or []) != 1:
        raise EvaluationError('--truth goes with one file of --annotations')
    found: list[tuple[Location, Video]] = []
    errors: dict[str, InputError] = {}
    for path in inputs:
        try:
            items = _load(options, path, labels, ignore, lazily)
        except (DataError, LocationError) as error:
            if failures is None:
                raise
            errors[str(path)] = error
            continue
        found += [(path, item) for item in items]
    if not found:
        raise next(iter(errors.values()))
    if failures is not None:
        failures.update({name: str(error) for name, error in errors.items()})
    videos = pick(_named_apart(found), options.sequences)
    for item in videos:
        if len(item.truth) and not item.truth.accepted.any():
            _log.warning('%s: the detector has no class of this category; its recall is 0',
                         item.name)
    return videos


def _load(options: argparse.Namespace, path: Location, labels: Sequence[str], ignore: float,
          lazily: bool) -> list[Video]:
    images = options.images or (path.parent if options.annotations else path)
    pictures = PictureFolder(_folder(images, lazily), options.outside)
    if options.annotations:
        videos = load_annotated(kept(path), pictures, labels, options.min_score, ignore,
                                options.truth and kept(options.truth))
    elif options.mot:
        videos = load_mot_videos(_folder(path, lazily), labels, options.outside)
    else:
        videos = _load_davis(options, _folder(path, lazily), pictures, labels, ignore)
    if not (lazily and isinstance(images, Url)):
        return videos
    return [replace(item, pictures=picture_store(images)) for item in videos]


def _folder(where: Location, lazily: bool) -> Path:
    return picture_store(where).folder if lazily and isinstance(where, Url) else kept(where)


def _load_davis(options: argparse.Namespace, folder: Path, images: PictureFolder,
                labels: Sequence[str], ignore: float) -> list[Video]:
    accept: dict[str, list[str]] = {}
    for sequence, name in options.accept:
        # If there are several folders, the sequence may be in another one.
        if len(options.davis) == 1 or (folder / sequence).is_dir():
            accept.setdefault(sequence, []).append(name)
    videos = load_davis(folder, labels, accept)
    if options.pseudo_labels:
        # Only the chosen sequences need labels.
        videos = attach_labels(pick(videos, options.sequences), kept(options.pseudo_labels),
                               images, labels, options.min_score, ignore)
    return videos


def add_outside(group: Group) -> None:
    """Add `--outside`."""
    group.add_argument('--outside', action='store_true',
                       help='accept file names that lead out of the folder')


def _named_apart(found: Sequence[tuple[Location, Video]]) -> list[Video]:
    """
    Put the input's name before the name of a sequence that several inputs contain.

    If inputs of different folders have the same name, the folder's name comes first.
    """
    counts = Counter(item.name for _, item in found)
    stems = Counter(path.stem for path in {path for path, _ in found})

    def name(path: Location) -> str:
        return path.stem if stems[path.stem] == 1 else f'{name_of(path.parent)}/{path.stem}'

    named = [replace(item, name=f'{name(path)}/{item.name}') if counts[item.name] > 1 else item
             for path, item in found]
    twice = [name for name, count in Counter(item.name for item in named).items() if count > 1]
    if twice:
        raise EvaluationError(f'sequence {twice[0]} is in two of the inputs')
    return named


def named_videos(options: argparse.Namespace) -> dict[str, object]:
    """Return the options of `add_videos`, which name the ground truth, as plain values."""
    def plain(value: object) -> object:
        if isinstance(value, list) and value and isinstance(value[0], (Path, Url)):
            return str(value[0]) if len(value) == 1 else [str(path) for path in value]
        return str(value) if isinstance(value, (Path, Url)) else value

    return {key: plain(value)
            for key in ('davis', 'annotations', 'mot', 'pseudo_labels', 'truth', 'min_score',
                        'ignore_score', 'accept', 'sequences') if (value := getattr(options, key))}


def add_training(parser: argparse.ArgumentParser, recipe: str, leaves: str) -> None:
    """Add the options of a training; `recipe` is a help text, `leaves` names the output files."""
    parser.add_argument('recipe', type=Path, metavar='RECIPE', help=recipe)
    parser.add_argument('--data', type=Path, required=True, metavar='FOLDER',
                        help='folder that the paths in the recipe start from')
    parser.add_argument('--output', type=Path, required=True, metavar='FOLDER',
                        help=f'folder of {leaves}; finished parts in it are kept')


def add_backbone(parser: argparse._ActionsContainer) -> None:
    """Add `--backbone`, and its former name."""
    parser.add_argument('--backbone', type=Path, metavar='FILE',
                        help='MobileNetV2 of ImageNet: .safetensors, .pt or .whl')
    parser.add_argument('--imagenet', type=Path, dest='backbone', help=argparse.SUPPRESS)


def add_held_out(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_held_out` reads."""
    group = parser.add_argument_group('held-out video')
    group.add_argument('--annotations', type=Path, required=True, metavar='FILE',
                       help='COCO-video JSON with the sequences')
    group.add_argument('--images', type=Path, required=True, metavar='FOLDER',
                       help='folder of their pictures')
    add_outside(group)
    group.add_argument('--sequences', nargs='+', required=True, metavar='NAME',
                       help='sequences to measure on; the recipe must exclude them')
    add_min_score(group, 0.4)
    add_ignore_score(group, 0.2)
    group.add_argument('--truth', type=Path, metavar='FILE', help='JSON of true boxes')


def load_held_out(options: argparse.Namespace, classes: Sequence[str]) -> list[Video]:
    """Load the sequences that the options name; raises InputError."""
    pictures = PictureFolder(options.images, options.outside)
    return pick(load_annotated(options.annotations, pictures, classes, options.min_score,
                               options.ignore_score, options.truth), options.sequences)


def _accept(text: str) -> tuple[str, str]:
    sequence, _, name = text.partition('=')
    if not sequence or not name:
        raise argparse.ArgumentTypeError(f'is {text!r}, must be SEQUENCE=CLASS')
    return sequence, name
