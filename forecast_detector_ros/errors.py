# SPDX-License-Identifier: Apache-2.0
"""Errors whose message is one line, and quoting what others wrote at a length to be read."""

from __future__ import annotations

MOST_QUOTED = 200  #: Characters of a text that is quoted; longer ones lose their middle
MOST_MESSAGE = 300  #: Characters of a library's message


class InputError(ValueError):
    """
    Something that was given cannot be used.

    The message is one line that names the file, key, topic or value, and what would be right.
    """


class MissingLibraryError(InputError):
    """A library that an extra brings is not installed; the message says how to install it."""


def one_line(error: BaseException) -> str:
    """Give the message of a library's error as one line; the name of its class if it has none."""
    return cut(str(error) or type(error).__name__, MOST_MESSAGE)


def cut(text: object, most: int = MOST_QUOTED) -> str:
    """
    Return a text on one line, without characters that cannot be printed, of `most` characters.

    A longer one keeps its beginning and its end, and says how long it was. `most` is at least 60.
    """
    whole = str(text)
    # What is cut away anyway need not be looked at.
    kept = whole if len(whole) <= 4 * most else whole[:2 * most] + whole[-2 * most:]
    line = ' '.join(''.join(character if character.isprintable() else ' '
                            for character in kept).split())
    if len(line) <= most and len(kept) == len(whole):
        return line
    gap = f' [... of {len(whole)} characters] '
    side = (most - len(gap)) // 2
    return line[:side] + gap + line[-side:]
