# SPDX-License-Identifier: Apache-2.0
"""Annotation files of pictures and videos: reading, checking and writing."""
