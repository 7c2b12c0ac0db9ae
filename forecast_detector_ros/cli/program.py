# SPDX-License-Identifier: Apache-2.0
"""
The one program: ``forecast-detector VERB ...``, or ``ros2 run ... forecast_detector VERB ...``.

A verb's module, with what it imports, is loaded when the verb is used.
"""

from collections.abc import Sequence
from importlib import import_module
import os
import sys
from typing import Any, NamedTuple

from .shell import BAD_INPUT, DONE, PROGRAM


class Verb(NamedTuple):
    """A verb of the program."""

    module: str
    """In this room; its ``main`` takes the arguments and gives the exit code."""
    about: str
    group: str


USE, TRAIN, MEASURE, WORKSHOP = 'use', 'train', 'measure', 'workshop'

VERBS = {
    'demo': Verb('demo', 'play a video through camera, detector and recorder over ROS 2', USE),
    'replay': Verb('replay_bag', 'detect objects in the images of bags, without ROS', USE),
    'report': Verb('report', 'show a run, or two side by side, as one HTML file', USE),
    'export': Verb('export', 'write a checkpoint as ONNX, or quantise it', USE),
    'summary': Verb('model_summary', 'print parameters and multiply-accumulates', USE),
    'label': Verb('label', 'label pictures, a video or a bag by a teacher', TRAIN),
    'check-data': Verb('check_data', 'say what is wrong with training data', TRAIN),
    'train': Verb('train', 'train a detector from a recipe', TRAIN),
    'evaluate': Verb('evaluate', 'measure a checkpoint on annotated video', MEASURE),
    'benchmark': Verb('benchmark', 'measure what the detector costs, beside rivals', MEASURE),
    'benchmark-metrics': Verb('benchmark_evaluator', 'measure what the metrics cost', WORKSHOP),
    'compare designs': Verb('compare_designs', 'compare shapes of the network: accuracy against '
                            'time', WORKSHOP),
    'compare detectors': Verb('compare_detectors', 'compare with other detectors: accuracy '
                              'against time', WORKSHOP),
    'figures': Verb('paper_figures', "make the paper's tables and figures", WORKSHOP),
    'reproduce': Verb('reproduce', "train and measure the paper's variants", WORKSHOP),
}
"""All verbs, by the words that the user types."""

EXIT_CODES = """exit codes:
  0  done
  1  done, and the result is a failure (one line on stderr)
  2  bad input (one line on stderr)
  3  train: stopped early, with a snapshot
  130  interrupted"""


def main(args: Sequence[str] | None = None) -> int:
    """Run a verb with the arguments behind it; gives its exit code, 2 if there is none such."""
    given = list(sys.argv[1:] if args is None else args)
    if '_ARGCOMPLETE' in os.environ:
        complete()
    if not given or given[0] in ('-h', '--help'):
        print(usage())
        return DONE if given else BAD_INPUT
    for words in (2, 1):
        verb = ' '.join(given[:words])
        if verb in VERBS:
            return load(verb).main(given[words:])
    several = [name for name in VERBS if name.startswith(f'{given[0]} ')]
    print(f'{PROGRAM}: there is no verb {" ".join(given[:1 + bool(several)])!r}; it must be one '
          f'of: {", ".join(several or VERBS)}', file=sys.stderr)
    return BAD_INPUT


def load(verb: str) -> Any:
    """Import the module of a verb; it has `main` and `make_parser`."""
    return import_module(f'.{VERBS[verb].module}', __package__)


def usage() -> str:
    """Give the text of ``--help``: the verbs by groups."""
    lines = [f'usage: {PROGRAM} VERB ...', '', 'Detect objects in video, reading only the frames '
             'that need it.']
    for group in (USE, TRAIN, MEASURE, WORKSHOP):
        lines += ['', f'{group}:']
        lines += [f'  {name:18} {verb.about}' for name, verb in VERBS.items()
                  if verb.group == group]
    return '\n'.join([*lines, '', EXIT_CODES, '', f'{PROGRAM} VERB --help names its options.'])


def complete() -> None:
    """Answer a shell that asks how the line could go on; needs argcomplete, and ends there."""
    import argparse

    import argcomplete

    line = os.environ.get('COMP_LINE', '').split()
    top = argparse.ArgumentParser(prog=PROGRAM)
    verbs = {'': top.add_subparsers()}
    for name, verb in VERBS.items():
        first, _, second = name.rpartition(' ')
        if first not in verbs:
            verbs[first] = verbs[''].add_parser(first).add_subparsers()
        # Only the verb on the line is worth its imports.
        parents = [load(name).make_parser()] if set(name.split()) <= set(line) else []
        verbs[first].add_parser(second, help=verb.about, parents=parents, add_help=not parents)
    argcomplete.autocomplete(top)


if __name__ == '__main__':
    sys.exit(main())
