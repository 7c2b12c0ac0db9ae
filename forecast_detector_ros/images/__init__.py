# SPDX-License-Identifier: Apache-2.0
"""Everything that gives pixels: frames, image messages, video files, bags."""
