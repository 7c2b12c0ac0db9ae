# SPDX-License-Identifier: Apache-2.0
"""Drop channels of a checkpoint's backbone that have one value for every image."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load
import torch

from .options import add_checkpoint
from .shell import print_result, run_verb, verb_parser, VerbFailedError
from ..detector.checkpoint import default_checkpoint, read_checkpoint, save_checkpoint
from ..model.extractor import parameter_count

VERB = 'prune'

MOST_DIFFERENCE = 0.05  #: Largest accepted difference of the features, which are from 0 to 6


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = verb_parser(
        VERB, '--output FILE', 'Drop channels of the backbone that have one value for every '
        'image. The boxes stay the same, and a read is faster.')
    add_checkpoint(parser)
    parser.add_argument('--output', type=Path, required=True, metavar='FILE',
                        help='the new checkpoint, .safetensors; its card goes beside it')
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; its exit code is 1 if the features would not stay the same."""
    return run_verb(VERB, make_parser().parse_args(args), _prune, files=('output',))


@torch.no_grad()
def _prune(options: argparse.Namespace) -> None:
    checkpoint = read_checkpoint(options.checkpoint or default_checkpoint())
    network, card = checkpoint.network(), checkpoint.card
    stored = {value.dtype for value in load(checkpoint.data).values() if value.is_floating_point()}
    image = torch.randn(1, 3, *card.input_size, generator=torch.Generator().manual_seed(0))
    before, features = parameter_count(network), network.extractor(image)
    network.drop_constant_channels()
    difference = max(float((old - new).abs().max())
                     for old, new in zip(features, network.extractor(image)))
    # Written so that NaN fails.
    if not difference <= MOST_DIFFERENCE:
        raise VerbFailedError(f'the features would change by {difference:.2g}, at most '
                              f'{MOST_DIFFERENCE:g} is allowed; nothing is written')
    save_checkpoint(options.output, network, card, max(stored, key=lambda dtype: dtype.itemsize))
    after, left = parameter_count(network), list(network.config.expansion_channels or ())
    print_result(
        options, {'checkpoint': str(options.output), 'expansion_channels': left,
                  'parameters': after, 'parameters_before': before, 'difference': difference},
        f'{options.output}: {after:,} parameters ({before:,} before), expansion_channels {left}, '
        f'largest difference of features {difference:.1g}')
