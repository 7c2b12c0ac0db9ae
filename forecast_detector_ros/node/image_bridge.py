# SPDX-License-Identifier: Apache-2.0
"""Conversions that the graph's other nodes make too: cv_bridge, where it can do them."""
from __future__ import annotations

import logging
from typing import Any

import numpy as np

_LOG = logging.getLogger(__name__)


class ImageBridge:
    """
    Converts sensor_msgs/Image to BGR with cv_bridge, so that all nodes of a robot see alike.

    On a robot that is the system's cv_bridge. What it does not know, and images with padded rows,
    which its Python part would read askew, are left to the caller.
    """

    def __init__(self) -> None:
        """Look for cv_bridge; a machine may do without."""
        self._unknown: set[str] = set()
        try:
            from cv_bridge import CvBridge
        except ImportError as error:
            _LOG.info('cv_bridge is missing (%s): all images are converted by OpenCV', error)
            self._bridge: Any = None
        else:
            self._bridge = CvBridge()

    def __call__(self, message: Any, row_bytes: int) -> np.ndarray | None:
        """
        Convert a message whose header is known to be sound.

        Parameters
        ----------
        message:
            A sensor_msgs/Image.
        row_bytes:
            What a row takes without padding.

        Returns
        -------
        numpy.ndarray or None
            ``(height, width, 3)`` uint8 BGR, or None where cv_bridge cannot tell.

        """
        encoding = message.encoding
        if self._bridge is None or message.step != row_bytes or encoding in self._unknown:
            return None
        try:
            return self._bridge.imgmsg_to_cv2(message, 'bgr8')
        except Exception:  # noqa: B902
            # Ports raise CvBridgeError, KeyError, AttributeError and others for the same thing.
            _LOG.info('cv_bridge does not convert %s: OpenCV does', encoding)
            self._unknown.add(encoding)
            return None
