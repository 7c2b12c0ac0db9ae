# SPDX-License-Identifier: Apache-2.0
"""Label pictures, a video or a bag by a teacher and write COCO-video JSON with scores."""

import argparse
from collections.abc import Sequence
import logging
from pathlib import Path

import torch

from .options import add_threads, fraction, positive
from .progress import show_progress
from .shell import print_result, run_verb, verb_parser
from ..images.bag_images import is_bag
from ..images.extract_frames import extract_frames
from ..labelling.label_folders import is_partial, label_into, Labelling
from ..labelling.picture_folders import picture_folders
from ..labelling.teacher import TeacherError
from ..labelling.teacher_kinds import AUTO, KINDS, open_teacher

VERB = 'label'

CLASSES = ('person', 'airplane', 'bear', 'bicycle', 'bird', 'bus', 'car', 'cattle', 'dog', 'cat',
           'elephant', 'horse', 'motorcycle', 'sheep', 'train', 'watercraft', 'zebra', 'chair',
           'dining_table', 'bottle', 'potted_plant', 'sofa', 'tv')
"""Person, what ImageNet VID and COCO have in common, and what stands in rooms."""

_log = logging.getLogger(__name__)


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; give its exit code."""
    parser = make_parser()
    options = parser.parse_args(args)
    extracts = options.source.is_file() or is_bag(options.source)
    if extracts and options.frames is None:
        parser.error(f'{options.source} is a video or a bag: --frames DIR says where its frames '
                     'are to go')
    for name, given in (('--frames', options.frames), ('--topic', options.topic),
                        ('--every', options.every != 1)):
        if given and not extracts and options.source.is_dir():
            parser.error(f'{name} is for videos and bags, {options.source} is a folder of '
                         'pictures')
    for name, given in (('--folders', options.folders), ('--stills', options.stills)):
        if given and extracts:
            parser.error(f'{name} is for folders of pictures')
    return run_verb(VERB, options, lambda chosen: _label(chosen, extracts),
                    interrupted='interrupted; the same command with --resume goes on')


def _label(options: argparse.Namespace, extracts: bool) -> None:
    output = options.output
    if not options.resume and is_partial(output):
        raise TeacherError(f'{output}: is half done; --resume goes on, delete it to label anew')
    torch.set_num_threads(options.threads)
    teacher = open_teacher(options.teacher, options.teacher_kind, options.min_score,
                           options.nms_threshold, options.threads)
    root, folders = options.source, options.folders
    if extracts:
        with show_progress('frames') as show:
            extraction = extract_frames(options.source, options.frames, options.every,
                                        options.topic, options.resume, show)
        for line in extraction.losses:
            _log.warning('%s', line)
        _log.info('%s: %d frames', extraction.folder, extraction.frames)
        root, folders = options.frames, [extraction.folder.name]
    labelling = Labelling(
        root, picture_folders(root, folders), options.classes, options.ignore,
        not options.stills,
        f'labels by {options.teacher.name} ({teacher.kind}), score >= {options.min_score:g}, '
        f'class-wise NMS {options.nms_threshold:g}; boxes xywh in pixels of the stored pictures; '
        f'ignore_annotations: {", ".join(options.ignore) or "none"}')
    if options.resume and output.exists():
        labelling.resume(output)
        _log.info('%s: %d of %d pictures are labelled already', output, labelling.labelled,
                  labelling.total)
    with show_progress('labelled') as show:
        label_into(output, labelling, teacher.detect,
                   lambda: show(labelling.labelled, labelling.total))
    print_result(options, {'output': str(output), 'pictures': labelling.total,
                           'boxes': labelling.boxes},
                 f'{output}: {labelling.total} pictures, {labelling.boxes} boxes')


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = verb_parser(VERB, 'SOURCE --teacher FILE --output FILE', __doc__)
    parser.add_argument('source', type=Path, metavar='SOURCE',
                        help='folder of pictures, video file, or bag (folder, .mcap, .db3, .bag)')
    parser.add_argument('--folders', nargs='+', default=[], metavar='NAME',
                        help='only these folders of pictures in it')
    parser.add_argument('--frames', type=Path, metavar='FOLDER',
                        help='where frames of a video or bag are written, as JPEG in a folder of '
                        'its name')
    parser.add_argument('--every', type=positive, default=1, metavar='N',
                        help='only every N-th frame of a video or bag (default 1)')
    parser.add_argument('--topic', metavar='T', help='of images; needed if a bag has several')
    parser.add_argument('--teacher', type=Path, required=True, metavar='FILE',
                        help=".onnx, or OpenVINO's .xml, of a detector with the classes of COCO; "
                        'or .yaml of several, see config/teachers')
    parser.add_argument('--teacher-kind', choices=[AUTO, *KINDS], default=AUTO, metavar='NAME',
                        help=f'{", ".join(KINDS)} (default {AUTO}: by its outputs)')
    parser.add_argument('--output', type=Path, required=True, metavar='FILE',
                        help='COCO-video JSON; its file names start from SOURCE or --frames')
    parser.add_argument('--resume', action='store_true',
                        help='go on with frames and labels that an earlier run left')
    parser.add_argument('--stills', action='store_true',
                        help='pictures are stills; default: each folder is one video')
    parser.add_argument('--classes', nargs='+', default=list(CLASSES), metavar='NAME',
                        help='names of COCO with _ for blanks, but cattle for cow, watercraft '
                        f'for boat and sofa for couch (default {" ".join(CLASSES)})')
    parser.add_argument('--ignore', nargs='*', default=['truck'], metavar='NAME',
                        help='classes whose boxes are neither objects nor background (default '
                        'truck)')
    parser.add_argument('--min-score', type=fraction, default=0.2, metavar='S',
                        help='boxes of a lower score are not written (default 0.2)')
    parser.add_argument('--nms-threshold', type=fraction, default=0.45, metavar='IOU',
                        help='of two boxes of a class that overlap as much, one is dropped '
                        '(default 0.45)')
    add_threads(parser)
    return parser
