# SPDX-License-Identifier: Apache-2.0
"""Measure forecasts 1, 2, ... frames after a read, compared with simpler rules."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .evaluate import Evaluation, evaluation_parser, prepare, run
from .options import add_seed, named_file, number_in, positive, refuse_same_names
from ..detector.checkpoint import load_checkpoint
from ..evaluation.forecast_quality import FORECAST, measure_forecasts, READ, ROWS
from ..evaluation.forecast_report import (
    AT_IOU,
    forecast_limit,
    forecasts_as_markdown,
    forecasts_as_text,
    limit_as_text,
    summarise_forecasts,
)
from ..evaluation.sequences import EvaluationError
from ..files import write_atomically
from ..jobs.locations import kept, Location, location

VERB = 'evaluate horizons'


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; its exit code is 1 if some inputs or sequences were left out."""
    return run(VERB, make_parser().parse_args(args), _measure)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = evaluation_parser(VERB, __doc__, one_stride=False)
    parser.add_argument('--markdown', type=Path, metavar='FILE',
                        help='write the tables of recall in Markdown')
    group = parser.add_argument_group('forecasts')
    group.add_argument('--horizons', type=positive, default=8, metavar='K',
                       help='forecasts after each read (default 8)')
    group.add_argument('--stride', type=positive, nargs='+', default=[1], metavar='N',
                       help='every N-th frame, from N starts (default 1)')
    group.add_argument('--rows', choices=tuple(ROWS), nargs='+', metavar='ROW',
                       help=f'only these rows, such as {READ} {FORECAST}')
    group.add_argument('--beside', type=_named, nargs='+', default=[], metavar='NAME=FILE',
                       help='further checkpoints, on the same frames')
    group.add_argument('--optical-flow', action='store_true',
                       help='also features moved by optical flow')
    group.add_argument('--within', type=number_in(float, 0, 100), metavar='POINTS',
                       help='find the longest horizon that loses at most this')
    group.add_argument('--within-iou', choices=tuple(AT_IOU), default='0.5', metavar='IOU',
                       help='for --within: 0.5 (default), 0.7 or 0.5:0.95')
    add_seed(group, 'the intervals')
    return parser


def _measure(options: argparse.Namespace) -> tuple[Evaluation, dict[str, Any], str]:
    if options.within is not None and options.rows and not {READ, FORECAST} <= set(options.rows):
        raise EvaluationError(f'--within needs the rows {READ} and {FORECAST} in --rows')
    refuse_same_names('--beside', options.beside)
    evaluation = prepare(options)
    beside = {name: load_checkpoint(kept(path)) for name, path in options.beside}
    evaluation.drop_broken()
    network, card = evaluation.checkpoint.network(), evaluation.checkpoint.card
    forecasts = summarise_forecasts(measure_forecasts(
        network, card, evaluation.videos, evaluation.settings, options.horizons,
        options.device, options.precision, options.optical_flow, options.stride, options.rows,
        beside), options.seed)
    forecasts['beside'] = {name: str(path) for name, path in options.beside}
    text = forecasts_as_text(forecasts, network.config.levels)
    if options.within is not None:
        forecasts['limit'] = forecast_limit(forecasts, options.within, options.within_iou)
        text += '\n\n' + limit_as_text(forecasts['limit'])
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.markdown, forecasts_as_markdown(forecasts).encode())
    # The network runs in PyTorch and not in the fastest back-end: its features are measured too.
    about = {**evaluation.about, 'machine': {**evaluation.about['machine'], 'backend': 'torch'}}
    return evaluation, {**about, 'forecasts': forecasts}, text


def _named(text: str) -> tuple[str, Location]:
    name, path = named_file(text, location)
    if name in ROWS:
        raise argparse.ArgumentTypeError(f'is {text!r}, its name must be none of '
                                         f'{", ".join(ROWS)}')
    return name, path
