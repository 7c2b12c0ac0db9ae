# SPDX-License-Identifier: Apache-2.0
"""Fold BatchNorm into the convolution before it: the same function with fewer passes."""

from copy import deepcopy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """
    Copy a module in evaluation mode, with every BatchNorm folded into its convolution.

    Only a BatchNorm is folded that directly follows a convolution in a `Sequential`, or is called
    `norm` beside a `conv`; an identity takes its place, so that children keep their names.
    Attention: the copy has weights of its own and does not follow later changes of the module's.

    Parameters
    ----------
    module:
        Any module; it is not changed.

    """
    folded = deepcopy(module).eval()
    for part in list(folded.modules()):
        children = list(part.named_children())
        if not isinstance(part, nn.Sequential):
            children = [child for child in children if child[0] in ('conv', 'norm')]
        for (name, first), (next_name, second) in pairwise(children):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(part, name, fuse_conv_bn_eval(first, second))
                setattr(part, next_name, nn.Identity())
    return folded
