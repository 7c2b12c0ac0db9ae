# SPDX-License-Identifier: Apache-2.0
"""What every mistake of a user has in common: an error whose message is one line."""

from .foreign_text import cut

MOST_CHARACTERS = 300  #: Of a library's message


class InputError(ValueError):
    """
    Something that was given cannot be used.

    The message is one line that names the file, key, topic or value, and what would be right.
    """


class MissingLibraryError(InputError):
    """A library that an extra brings is not installed; the message says how to install it."""


def one_line(error: BaseException) -> str:
    """Give the message of a library's error as one line; the name of its class if it has none."""
    return cut(str(error) or type(error).__name__, MOST_CHARACTERS)
