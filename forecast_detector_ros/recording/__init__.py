# SPDX-License-Identifier: Apache-2.0
"""The outputs of a run: records of frames, drawn pictures, videos, bags and messages."""
