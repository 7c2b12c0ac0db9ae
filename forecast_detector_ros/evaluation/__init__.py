# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a detector on annotated video: accuracy, read ratio, horizons, streaming."""
