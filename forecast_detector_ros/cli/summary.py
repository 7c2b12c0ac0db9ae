# SPDX-License-Identifier: Apache-2.0
"""Print the parameters and multiply-accumulates of every part of a network."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from .options import add_checkpoint, positive
from .shell import print_result, run_verb, verb_parser
from ..detector.checkpoint import default_checkpoint, load_checkpoint
from ..model.config import ConfigError, NetworkConfig, preset, PRESETS
from ..model.summary import Part, summarise, Summary

VERB = 'summary'

PAPER_CLASSES = 30  #: Classes of ImageNet VID, the paper's data (section 4.1)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = verb_parser(
        VERB, '', 'Print parameters and multiply-accumulates (MACs) of every part of a '
        'network, for a step that reads an image and for one that forecasts.')
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--preset', metavar='NAME',
                        help=f'preset in place of a checkpoint: {", ".join(sorted(PRESETS))}')
    add_checkpoint(source)
    parser.add_argument('--classes', type=positive, metavar='N',
                        help='classes of a preset, without background '
                             f'(default {PAPER_CLASSES})')
    return parser


def _configure(arguments: argparse.Namespace) -> tuple[str, NetworkConfig]:
    """Return name and configuration of the network that the options name."""
    if arguments.preset is not None:
        classes = PAPER_CLASSES if arguments.classes is None else arguments.classes
        return arguments.preset, preset(arguments.preset, classes)
    if arguments.classes is not None:
        raise ConfigError('--classes goes with --preset; a checkpoint has its own classes')
    _, card = load_checkpoint(arguments.checkpoint or default_checkpoint())
    return card.name, card.network


def format_table(name: str, config: NetworkConfig, summary: Summary) -> str:
    """Write a summary as a table: parameters in full, MACs in millions."""
    height, width = config.input_size
    lines = [f'{name}: {config.classes} classes, input {height}x{width}, {config.variant}, '
             f'{config.forecast_mode} forecast',
             '',
             f'{"part":24}{"parameters":>12}{"read MMAC":>12}{"forecast MMAC":>16}']
    rule = '-' * len(lines[-1])
    lines.append(rule)
    lines += [_row(part) for part in summary.parts]
    lines += [rule, _row(summary.total), '',
              f'A forecast step takes {100 * summary.forecast_share:.2g} % of the '
              'multiply-accumulates of a read step.']
    return '\n'.join(lines)


def _row(part: Part) -> str:
    return (f'{part.name:24}{part.parameters:>12,}{part.read_macs / 1e6:>12.1f}'
            f'{part.forecast_macs / 1e6:>16.1f}')


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; return its exit code."""
    return run_verb(VERB, make_parser().parse_args(args), _summarise)


def _summarise(arguments: argparse.Namespace) -> None:
    name, config = _configure(arguments)
    summary = summarise(config)
    print_result(arguments, {
        'name': name, 'network': config.to_dict(),
        'parts': [asdict(part) for part in summary.parts], 'total': asdict(summary.total),
        'forecast_share': summary.forecast_share}, format_table(name, config, summary))
