# SPDX-License-Identifier: Apache-2.0
"""Sources of pictures: frames, image messages, video files, bags."""
