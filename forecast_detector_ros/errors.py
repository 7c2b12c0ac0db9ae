# SPDX-License-Identifier: Apache-2.0
"""Errors with a message of one line, and functions that shorten quoted texts."""

from __future__ import annotations

MOST_QUOTED = 200  #: Characters of a quoted text; a longer text loses its middle
MOST_MESSAGE = 300  #: Characters of a quoted message of a library


class InputError(ValueError):
    """
    An input cannot be used.

    The message is one line. It names the file, key, topic or value, and says what is valid.
    """


class MissingLibraryError(InputError):
    """An optional library is not installed; the message says how to install it."""


def one_line(error: BaseException) -> str:
    """Return an error's message, or else the name of its class, as one line."""
    return cut(str(error) or type(error).__name__, MOST_MESSAGE)


def cut(text: object, most: int = MOST_QUOTED) -> str:
    """
    Return a text as one line of at most `most` (>= 60) printable characters.

    A longer text keeps its beginning and end, with its length between them.
    """
    whole = str(text)
    # The middle of a long text is cut away anyway.
    kept = whole if len(whole) <= 4 * most else whole[:2 * most] + whole[-2 * most:]
    line = ' '.join(''.join(character if character.isprintable() else ' '
                            for character in kept).split())
    if len(line) <= most and len(kept) == len(whole):
        return line
    gap = f' [... of {len(whole)} characters] '
    side = (most - len(gap)) // 2
    return line[:side] + gap + line[-side:]
