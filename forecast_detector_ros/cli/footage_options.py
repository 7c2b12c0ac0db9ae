# SPDX-License-Identifier: Apache-2.0
"""Options that name annotated video and policies, for every command that evaluates."""

import argparse
from collections.abc import Sequence
import logging
from pathlib import Path

from ..evaluation.davis import load_davis
from ..evaluation.sequences import attach_labels, EvaluationError, Footage, load_annotated, pick
from ..runtime.policy import parse_policy, Policy, PolicyError

_log = logging.getLogger(__name__)


def add_footage(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_footage` reads."""
    data = parser.add_argument_group('footage (one of --davis and --annotations)')
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument('--davis', type=Path, metavar='FOLDER',
                        help='folders with frames and a boxes.json for one object')
    source.add_argument('--annotations', type=Path, metavar='FILE', help='COCO-video JSON')
    data.add_argument('--images', type=Path, metavar='FOLDER',
                      help='folder that file names in --annotations or --pseudo-labels are '
                      'relative to; default: the folder of --davis, or that of the file')
    data.add_argument('--pseudo-labels', type=Path, metavar='FILE',
                      help='with --davis: COCO-video JSON of all objects, for AP50')
    data.add_argument('--min-score', type=fraction, default=0.4, metavar='S',
                      help='annotated boxes with a lower score do not count (default 0.4; '
                      'boxes without a score have 1)')
    data.add_argument('--ignore-score', type=fraction, metavar='S',
                      help='those of them with at least this score are neither objects nor '
                      'background (default: that of --min-score, so none)')
    data.add_argument('--accept', type=_accept, action='append', default=[],
                      metavar='SEQUENCE=CLASS', help='with --davis: a further class that '
                      'counts in a sequence; may be repeated')
    data.add_argument('--sequences', nargs='+', default=[], metavar='NAME',
                      help='only these sequences')


def load_footage(options: argparse.Namespace, labels: Sequence[str]) -> list[Footage]:
    """
    Load what the options name.

    Parameters
    ----------
    options:
        With those of `add_footage`.
    labels:
        The detector's classes.

    Raises
    ------
    DataError, EvaluationError
        With a message of one line.

    """
    ignore = options.min_score if options.ignore_score is None else options.ignore_score
    if options.annotations:
        for key in ('pseudo_labels', 'accept'):
            if getattr(options, key):
                raise EvaluationError(f'--{key.replace("_", "-")} goes with --davis only')
        footage = load_annotated(options.annotations, options.images
                                 or options.annotations.parent, labels, options.min_score,
                                 ignore)
        return pick(footage, options.sequences)
    accept: dict[str, list[str]] = {}
    for sequence, name in options.accept:
        accept.setdefault(sequence, []).append(name)
    footage = pick(load_davis(options.davis, labels, accept), options.sequences)
    for item in footage:
        if len(item.truth) and not item.truth.accepted.any():
            _log.warning('%s: the detector has no class of this category; its recall is 0',
                         item.name)
    if options.pseudo_labels:
        footage = attach_labels(footage, options.pseudo_labels, options.images
                                or options.davis, labels, options.min_score, ignore)
    return footage


def named_footage(options: argparse.Namespace) -> dict[str, object]:
    """Give the options of `add_footage` that say what is measured against, as plain values."""
    return {key: str(value) if isinstance(value, Path) else value
            for key in ('davis', 'annotations', 'pseudo_labels', 'min_score', 'ignore_score',
                        'accept', 'sequences') if (value := getattr(options, key))}


def fraction(text: str) -> float:
    """Read an argument in [0, 1]."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'is {text}, must be in [0, 1]')
    return value


def positive(text: str) -> int:
    """Read an argument that is at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'is {text}, must be at least 1')
    return value


def frame_rate(text: str) -> float:
    """Read frames per second."""
    value = float(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f'is {text}, must be above 0 and at most 1000')
    return value


def policy(text: str) -> Policy:
    """Read a policy."""
    try:
        return parse_policy(text)
    except PolicyError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _accept(text: str) -> tuple[str, str]:
    sequence, _, name = text.partition('=')
    if not sequence or not name:
        raise argparse.ArgumentTypeError(f'is {text!r}, must be SEQUENCE=CLASS')
    return sequence, name
