# SPDX-License-Identifier: Apache-2.0
"""A small network."""

from ..helpers.networks import card, make_network

__all__ = ['card', 'make_network']
