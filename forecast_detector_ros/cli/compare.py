# SPDX-License-Identifier: Apache-2.0
"""Compare accuracy and time: of network shapes that are trained alike, and of detectors."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
import sys

import torch

from .inputs import (
    add_backbone,
    add_held_out,
    add_training,
    add_videos,
    load_held_out,
    load_videos,
    named_videos,
)
from .options import (
    add_backend,
    add_policies,
    add_precision,
    add_seed,
    add_threads,
    fraction,
    named_file,
    policy,
    positive,
    refuse_same_names,
)
from .results import machine, versions
from .shell import (
    Command,
    command_line,
    print_result,
    run_verb,
    show_progress,
    tell_written,
    verb_parser,
)
from ..benchmark.peers import RUNTIMES, TORCHVISION, torchvision_peers
from ..detector.detector import Detector
from ..detector.host import keep_large_blocks
from ..detector.policy import AlwaysReadPolicy
from ..evaluation.sequences import EvaluationError, Video
from ..experiments.designs import (
    compare_designs,
    describe_designs,
    design_rows,
    DesignPlan,
    load_designs,
)
from ..experiments.figure_files import new_figure
from ..experiments.prices import (
    compared_classes,
    Contestant,
    draw_prices,
    measure_prices,
    own_contestant,
    peer_contestant,
    price_rows,
    timed_contestant,
)
from ..files import write_atomically, write_json
from ..labelling.teacher_kinds import open_teacher
from ..layout import markdown
from ..training.config import load_recipe
from ..training.trainer import load_backbone, TrainingDivergedError

DESIGNS, DETECTORS = 'compare designs', 'compare detectors'


def _designs_parser() -> argparse.ArgumentParser:
    result = verb_parser(
        DESIGNS, 'RECIPE DESIGNS --data FOLDER --output FOLDER --annotations FILE --images FOLDER '
        '--sequences NAME...', 'Compare shapes of the network: train them alike, and measure '
        'accuracy and time.')
    add_training(result, 'YAML file; its first stage, of the variant baseline, trains every '
                 'design', 'checkpoints, designs.json and designs.md')
    result.add_argument('designs', type=Path, metavar='DESIGNS',
                        help='YAML file: designs by name, each with its changes of the recipe')
    add_backbone(result)
    add_held_out(result)
    result.add_argument('--rounds', type=positive, default=100, metavar='N',
                        help='timed runs of each step (default %(default)s)')
    result.add_argument('--timings-only', action='store_true',
                        help='only time the steps again, in the folder of a finished comparison')
    return result


def _main_designs(args: Sequence[str] | None) -> int:
    """Run the verb; its exit code is 1 if a training diverged."""
    given = list(sys.argv[1:] if args is None else args)
    return run_verb(DESIGNS, _designs_parser().parse_args(given),
                    partial(_run_designs, command=command_line(DESIGNS, given)),
                    failures=(TrainingDivergedError,),
                    interrupted='interrupted; the same command continues the run')


def _run_designs(options: argparse.Namespace, command: str) -> None:
    keep_large_blocks()
    recipe = load_recipe(options.recipe)
    torch.set_num_threads(recipe.threads)
    designs = load_designs(options.designs, recipe)
    imagenet = load_backbone(options.backbone) if options.backbone else None
    plan = DesignPlan(recipe, designs, options.data, options.output,
                      load_held_out(options, recipe.classes), imagenet, options.rounds)
    with show_progress('rounds') as show:
        report = compare_designs(plan, options.timings_only, show)
    about = {'command': command, 'machine': machine(), 'versions': versions('openvino')}
    result = {**about, **report}
    text = f'{describe_designs(report)}\n\n{markdown(design_rows(report))}'
    write_json(options.output / 'designs.json', result, indent=2, nan=True)
    write_atomically(options.output / 'designs.md', f'{text}\n'.encode())
    print_result(options, result, tell_written(text, options.output / 'designs.json',
                                               'designs.md'))


designs = Command(_main_designs, _designs_parser)


def _main_detectors(args: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if args is None else args)
    return run_verb(DETECTORS, _detectors_parser().parse_args(given),
                    partial(_run_detectors, command=command_line(DETECTORS, given)))


def _run_detectors(options: argparse.Namespace, command: str) -> None:
    # Report a missing matplotlib before the work, not after it.
    new_figure(1, 1)
    torch.set_num_threads(options.threads)
    refuse_same_names('--checkpoints and --peers', [*options.checkpoints, *options.peers])
    contestants, weights, backend, precision = _contestants(options)
    classes = compared_classes(contestants)
    if not classes:
        raise EvaluationError('the detectors have no class in common')
    videos = [_shortened(item, options.frames) for item in load_videos(options, classes)]
    with show_progress('frames') as show:
        prices = measure_prices(contestants, videos, classes, options.seed, show)
    report = {
        'command': command, 'machine': machine(), 'versions': versions(*RUNTIMES),
        'video': named_videos(options), 'classes': list(classes),
        'sequences': [item.name for item in videos],
        'frames': sum(len(item.frames) for item in videos),
        'boxes': sum(len(item.truth) for item in videos),
        'backend': backend, 'precision': precision, 'threads': options.threads,
        'peer_score': options.peer_score,
        'checkpoints': weights, 'prices': [asdict(price) for price in prices]}
    text = f'{_about(report)}\n\n{markdown(price_rows(prices))}'
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(options.output / 'prices.json', report)
    write_atomically(options.output / 'prices.md', f'{text}\n'.encode())
    draw_prices(prices, options.output / 'prices.png', options.threads)
    print_result(options, report, tell_written(text, options.output / 'prices.json', 'prices.md',
                                               'prices.png'))


def _contestants(options: argparse.Namespace
                 ) -> tuple[list[Contestant], dict[str, str], str, str]:
    """Open all detectors; return them, the checkpoints' digests, back-end and precisions."""
    found, weights, backend, precisions = [], {}, '', []
    for name, path in options.checkpoints:
        detector = Detector.load(path, 'cpu', options.precision, options.threads,
                                 backend=options.backend)
        detector.warm_up()
        weights[name], backend = detector.card.weights_sha256, detector.backend
        precisions.append(detector.precision)
        for chosen in [*(options.policies or [AlwaysReadPolicy(), None]), *options.more_policies]:
            settings = detector.card.settings()
            found.append(own_contestant(name, detector, settings if chosen is None
                                        else replace(settings, policy=chosen)))
    for name, path in options.peers:
        found.append(peer_contestant(name, open_teacher(
            path, min_score=options.peer_score, threads=options.threads,
            prefer_openvino=backend == 'openvino')))
    runtime = backend if backend in RUNTIMES else 'torch'
    found += [timed_contestant(peer) for peer in torchvision_peers(
        [runtime], options.threads, options.torchvision)]
    return found, weights, backend, ', '.join(sorted({*precisions}))


def _shortened(video: Video, frames: int | None) -> Video:
    if frames is None or frames >= len(video.frames):
        return video
    return replace(video, frames=video.frames[:frames], labelled=None,
                   truth=video.truth.select(video.truth.frames < frames))


def _about(report: dict) -> str:
    return (f'Recall in points (IoU 0.5, {len(report["classes"])} classes, mean over '
            f'{len(report["sequences"])} sequences with {report["frames"]} frames and '
            f'{report["boxes"]} boxes). Milliseconds: {report["machine"]["processor"]}, '
            f'{report["backend"]} {report["precision"]}, {report["threads"]} thread(s); medians '
            'of read and forecast frames in their proportion; all take turns on each frame. Other '
            'detectors compute in fp32, and show boxes from a score of '
            f'{report["peer_score"]:g} on.')


def _detectors_parser() -> argparse.ArgumentParser:
    parser = verb_parser(
        DETECTORS,
        '--davis|--annotations|--mot PATH... --checkpoints NAME=FILE... --output FOLDER',
        'Measure recall and milliseconds per frame of several detectors in one run over '
        'annotated video.')
    parser.add_argument('--output', type=Path, required=True, metavar='FOLDER',
                        help='folder of prices.json, prices.md and prices.png')
    add_videos(parser)
    parser.add_argument('--frames', type=positive, metavar='N',
                        help='only the first N frames of every sequence')
    parser.add_argument('--checkpoints', type=named_file, nargs='+', required=True,
                        metavar='NAME=FILE', help='checkpoints of this package, each with the '
                        'score threshold of its card')
    add_policies(parser, "always_read and the card's")
    parser.add_argument('--more-policies', type=policy, nargs='+', default=[], metavar='P',
                        help='further policies')
    parser.add_argument('--peers', type=named_file, nargs='+', default=[], metavar='NAME=FILE',
                        help='other detectors, as --teacher of label')
    parser.add_argument('--peer-score', type=fraction, default=0.3, metavar='S',
                        help='boxes of --peers with a lower score do not count (default 0.3)')
    parser.add_argument('--torchvision', nargs='*', choices=list(TORCHVISION), metavar='NAME',
                        default=['ssdlite320_mobilenet_v3_large'],
                        help='networks with random weights, only timed '
                        f'({", ".join(TORCHVISION)}; default: the first)')
    add_backend(parser)
    add_precision(parser)
    add_threads(parser)
    add_seed(parser, 'the orders in which they take turns')
    return parser


detectors = Command(_main_detectors, _detectors_parser)
