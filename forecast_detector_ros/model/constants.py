# SPDX-License-Identifier: Apache-2.0
"""Numbers and names of the network that are needed without PyTorch, too."""

WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.4)
"""Width multipliers of MobileNetV2 (Sandler et al. 2018, table 4) that are accepted."""

LITERAL_CHANNELS = 1280
"""Channels of the last map of MobileNetV2 up to width 1.0 (Sandler et al. 2018, table 2)."""

LEVELS = ((32,), (16, 32), (8, 16, 32))
"""Sets of levels, by their strides."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's RGB values in [0, 1], of torchvision's reference training."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of the same."""

FEATURE_MODES = ('direct', 'residual')
"""How an encoder's output is made: from the LSTM alone, or as a change of its input."""

EXPECTED = 'expected'

REFERENCES = ('temporal', 'fused', 'feature', EXPECTED)
"""
Maps that `forecast` can be correlated with.

The paper's text names F-tilde (`fused`) and F-hat (`temporal`). All but `expected` are made from
one frame. `expected` is the forecast that had been made of the frame that was read last: where
that differs from the new forecast, something moved.
"""

LINEAR, GEOMETRIC = SPACINGS = ('linear', 'geometric')
"""How anchors grow from map to map: by a difference, as in SSD, or by a factor."""

BOX_CODER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Weights of (dx, dy, dw, dh): the inverse of SSD's variances 0.1 and 0.2."""
