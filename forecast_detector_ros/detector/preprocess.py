# SPDX-License-Identifier: Apache-2.0
"""Preprocessing: one resize; everything else is inside the network's graph."""

import cv2
import numpy as np

from ..images.frame import as_bgr, Pixels


def resize(pixels: Pixels, input_size: tuple[int, int]) -> np.ndarray:
    """
    Bring a picture to the network's input.

    The picture is stretched, its aspect ratio is not kept.  Channels are swapped after the
    resize, where there are few pixels left.

    Parameters
    ----------
    pixels:
        The picture, of any size; it is not changed.
    input_size:
        (height, width) of the result.

    Returns
    -------
    numpy.ndarray
        ``(height, width, 3)`` uint8 BGR, contiguous and writable; the picture's own memory where
        that is all of it.

    """
    array = pixels.array
    if pixels.size != input_size:
        array = cv2.resize(array, (input_size[1], input_size[0]),
                           interpolation=cv2.INTER_LINEAR)
    # PyTorch warns of memory that is read-only, such as the bytes of a recorded message.
    return np.require(as_bgr(array, pixels.order), requirements=('C', 'W'))
