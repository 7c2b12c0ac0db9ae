# SPDX-License-Identifier: Apache-2.0
"""The one exception that unusable training data raises."""


class DataError(ValueError):
    """Training data cannot be used; the message is one line naming the file and the key."""
