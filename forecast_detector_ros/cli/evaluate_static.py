# SPDX-License-Identifier: Apache-2.0
"""Measure how often a detector reads a still scene, beside the video itself."""

import argparse
from collections.abc import Sequence
from typing import Any

from .evaluation import Evaluation, evaluation_parser, prepare, run
from .options import positive
from ..evaluation.runs import run_video, static_as_text, summarise_static

VERB = 'evaluate static'


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; its exit code is 1 if something was left out, the rest being evaluated."""
    return run(VERB, make_parser().parse_args(args), _measure)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = evaluation_parser(VERB, __doc__)
    parser.add_argument('--frames', type=positive, default=60, metavar='N',
                        help='of each first picture, with noise (default 60)')
    return parser


def _measure(options: argparse.Namespace) -> tuple[Evaluation, dict[str, Any], str]:
    evaluation = prepare(options)
    evaluation.drop_broken()
    detector, settings = evaluation.detector, evaluation.settings
    videos = evaluation.thin(options.stride)
    moving = {item.name: float(run_video(detector, item, settings, collect=False).read.mean())
              for item in videos}
    static = summarise_static(detector, videos, settings, options.frames)
    return (evaluation, {**evaluation.about, 'static': {**static, 'moving': moving}},
            static_as_text(static, moving))
