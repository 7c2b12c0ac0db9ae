# SPDX-License-Identifier: Apache-2.0
"""Quote what others wrote, in a log line or a message, at a length that can be read."""
from __future__ import annotations

MOST_CHARACTERS = 200  #: Of a text that is quoted; longer ones lose their middle


def cut(text: object, most: int = MOST_CHARACTERS) -> str:
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
