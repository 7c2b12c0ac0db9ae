# SPDX-License-Identifier: Apache-2.0
"""Measure accuracy at each instant while video plays at a frame rate."""

import argparse
from collections.abc import Sequence
from typing import Any

from .evaluation import add_protocols, Evaluation, evaluation_parser, prepare, run
from .options import add_latencies, add_policies, add_seed, frame_rate
from ..evaluation.accuracy import check_protocols
from ..evaluation.runs import load_latencies
from ..evaluation.streaming import OUTPUTS, PRESENT, RATES, streaming_as_text, sweep

VERB = 'evaluate streaming'


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; its exit code is 1 if something was left out, the rest being evaluated."""
    return run(VERB, make_parser().parse_args(args), _measure)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = evaluation_parser(VERB, __doc__)
    group = parser.add_argument_group('streaming')
    group.add_argument('--rates', type=frame_rate, nargs='+', default=RATES, metavar='HZ',
                       help=f'of the video (default {" ".join(map(str, RATES))})')
    add_policies(group, 'that of --policy')
    group.add_argument('--outputs', choices=tuple(OUTPUTS), nargs='+', metavar='OUTPUT',
                       default=[PRESENT],
                       help=f'of {", ".join(OUTPUTS)} (default {PRESENT})')
    add_latencies(group)
    add_seed(group, 'latencies and intervals')
    add_protocols(group)
    return parser


def _measure(options: argparse.Namespace) -> tuple[Evaluation, dict[str, Any], str]:
    check_protocols(options.protocol)
    latencies = load_latencies(options.latencies, options.seed) if options.latencies else None
    evaluation = prepare(options)
    evaluation.drop_broken()
    evaluation.detector.warm_up()
    result = {**evaluation.about, 'streaming': sweep(
        evaluation.detector, evaluation.thin(options.stride), evaluation.settings,
        options.policies or [evaluation.settings.policy], options.rates, latencies,
        options.protocol, options.outputs, options.seed)}
    return evaluation, result, streaming_as_text(result['streaming'])
