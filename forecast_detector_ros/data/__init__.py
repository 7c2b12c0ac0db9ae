# SPDX-License-Identifier: Apache-2.0
"""Training data: annotation files, clips of frames, thinning and augmentation."""
