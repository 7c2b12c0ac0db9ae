# SPDX-License-Identifier: Apache-2.0
"""Small networks and short annotated videos."""

from ..helpers.networks import card, davis, detector, footage, make_network, one_thread

__all__ = ['card', 'davis', 'detector', 'footage', 'make_network', 'one_thread']
