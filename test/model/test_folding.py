# SPDX-License-Identifier: Apache-2.0
"""A folded module is the same function with its BatchNorms gone."""

from forecast_detector_ros.model.extractor import Extractor
from forecast_detector_ros.model.folding import fold_batch_norm
import torch
from torch import nn


def trained_extractor() -> Extractor:
    """Return an extractor whose BatchNorms have statistics and weights of their own."""
    torch.manual_seed(0)
    extractor = Extractor(0.35, (16, 32), (16, 24))
    for part in extractor.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return extractor.eval()


def test_folded_extractor_gives_the_same_maps_without_batch_norms():
    extractor = trained_extractor()
    folded = fold_batch_norm(extractor)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    image = torch.randn(2, 3, 64, 96)
    for expected, found in zip(extractor(image), folded(image)):
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_module_itself_is_not_changed():
    extractor = trained_extractor()
    before = {key: value.clone() for key, value in extractor.state_dict().items()}
    fold_batch_norm(extractor)
    after = extractor.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_batch_norm_that_follows_no_convolution_stays():
    module = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU())
    folded = fold_batch_norm(module)
    assert isinstance(folded[1], nn.BatchNorm2d)
