# SPDX-License-Identifier: Apache-2.0
"""Compare the extractor with torchvision's MobileNetV2 of the same weights."""
from forecast_detector_ros.model.extractor import (
    Extractor,
    feature_sizes,
    fold_batch_norm,
    freeze_batch_norm,
    parameter_count,
    WIDTHS,
)
import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

# (expansion of block 13, last map) of Sandler et al. 2018, table 2, times alpha, rounded to
# multiples of 8 as in the authors' code.
CHANNELS = {0.35: (192, 1280), 0.5: (288, 1280), 0.75: (432, 1280), 1.0: (576, 1280),
            1.4: (816, 1792)}


@pytest.mark.parametrize('width', WIDTHS)
def test_features_are_those_of_torchvision(width, enliven):
    reference = enliven(mobilenet_v2(weights=None, width_mult=width)).eval()
    extractor = Extractor(width, (16, 32), CHANNELS[width]).eval()
    assert all(isinstance(part, nn.Identity) for part in extractor.projections)
    extractor.load_imagenet(reference.state_dict())
    taps = []
    reference.features[14].conv[0].register_forward_hook(
        lambda module, inputs, output: taps.append(output))
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        middle, deep = extractor(image)
        expected = reference.features(image)
    assert torch.equal(middle, taps[0])
    assert torch.equal(deep, expected)
    assert middle.shape == (1, CHANNELS[width][0], 4, 6)
    assert deep.shape == (1, CHANNELS[width][1], 2, 3)
    assert expected.std() > 0.01, 'features that are all the same would prove nothing'
    assert parameter_count(extractor) == parameter_count(reference.features)


@pytest.mark.parametrize('levels, channels', [
    ((32,), (1280,)), ((32,), (256,)), ((16, 32), (96, 256)), ((16, 32), (192, 256)),
    ((16, 32), (96, 1280))])
def test_levels_and_channels(levels, channels, enliven):
    extractor = enliven(Extractor(0.35, levels, channels)).eval()
    image = torch.randn(2, 3, 97, 65)       # sides are not multiples of a stride
    with torch.no_grad():
        feature = extractor(image)
    assert [tuple(x.shape) for x in feature] == [
        (2, c, *size) for c, size in zip(channels, feature_sizes((97, 65), levels))]
    for x in feature:
        assert x.min() >= 0.0 and x.max() <= 6.0 and x.std() > 0
    native = {16: 192, 32: 1280}
    for stride, c, projection in zip(levels, channels, extractor.projections):
        assert isinstance(projection, nn.Identity) == (native[stride] == c)


def test_projection_is_conv_norm_relu6(enliven):
    whole = enliven(Extractor(0.35, (32,), (1280,))).eval()
    projected = enliven(Extractor(0.35, (32,), (40,)), seed=1).eval()
    projected.load_state_dict(whole.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 64)
    conv, norm, _ = projected.projections[0]
    with torch.no_grad():
        deep, = whole(image)
        x = torch.einsum('oc,bchw->bohw', conv.weight[:, :, 0, 0], deep)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        x = (x - norm.running_mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
        x = (x + norm.bias.view(1, -1, 1, 1)).clamp(0, 6)
        feature, = projected(image)
    torch.testing.assert_close(feature, x, atol=1e-5, rtol=1e-5)


def test_projections_keep_their_weights_when_imagenet_is_loaded():
    extractor = Extractor(0.35, (16, 32), (8, 8))
    before = {key: value.clone() for key, value in extractor.projections.state_dict().items()}
    extractor.load_imagenet(mobilenet_v2(weights=None, width_mult=0.35).state_dict())
    after = extractor.projections.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_imagenet_weights_that_do_not_fit():
    extractor = Extractor(0.35)
    state = mobilenet_v2(weights=None, width_mult=0.35).state_dict()
    del state['features.14.conv.0.1.running_var']
    with pytest.raises(ValueError, match='lack features.14.conv.0.1.running_var'):
        extractor.load_imagenet(state)
    with pytest.raises(ValueError, match='do not fit this width'):
        extractor.load_imagenet(mobilenet_v2(weights=None, width_mult=0.5).state_dict())


@pytest.mark.parametrize('arguments, key', [
    ((0.3,), 'width'), ((1.0, (8, 32)), 'levels'), ((1.0, (32, 16)), 'levels'),
    ((1.0, (16, 32), (64,)), 'feature_channels')])
def test_bad_arguments(arguments, key):
    with pytest.raises(ValueError, match=f'^{key} is'):
        Extractor(*arguments)


def test_freeze_batch_norm_keeps_the_statistics():
    extractor = Extractor(0.35, (32,), (8,)).train()
    freeze_batch_norm(extractor)
    before = {key: value.clone() for key, value in extractor.state_dict().items()}
    extractor(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[key]) for key, value in extractor.state_dict().items())
    assert extractor.training


def trained_extractor() -> Extractor:
    """Return an extractor whose BatchNorms have random statistics and weights."""
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
