# SPDX-License-Identifier: Apache-2.0
"""Label folders of pictures or frames by a teacher and write COCO-video JSON with scores."""

import argparse
from collections.abc import Sequence
import json
import logging
from pathlib import Path
import sys

from ..runtime.checkpoint import write_atomically
from ..training.labelling import label_folders, picture_folders
from ..training.teacher import TeacherError, YoloxTeacher

CLASSES = ('person', 'airplane', 'bear', 'bicycle', 'bird', 'bus', 'car', 'cattle', 'dog', 'cat',
           'elephant', 'horse', 'motorcycle', 'sheep', 'train', 'watercraft', 'zebra')
"""Person, and what ImageNet VID and COCO have in common."""

_log = logging.getLogger(__name__)


def main(args: Sequence[str] | None = None) -> int:
    """Run the program; 0, or 1 after one line on stderr when the input cannot be used."""
    logging.basicConfig(format='%(levelname)s: %(message)s', level=logging.INFO)
    options = _parser().parse_args(args)
    try:
        folders = picture_folders(options.root, options.folders)
        teacher = YoloxTeacher(options.teacher, options.min_score, options.nms_threshold,
                               options.threads)
        document = label_folders(
            teacher.detect, options.root, folders, options.classes, options.ignore,
            not options.stills,
            f'labels by {options.teacher.name}, score >= {options.min_score:g}, class-wise NMS '
            f'{options.nms_threshold:g}; boxes xywh in pixels of the stored pictures; '
            f'ignore_annotations: {", ".join(options.ignore) or "none"}',
            lambda name, boxes: _log.info('%s: %d pictures, %d boxes', name, len(folders[name]),
                                          boxes))
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.output, (json.dumps(document) + '\n').encode())
    except TeacherError as error:
        print(f'label: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        print(f'label: {error.filename}: {error.strerror}', file=sys.stderr)
        return 1
    _log.info('%s: %d pictures, %d boxes', options.output, len(document['images']),
              len(document['annotations']))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='label', description=__doc__)
    parser.add_argument('root', type=Path,
                        help='folder; file names in the output are relative to it')
    parser.add_argument('--folders', nargs='+', default=[], metavar='NAME',
                        help='only these folders in it')
    parser.add_argument('--teacher', type=Path, required=True, metavar='FILE',
                        help='.onnx of a YOLOX with the 80 classes of COCO')
    parser.add_argument('--output', type=Path, required=True, metavar='FILE')
    parser.add_argument('--stills', action='store_true',
                        help='pictures are stills; default: each folder is one video')
    parser.add_argument('--classes', nargs='+', default=list(CLASSES), metavar='NAME',
                        help='names of COCO, but cattle for cow and watercraft for boat '
                        f'(default: {" ".join(CLASSES)})')
    parser.add_argument('--ignore', nargs='*', default=['truck'], metavar='NAME',
                        help='classes whose boxes are neither objects nor background '
                        '(default: truck)')
    parser.add_argument('--min-score', type=_fraction, default=0.2, metavar='S',
                        help='default 0.2')
    parser.add_argument('--nms-threshold', type=_fraction, default=0.45, metavar='IOU',
                        help='default 0.45')
    parser.add_argument('--threads', type=int, default=1, help='of onnxruntime (default 1)')
    return parser


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'is {text}, must be in [0, 1]')
    return value


if __name__ == '__main__':
    sys.exit(main())
