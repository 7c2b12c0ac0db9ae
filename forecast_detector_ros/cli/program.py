# SPDX-License-Identifier: Apache-2.0
"""
The one program: ``forecast-detector VERB ...``, or ``ros2 run ... forecast_detector VERB ...``.

A verb's module and its imports are loaded only when the verb is used.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
import os
import signal
import sys
from threading import current_thread, main_thread
from typing import Any, NamedTuple

from .shell import BAD_INPUT, DONE, INTERRUPTED, PROGRAM, say


class Verb(NamedTuple):
    """A verb of the program; its module is in this folder."""

    about: str
    group: str
    #: Module of several verbs, in which each is a `Command` named as the verb's last word. If
    #: empty, the verb has a module with its own name.
    module: str = ''


USE, TRAIN, MEASURE, WORKSHOP = 'use', 'train', 'measure', 'workshop'

#: All verbs, by the words that the user types.
VERBS = {
    'demo': Verb('play a video through camera, detector and recorder of ROS 2', USE),
    'replay': Verb('detect objects in the images of bags, without ROS', USE),
    'report': Verb('show a run, or two side by side, as one HTML file', USE),
    'export': Verb('write a checkpoint as ONNX, or quantise it', USE),
    'prune': Verb('drop channels of a backbone that never change', USE),
    'summary': Verb('print parameters and multiply-accumulates', USE),
    'label': Verb('label pictures, a video or a bag by a teacher', TRAIN),
    'check-data': Verb('find errors in training data', TRAIN),
    'train': Verb('train a detector from a recipe', TRAIN),
    'evaluate accuracy': Verb('measure recall, average precision, read ratio and latency',
                              MEASURE),
    'evaluate horizons': Verb('measure forecasts by frames after a read', MEASURE),
    'evaluate streaming': Verb('measure accuracy at a frame rate', MEASURE, 'evaluate'),
    'evaluate static': Verb('measure how often a still scene is read', MEASURE, 'evaluate'),
    'benchmark': Verb('measure the time of the detector and of others', MEASURE),
    'benchmark-metrics': Verb('measure the time of the metrics', WORKSHOP),
    'compare designs': Verb('compare shapes of the network: accuracy against time', WORKSHOP,
                            'compare'),
    'compare detectors': Verb('compare with other detectors: accuracy against time', WORKSHOP,
                              'compare'),
    'figures': Verb("make the paper's tables and figures", WORKSHOP),
    'reproduce': Verb("train and measure the paper's variants", WORKSHOP),
}

#: Optional libraries, each with the name for ``pip install``.
LIBRARIES = {**dict.fromkeys(('torch', 'torchvision'), 'forecast_detector_ros[torch]'),
             'matplotlib': 'matplotlib', 'PIL': 'pillow', 'jinja2': 'jinja2'}

#: Descriptions of the first words of verbs of two words.
FIRST_WORDS = {
    'evaluate': 'measure on video',
    'compare': 'compare accuracy against time',
}

#: The verbs that first words mean if no second word follows.
SHORT = {'evaluate': 'evaluate accuracy'}

EXIT_CODES = """exit codes:
  0  done
  1  done, and the result is a failure (one line on stderr)
  2  bad input (one line on stderr)
  130  interrupted"""


def main(args: Sequence[str] | None = None) -> int:
    """Run a verb with the arguments that follow; return its exit code, 2 for an unknown verb."""
    given = list(sys.argv[1:] if args is None else args)
    if '_ARGCOMPLETE' in os.environ:
        complete()
    if not given or given[0] in ('-h', '--help'):
        print(usage())
        return DONE if given else BAD_INPUT
    if given[0] in FIRST_WORDS and given[1:2] in (['-h'], ['--help']):
        print(usage_of(given[0]))
        return DONE
    if given[0] in SHORT and (len(given) == 1 or given[1].startswith('-')):
        given[:1] = SHORT[given[0]].split()
    for words in (2, 1):
        verb = ' '.join(given[:words])
        if verb in VERBS:
            try:
                return load(verb).main(given[words:])
            except KeyboardInterrupt:  # Before the work could begin.
                return INTERRUPTED
            except ModuleNotFoundError as error:
                if error.name not in LIBRARIES:
                    raise
                say(verb, f'needs {error.name}, which is not installed: pip install '
                    f'{LIBRARIES[error.name]}')
                return BAD_INPUT
    several = [name for name in VERBS if name.startswith(f'{given[0]} ')]
    print(f'{PROGRAM}: there is no verb {" ".join(given[:1 + bool(several)])!r}; it must be one '
          f'of: {", ".join(several or VERBS)}', file=sys.stderr)
    return BAD_INPUT


def load(verb: str) -> Any:
    """Import a verb's module; return the object with its `main` and `make_parser`."""
    with _interruptible():
        module = import_module(f'.{module_of(verb)}', __package__)
    return getattr(module, verb.split()[-1]) if VERBS[verb].module else module


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the program at once: Python's handler would wait for library imports."""
    if (signal.getsignal(signal.SIGINT) is not signal.default_int_handler
            or current_thread() is not main_thread()):
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def module_of(verb: str) -> str:
    """Return the name of a verb's module in this folder."""
    return VERBS[verb].module or verb.replace(' ', '_').replace('-', '_')


def usage() -> str:
    """Return the text of ``--help``: the verbs by groups."""
    lines = [f'usage: {PROGRAM} VERB ...', '', 'Detect objects in video, reading only the frames '
             'that need it.']
    for group in (USE, TRAIN, MEASURE, WORKSHOP):
        lines += ['', f'{group}:']
        seconds: dict[str, list[str]] = {}
        for name in (name for name, verb in VERBS.items() if verb.group == group):
            first, _, second = name.partition(' ')
            seconds.setdefault(first, []).append(second)
        for first, names in seconds.items():
            about = (f'{FIRST_WORDS[first]}: {", ".join(names)}' if first in FIRST_WORDS
                     else VERBS[first].about)
            lines.append(f'  {first:18} {about}')
    return '\n'.join([*lines, '', EXIT_CODES, '', f'{PROGRAM} VERB --help names its options.'])


def usage_of(word: str) -> str:
    """Return the text of ``WORD --help`` for the first word of several verbs."""
    about = FIRST_WORDS[word]
    lines = [f'usage: {PROGRAM} {word} WHAT ...', '', f'{about[0].upper()}{about[1:]}.', '']
    lines += [f'  {name:18} {verb.about}' for name, verb in VERBS.items()
              if name.startswith(f'{word} ')]
    if word in SHORT:
        lines += ['', f'{PROGRAM} {word} OPTIONS is {SHORT[word]}.']
    return '\n'.join([*lines, '', f'{PROGRAM} {word} WHAT --help names the options of each.'])


def complete() -> None:
    """Print the shell's completions and end the process; needs argcomplete."""
    import argparse

    import argcomplete

    line = os.environ.get('COMP_LINE', '').split()
    top = argparse.ArgumentParser(prog=PROGRAM)
    verbs = {'': top.add_subparsers()}
    for name, verb in VERBS.items():
        first, _, second = name.rpartition(' ')
        if first not in verbs:
            verbs[first] = verbs[''].add_parser(first).add_subparsers()
        # Imports are slow, so only the verb on the line is loaded.
        parents = [load(name).make_parser()] if set(name.split()) <= set(line) else []
        verbs[first].add_parser(second, help=verb.about, parents=parents, add_help=not parents)
    argcomplete.autocomplete(top)


if __name__ == '__main__':
    sys.exit(main())
