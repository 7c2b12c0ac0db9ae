# SPDX-License-Identifier: Apache-2.0
"""Training clips from annotated video: scenes, motion, augmentation, cut-outs."""
