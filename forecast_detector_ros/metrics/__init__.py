# SPDX-License-Identifier: Apache-2.0
"""Metrics of arrays: matching, average precision, recall, motion."""
