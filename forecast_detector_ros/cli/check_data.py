# SPDX-License-Identifier: Apache-2.0
"""Find missing, broken and degenerate training data before a training."""

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
import logging
from pathlib import Path
import sys

from .inputs import add_outside
from .options import add_ignore_score, add_min_score, whole
from .shell import print_result, run_verb, verb_parser
from ..annotations.check import (
    check_sources,
    CheckConfig,
    plain_findings,
    Progress,
    report_lines,
    silent,
)
from ..annotations.findings import Findings
from ..annotations.sources import all_classes, COCO_VIDEO, FORMATS, SourceConfig
from ..clips.scene import load_cutouts
from ..model.config import PRESETS
from ..training.config import load_recipe

VERB = 'check-data'

MOST_LINES = 10  #: Default of --max-lines: lines of each kind of finding


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; its exit code is 1 for problems, 2 if a source cannot be read at all."""
    parser = make_parser()
    options = parser.parse_args(args)
    given = options.annotations is not None, options.images is not None
    if options.recipe is not None and (options.data is None or any(given)):
        parser.error('a recipe goes with --data, and not with --annotations or --images')
    if options.recipe is None and (not all(given) or options.data is not None):
        parser.error('give a recipe and --data, or --annotations and --images')
    if options.recipe is not None:
        for name in ('truth', 'list_file', 'classes', 'outside', 'min_score', 'ignore_score',
                     'format', 'split'):
            if getattr(options, name) != parser.get_default(name):
                option = f'--{name.removesuffix("_file").replace("_", "-")}'
                parser.error(f'{option} is for one source; a recipe has its own value')
    # The findings contain the readers' warnings.
    return run_verb(VERB, options, _check, level=logging.ERROR)


def _check(options: argparse.Namespace) -> int:
    scale, tracks = PRESETS['default'].anchor_scales[0], False
    if options.recipe is not None:
        recipe = load_recipe(options.recipe)
        root, sources, classes = options.data, recipe.sources, recipe.classes
        if recipe.validation is not None:
            sources += recipe.validation.sources
        cutouts, scale = recipe.cutouts, recipe.network_config().anchor_scales[0]
        tracks = any(map(recipe.forecasts_motion, recipe.stages))
    else:
        source = SourceConfig(str(options.annotations), str(options.images), options.format,
                              'still' if options.format == 'imagenet_det' else 'video',
                              truth=str(options.truth or ''), split=options.split,
                              min_score=options.min_score, ignore_score=options.ignore_score,
                              list_file=str(options.list_file or ''),
                              outside=options.outside)
        root, sources, cutouts = Path(), (source,), ''
        classes = tuple(options.classes or all_classes(source, root))
    config = CheckConfig(
        None if options.full else options.sample,
        None if options.full or options.decode else CheckConfig().most_annotations,
        options.decode, scale, tracks)
    result = check_sources(sources, root, classes, config, options.max_lines,
                           _progress(sys.stderr.isatty() and not options.quiet),
                           partial(_labels, root / cutouts, classes) if cutouts else None)
    print_result(options, plain_findings(result), '\n'.join(report_lines(result)))
    return result.exit_code


def _labels(folder: Path, classes: Sequence[str], findings: Findings) -> list[int]:
    return [cutout.label for cutout in load_cutouts(folder, classes, findings)]


def _progress(terminal: bool) -> Progress:
    """Return a progress bar if there is a terminal and rich is installed; else no progress."""
    if not terminal:
        return silent
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError:
        return silent

    def bar(things: Iterable, total: int, text: str) -> Iterable:
        return track(things, text, total, console=Console(stderr=True))
    return bar


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = verb_parser(VERB, 'RECIPE --data FOLDER|--annotations PATH --images FOLDER', __doc__)
    parser.add_argument('recipe', type=Path, nargs='?', metavar='RECIPE',
                        help='YAML file, such as config/training/*.yaml: check its sources')
    parser.add_argument('--data', type=Path, metavar='FOLDER',
                        help='folder that the paths in the recipe start from')
    single = parser.add_argument_group('one source without a recipe')
    single.add_argument('--annotations', type=Path, metavar='PATH',
                        help='the JSON, or the folder of annotations')
    single.add_argument('--images', type=Path, metavar='FOLDER', help='folder of the pictures')
    add_outside(single)
    single.add_argument('--truth', type=Path, metavar='FILE',
                        help="COCO-video JSON of true boxes in a teacher's place")
    add_min_score(single, 0.0)
    add_ignore_score(single, 0.0)
    single.add_argument('--format', choices=FORMATS, default=COCO_VIDEO, metavar='NAME',
                        help=f'{", ".join(FORMATS)} (default {COCO_VIDEO})')
    single.add_argument('--list', type=Path, dest='list_file', metavar='FILE',
                        help='list of frames, snippets, pictures or sequences')
    single.add_argument('--split', default='train', metavar='NAME',
                        help="ImageNet's split, if there is no --list (default train)")
    single.add_argument('--classes', nargs='+', metavar='NAME',
                        help='classes to train (default: all of the source)')
    parser.add_argument('--max-lines', type=whole, default=MOST_LINES, metavar='N',
                        help=f'lines of each kind of finding (default {MOST_LINES})')
    parser.add_argument('--sample', type=whole, default=CheckConfig().sample, metavar='N',
                        help='pictures of each source whose header is read '
                        f'(default {CheckConfig().sample})')
    parser.add_argument('--full', action='store_true',
                        help='read every header, and every annotation of ImageNet (default: at '
                        f'most {CheckConfig().most_annotations} per source)')
    parser.add_argument('--decode', action='store_true', help='decode every picture')
    return parser
