# SPDX-License-Identifier: Apache-2.0
"""Measure a detector: accuracy, read ratio and latency."""
