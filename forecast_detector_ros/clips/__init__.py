# SPDX-License-Identifier: Apache-2.0
"""From annotated video to training clips: scenes, motion, augmentation, cut-outs."""
