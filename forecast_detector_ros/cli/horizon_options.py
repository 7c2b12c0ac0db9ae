# SPDX-License-Identifier: Apache-2.0
"""Options of `evaluate` for forecasts by horizon."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .options import positive
from ..detector.checkpoint import Card, load_checkpoint
from ..detector.settings import DetectorSettings
from ..evaluation.forecast_quality import measure_forecasts, ROWS
from ..evaluation.forecast_report import (
    forecasts_as_markdown,
    forecasts_as_text,
    summarise_forecasts,
)
from ..evaluation.sequences import EvaluationError, Footage
from ..files import write_atomically
from ..model.network import ForecastDetector

HORIZON_OPTIONS = ('optical_flow', 'rows', 'beside', 'markdown')
"""Those that mean nothing without `--horizons`."""


def add_horizons(parser: argparse.ArgumentParser) -> None:
    """Add the options that `forecasts_by_horizon` reads."""
    group = parser.add_argument_group('forecasts by horizon')
    group.add_argument('--horizons', type=positive, nargs='?', const=8, metavar='K',
                       help='also measure forecasts up to K frames after a read (default 8), '
                       'beside rivals')
    group.add_argument('--rows', choices=tuple(ROWS), nargs='+', metavar='ROW',
                       help=f'only these rivals, of {", ".join(ROWS)}')
    group.add_argument('--beside', type=_named, nargs='+', default=[], metavar='NAME=FILE',
                       help='further checkpoints whose forecasts are measured on the same frames')
    group.add_argument('--optical-flow', action='store_true',
                       help='also measure features that are moved along optical flow, which says '
                       'how far motion could carry')
    group.add_argument('--markdown', type=Path, metavar='FILE',
                       help='write the tables of recall in Markdown')


def load_beside(options: argparse.Namespace) -> dict[str, tuple[ForecastDetector, Card]]:
    """Load the further checkpoints by their names; raises RuntimeConfigError."""
    return {name: load_checkpoint(path) for name, path in options.beside}


def forecasts_by_horizon(options: argparse.Namespace, checkpoint: Path,
                         beside: dict[str, tuple[ForecastDetector, Card]],
                         footage: Sequence[Footage], settings: DetectorSettings
                         ) -> tuple[dict[str, Any], str]:
    """
    Measure what the options of `add_horizons` ask for.

    Parameters
    ----------
    options:
        With `device`, `precision`, `stride` and `seed` besides.
    checkpoint:
        What is measured.
    beside:
        From `load_beside`.
    footage:
        Whole sequences; the strides take their part of them.
    settings:
        Of the detector.

    Returns
    -------
    tuple
        The result as plain values, and as text.

    Raises
    ------
    DataError, EvaluationError, RuntimeConfigError
        With a message of one line.

    """
    if not footage:
        raise EvaluationError('--horizons: no sequence is whole')
    network, card = load_checkpoint(checkpoint)
    quality = measure_forecasts(
        network, card, footage, settings, options.horizons, options.device, options.precision,
        options.optical_flow, options.stride, options.rows, beside)
    result = summarise_forecasts(quality, options.seed)
    result['beside'] = {name: str(path) for name, path in options.beside}
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.markdown, forecasts_as_markdown(result).encode())
    return result, forecasts_as_text(result, network.config.levels)


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition('=')
    if not name or not path or name in ROWS:
        raise argparse.ArgumentTypeError(f'is {text!r}, must be NAME=FILE, and the name none of '
                                         f'{", ".join(ROWS)}')
    return name, Path(path)
