# SPDX-License-Identifier: Apache-2.0
"""Small networks and short annotated videos."""

from ..helpers.networks import card, davis, detector, make_network, one_thread, videos

__all__ = ['card', 'davis', 'detector', 'make_network', 'one_thread', 'videos']
