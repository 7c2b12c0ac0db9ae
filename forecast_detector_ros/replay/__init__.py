# SPDX-License-Identifier: Apache-2.0
"""Bags through the detector: schedule, truth, outputs, sums over many."""
