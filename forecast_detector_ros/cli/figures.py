# SPDX-License-Identifier: Apache-2.0
"""
Make the paper's tables and figures from your own video.

Each writes its numbers as CSV and JSON into a folder; a figure also writes a PNG.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TYPE_CHECKING

import torch

from .inputs import add_videos, load_videos, named_videos
from .options import (
    add_checkpoint,
    add_device,
    add_latencies,
    add_limits,
    add_policies,
    add_policy,
    add_precision,
    add_seed,
    add_threads,
    fraction,
    frame_rate,
    given_settings,
    positive,
    whole,
)
from .results import machine
from .shell import (
    add_output,
    help_format,
    print_result,
    run_verb,
    tell_written,
    usage_line,
    verb_parser,
)
from ..detector.backends.torch_backend import resolve_device
from ..detector.checkpoint import Card, default_checkpoint, load_checkpoint
from ..detector.detector import Detector
from ..detector.host import choose_precision
from ..detector.policy import AlternatePolicy, AlwaysReadPolicy
from ..detector.settings import DetectorSettings
from ..evaluation.accuracy import check_protocols
from ..evaluation.accuracy import KEYS as PROTOCOLS
from ..evaluation.motion import AUTO, load_published, motion_of
from ..evaluation.runs import load_latencies
from ..evaluation.sequences import EvaluationError, thin, Video
from ..evaluation.streaming import RATES, streaming_as_text, sweep
from ..experiments.figure_files import (
    draw_streaming,
    new_figure,
    save_figure,
    save_numbers,
    streaming_rows,
)
from ..experiments.frame_figures import (
    chosen_frames,
    draw_error_maps,
    draw_strips,
    error_maps,
    error_rows,
    shown_frames,
    strip_rows,
    strip_values,
)
from ..experiments.paper_figures import (
    draw_trade_off,
    measure_name,
    measure_speed,
    measure_trade_off,
    over_seeds,
    recorded_speed,
    table1_row,
    table2_rows,
    THRESHOLDS,
    trade_off_as_text,
)
from ..experiments.reproduction import number_tracks
from ..experiments.reproduction_tables import (
    draw_reproduction,
    load_reproduction,
    reproduction_markdown,
    reproduction_rows,
)
from ..layout import table
from ..metrics.average_precision import group_fractions, GROUPS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERB = 'figures'


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; return its exit code."""
    return run_verb(VERB, make_parser().parse_args(args), _make)


class Made(NamedTuple):
    """A table or figure."""

    document: dict[str, Any]
    rows: Sequence[dict[str, Any]]  #: For the CSV
    text: str
    #: Pictures by the names of their files, without ``.png``.
    pictures: Mapping[str, 'Figure'] = {}


def _make(options: argparse.Namespace) -> None:
    if options.picture:
        # Report a missing matplotlib before the work, not after it.
        new_figure(1, 1)
    if 'threads' in options:
        check_protocols([options.protocol])
        torch.set_num_threads(options.threads)
        options.device = str(resolve_device(options.device))
    made: Made = options.make(options)
    save_numbers(options.output, options.name, made.document, made.rows)
    for name, picture in made.pictures.items():
        save_figure(picture, options.output / f'{name}.png')
    print_result(options, made.document, tell_written(
        made.text, options.output / f'{options.name}.json', f'{options.name}.csv',
        *(f'{name}.png' for name in made.pictures)))


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = verb_parser(VERB, 'TABLE|FIGURE ...', __doc__)
    made = parser.add_subparsers(required=True, metavar='TABLE|FIGURE')

    def start(name: str, arguments: str, text: str) -> argparse.ArgumentParser:
        sub = made.add_parser(name, help=text, description=text, formatter_class=help_format,
                              usage=usage_line(f'{VERB} {name}', arguments))
        # A value given before the figure's name must not be replaced by a default.
        add_output(sub, default=argparse.SUPPRESS)
        return sub

    def add(name: str, make: Callable[[argparse.Namespace], Made], picture: bool, text: str
            ) -> argparse.ArgumentParser:
        sub = start(name, '--output FOLDER --davis|--annotations|--mot PATH...', text)
        sub.set_defaults(make=make, picture=picture, name=name)
        sub.add_argument('--output', type=Path, required=True, metavar='FOLDER',
                         help=f'folder of {name}.json, {name}.csv' + f', {name}.png' * picture)
        add_videos(sub)
        run = sub.add_argument_group('detector (default: what the card recommends)')
        add_limits(run)
        add_device(run)
        add_precision(run)
        add_threads(run)
        run.add_argument('--protocol', choices=PROTOCOLS, default='plain', metavar='P',
                         help='plain (default), devkit or coco')
        return sub

    first = add('table1', _table1, False, 'Table 1: accuracy, device and frames per second')
    second = add('table2', _table2, False, 'Table 2: variants by slow, medium and fast objects')
    for sub in (first, second):
        sub.add_argument('--checkpoints', type=_named, nargs='+', default=[],
                         metavar='[NAME=]FILE', help='compare these (default: default)')
    add_policies(first, "always_read and the card's")
    add_policies(second, 'always_read')
    second.add_argument('--motion-iou', default=AUTO, metavar='auto|FILE',
                        help="from track_ids (default), or ImageNet VID's .mat")

    motion = start('motion', '--motion-iou FILE --output FOLDER',
                   "Slow, medium and fast objects in ImageNet VID's file")
    motion.add_argument('--motion-iou', type=Path, required=True, metavar='FILE',
                        help="ImageNet VID's .mat file")
    motion.set_defaults(make=_motion, picture=False, name='motion')
    trained = start('reproduction', '--results FILE --output FOLDER',
                    'Table 2 and Fig. 5 of a run of reproduce')
    trained.add_argument('--results', type=Path, required=True, metavar='FILE',
                         help='results.json of reproduce')
    trained.set_defaults(make=_reproduction, picture=True, name='reproduction')
    for sub, files in ((motion, 'motion.json, motion.csv'),
                       (trained, 'reproduction.json, reproduction.csv, reproduction.png')):
        sub.add_argument('--output', type=Path, required=True, metavar='FOLDER',
                         help=f'folder for {files}')
    for sub in (second, motion):
        sub.add_argument('--motion-videos', type=Path, metavar='FILE',
                         help='list of its videos (default: in its folder)')

    fourth = add('fig4', _fig4, True, 'Fig. 4: frames with boxes, red border when forecast')
    fifth = add('fig5', _fig5, True, 'Fig. 5: accuracy against frames per second')
    sixth = add('fig6', _fig6, True, 'Fig. 6: |forecast - feature| on the next frame')
    stream = add('streaming', _streaming, True,
                 'Streaming accuracy over frame rates (not in the paper)')
    for sub in (fourth, fifth, sixth, stream):
        add_checkpoint(sub)
    for sub in (fourth, sixth):
        sub.add_argument('--start', type=positive, default=1, metavar='N',
                         help='first frame that is shown (default 1)')
        sub.add_argument('--every', type=positive, default=1, metavar='N',
                         help='show every N-th frame (default 1)')
        sub.add_argument('--frames', type=positive, default=6, metavar='N',
                         help='frames of each sequence (default 6)')
    add_policy(fourth)
    add_policies(sixth, "the card's, and alternate(1)")
    sixth.add_argument('--level', type=whole, default=0, metavar='N',
                       help='level of the feature pyramid, 0 is the finest (default 0)')
    fifth.add_argument('--thresholds', type=fraction, nargs='+', default=THRESHOLDS, metavar='P',
                       help="thresholds besides the card's (default 0.1 to 0.9)")
    fifth.add_argument('--stride', type=positive, default=1, metavar='N',
                       help='every N-th frame, from N starts (default 1)')
    stream.add_argument('--rates', type=frame_rate, nargs='+', default=RATES, metavar='HZ',
                        help=f'frame rates (default {" ".join(map(str, RATES))})')
    add_policies(stream, "always_read, alternate(1), and the card's")
    for sub in (fifth, stream):
        add_latencies(sub)
    add_seed(stream, 'the drawn latencies')
    return parser


def _named(text: str) -> tuple[str, Path]:
    name, found, path = text.partition('=')
    return (name, Path(path)) if found else (Path(text).stem, Path(text))


def _checkpoint(options: argparse.Namespace) -> Path:
    return options.checkpoint or default_checkpoint()


def _settings(options: argparse.Namespace, card: Card) -> DetectorSettings:
    return replace(card.settings(), **given_settings(options))


def _device(options: argparse.Namespace) -> str:
    if options.device.startswith('cuda'):
        return torch.cuda.get_device_name(options.device)
    return f'{machine()["processor"]}, {options.threads} thread' + 's' * (options.threads > 1)


def _about(options: argparse.Namespace, videos: Sequence[Video], precision: str
           ) -> dict[str, Any]:
    """Return the sequences, the machine and the precision of a measurement."""
    return {'video': {**named_videos(options), 'frames': sum(
                len(item.frames) for item in videos)},
            'machine': {**machine(), 'device': options.device, 'precision': precision,
                        'threads': options.threads, 'torch': str(torch.__version__)}}


def _networks(options: argparse.Namespace) -> list[tuple[str, Path]]:
    default = default_checkpoint()
    return options.checkpoints or [(default.stem, default)]


def _table1(options: argparse.Namespace) -> Made:
    rows: list[dict[str, Any]] = []
    videos: list[Video] = []
    precisions: list[str] = []
    for name, path in _networks(options):
        detector = Detector.load(path, options.device, options.precision, options.threads)
        videos = load_videos(options, detector.labels)
        settings = _settings(options, detector.card)
        precisions.append(detector.precision)
        for rule in options.policies or (AlwaysReadPolicy(), settings.policy):
            rows.append({'model': name, **table1_row(detector, videos, replace(
                settings, policy=rule), options.protocol), 'device': _device(options)})
    measure = measure_name(videos, options.protocol)
    return Made(
        {**_about(options, videos, ', '.join(dict.fromkeys(precisions))), 'measure': measure,
         'rows': rows}, rows,
        table(('model', 'backbone', 'input', 'policy', measure, 'read ratio', 'fps'),
              [[row[key] for key in ('model', 'backbone', 'input', 'policy', 'accuracy',
                                     'read_ratio')] + [f'{row["fps"]:.1f}'] for row in rows],
              title=_device(options)))


def _table2(options: argparse.Namespace) -> Made:
    rows: list[dict[str, Any]] = []
    videos: list[Video] = []
    for name, path in _networks(options):
        network, card = load_checkpoint(path)
        videos = load_videos(options, card.classes)
        if options.motion_iou == AUTO:
            videos = [number_tracks(item) if item.labelled is item.truth else item
                      for item in videos]
        motion = motion_of(videos, options.motion_iou, options.motion_videos)
        rows += [{'model': name, 'checkpoint': str(path), **row} for row in table2_rows(
            network, card, videos, _settings(options, card),
            options.policies or [AlwaysReadPolicy()], options.protocol, motion, options.device,
            options.precision)]
    measure = measure_name(videos, options.protocol)
    joined = over_seeds(rows)
    keys = ('accuracy', *GROUPS)
    return Made(
        {**_about(options, videos, choose_precision(options.precision)), 'measure': measure,
         'rows': rows, 'over_trainings': joined},
        joined, table(
            ('model', 'policy', 'trainings', measure, *GROUPS),
            [[row['model'], row['policy'], row['trainings'],
              *(_spread(row[key], row[f'{key}_sd']) for key in keys)] for row in joined]))


def _motion(options: argparse.Namespace) -> Made:
    published = load_published(options.motion_iou, options.motion_videos)
    if not len(published.values):
        raise EvaluationError(f'{options.motion_iou}: has no boxes')
    rows = [{'motion': name, 'low': GROUPS[name][0], 'high': GROUPS[name][1], **counted}
            for name, counted in group_fractions(published.values).items()]
    return Made(
        {'file': str(options.motion_iou), 'videos': len(published.videos),
         'frames': len(published.starts) - 1, 'boxes': len(published.values), 'rows': rows},
        rows, table(list(rows[0]), [list(row.values()) for row in rows],
                    title=f'{len(published.videos)} videos, {len(published.starts) - 1} frames, '
                    f'{len(published.values)} boxes'))


def _reproduction(options: argparse.Namespace) -> Made:
    report = load_reproduction(options.results)
    rows = reproduction_rows(report)
    return Made({**report, 'means': rows}, rows, reproduction_markdown(report).rstrip(),
                {options.name: draw_reproduction(report)})


def _spread(value: float | None, deviation: float | None) -> str | None:
    if value is None:
        return None
    return f'{value:.3f}' + ('' if deviation is None else f' ± {deviation:.3f}')


def _fig4(options: argparse.Namespace) -> Made:
    detector = Detector.load(_checkpoint(options), options.device, options.precision,
                             options.threads)
    videos = load_videos(options, detector.labels)
    settings = _settings(options, detector.card)
    strips = [(item.name, shown_frames(detector, item, settings, chosen_frames(
        item, options.start, options.every, options.frames))) for item in videos]
    values = [row for name, frames in strips for row in strip_values(name, frames)]
    boxes = [row for name, frames in strips for row in strip_rows(name, frames, detector.labels)]
    return Made(
        {**_about(options, videos, detector.precision), 'policy': str(settings.policy),
         'score_threshold': settings.score_threshold, 'frames': values, 'boxes': boxes},
        values, table(list(values[0]), [list(row.values()) for row in values]),
        {options.name: draw_strips(
            strips, detector.labels,
            f'{detector.card.name}, {settings.policy}: red frames were not read')})


def _fig5(options: argparse.Namespace) -> Made:
    path = _checkpoint(options)
    network, card = load_checkpoint(path)
    videos = [part for item in load_videos(options, card.classes)
              for part in thin(item, options.stride)]
    settings = _settings(options, card)
    speed = (recorded_speed(load_latencies(options.latencies)) if options.latencies else
             measure_speed(Detector.load(path, options.device, options.precision,
                                         options.threads), videos, settings))
    precision = choose_precision(options.precision)
    result = {**_about(options, videos, precision), 'stride': options.stride}
    result |= measure_trade_off(
        network, card, videos, settings, speed, options.protocol, options.thresholds,
        options.device, options.precision)
    return Made(result, result['points'], trade_off_as_text(result), {
        options.name: draw_trade_off(result, f'{card.name}: {len(videos)} sequences, '
                                     f'{result["video"]["frames"]} frames')})


def _fig6(options: argparse.Namespace) -> Made:
    network, card = load_checkpoint(_checkpoint(options))
    videos = load_videos(options, card.classes)
    settings = _settings(options, card)
    rules = options.policies or [settings.policy, AlternatePolicy(1)]
    rows, maps_of, pictures = [], {}, {}
    for item in videos:
        frames = chosen_frames(item, options.start, options.every, options.frames)
        maps = error_maps(network, card, item, settings, rules, frames, options.level,
                          options.device, options.precision)
        rows += error_rows(item.name, maps)
        maps_of[item.name] = [{'rule': entry.rule, 'frame': entry.frame,
                               'error': entry.error.round(4).tolist()} for entry in maps]
        one = options.name if len(videos) == 1 else f'{options.name}_{item.name}'
        stride = network.config.levels[options.level]
        pictures[one.replace('/', '_')] = draw_error_maps(
            item, maps, f'{card.name}, stride {stride}: error of the forecast; red frames were '
            'not read')
    precision = choose_precision(options.precision)
    return Made({**_about(options, videos, precision), 'level': options.level, 'rows': rows,
                 'maps': maps_of}, rows,
                table(list(rows[0]), [list(row.values()) for row in rows]), pictures)


def _streaming(options: argparse.Namespace) -> Made:
    detector = Detector.load(_checkpoint(options), options.device, options.precision,
                             options.threads)
    videos = load_videos(options, detector.labels)
    settings = _settings(options, detector.card)
    latencies = load_latencies(options.latencies, options.seed) if options.latencies else None
    rules = options.policies or [AlwaysReadPolicy(), AlternatePolicy(1), settings.policy]
    detector.warm_up()
    result = {**_about(options, videos, detector.precision), **sweep(
        detector, videos, settings, rules, options.rates, latencies, [options.protocol])}
    origin = f'of {options.latencies.name}' if options.latencies else 'measured'
    return Made(result, streaming_rows(result), streaming_as_text(result), {
        options.name: draw_streaming(result, f'{detector.card.name}; latencies {origin}')})
