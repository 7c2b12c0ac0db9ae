# SPDX-License-Identifier: Apache-2.0
"""Write docs/reference/commands.md from `--help`: ``python -m dev.command_help``."""
import argparse
from collections.abc import Iterator, Mapping
import os
from pathlib import Path
import sys

from forecast_detector_ros.cli import program
from forecast_detector_ros.cli.shell import PROGRAM

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'reference' / 'commands.md'

COLUMNS = 100

HEAD = """# Commands

*This page has the `--help` of all commands; `python -m dev.command_help` writes it.* [The
program](program.md) describes their common parts, such as exit codes.
"""


def parsers() -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of every verb, followed by those of its parts."""
    for verb in program.VERBS:
        parser = program.load(verb).make_parser()
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, part in action.choices.items():
                    part.prog = f'{parser.prog} {name}'
                    yield part


def helps(columns: int = COLUMNS) -> Iterator[tuple[str, str]]:
    """Yield each command and its ``--help`` text for a terminal of this width."""
    before = os.environ.get('COLUMNS')
    os.environ.update(COLUMNS=str(columns), NO_COLOR='1')
    try:
        yield PROGRAM, program.usage() + '\n'
        for word in program.FIRST_WORDS:
            yield f'{PROGRAM} {word}', program.usage_of(word) + '\n'
        for parser in parsers():
            yield parser.prog, parser.format_help()
    finally:
        if before is None:
            del os.environ['COLUMNS']
        else:
            os.environ['COLUMNS'] = before


def page(texts: Mapping[str, str]) -> str:
    """Return the text of the page; `texts` are those of `helps`."""
    return HEAD + ''.join(f'\n## {command}\n\n```\n{text}```\n'
                          for command, text in texts.items())


def main() -> int:
    """Write the page; return the exit code."""
    texts = dict(helps())
    PAGE.write_text(page(texts))
    for command, text in texts.items():
        print(f'{text.count(chr(10)):3} lines: {command}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
