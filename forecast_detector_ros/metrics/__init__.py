# SPDX-License-Identifier: Apache-2.0
"""Arrays in, numbers out: matching, average precision, recall, motion."""
