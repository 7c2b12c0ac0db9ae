# SPDX-License-Identifier: Apache-2.0
"""Compare counted multiply-accumulates with the layers' formulas."""

from forecast_detector_ros.model.config import NetworkConfig, preset, VARIANTS
from forecast_detector_ros.model.summary import summarise
import pytest

ENCODERS = ('encoder1: stride 32', 'encoder2: stride 32')


def by_name(summary):
    return {part.name: part for part in summary.parts}


def encoder_macs(channels, hidden, cells, back):
    both = channels + hidden
    bottleneck = 9 * both + both * hidden
    gates = 9 * hidden + hidden * 4 * hidden
    return cells * (7 * 7 * 2 + bottleneck + gates + (hidden * channels if back else 0))


def scheduler_macs(channels, hidden, cells):
    correlation = cells * cells * channels
    return correlation + cells * 9 * (49 * hidden + hidden * hidden) + 2 * hidden


def test_paper():
    parts = by_name(summarise(preset('paper', 30)))
    expected = encoder_macs(1280, 1280, 100, back=False)
    for name in ENCODERS:
        assert parts[name].read_macs == parts[name].forecast_macs == expected
    assert parts['scheduler'].read_macs == scheduler_macs(1280, 64, 100)
    # 300 million at 224x224 (Sandler et al. 2018, table 4), including 1.3 of the classifier.
    assert parts['extractor: backbone'].read_macs == pytest.approx(298.7e6 * (10 / 7) ** 2,
                                                                   rel=0.01)


def test_default():
    parts = by_name(summarise(preset('features', 17)))
    for stride, channels, hidden, cells in ((16, 96, 32, 18 * 24), (32, 256, 64, 9 * 12)):
        for name in ('encoder1', 'encoder2'):
            part = parts[f'{name}: stride {stride}']
            assert part.read_macs == encoder_macs(channels, hidden, cells, back=True)
    assert parts['extractor: projections'].read_macs == 18 * 24 * 576 * 96 + 9 * 12 * 1280 * 256
    assert parts['scheduler'].forecast_macs == scheduler_macs(256, 64, 9 * 12)


@pytest.mark.parametrize('variant', VARIANTS)
def test_parts_add_up_to_the_whole(variant):
    summary = summarise(NetworkConfig(
        classes=3, input_size=(64, 96), width=0.35, levels=(16, 32), feature_channels=(12, 20),
        lstm_channels=(8, 10), extra_channels=(16, 8), variant=variant))
    for key in ('parameters', 'read_macs', 'forecast_macs'):
        assert sum(getattr(part, key) for part in summary.parts) == getattr(summary.total, key)
    for part in summary.parts:
        from_image = part.name.startswith('extractor')
        idle = from_image or part.name.startswith('recurrent')
        assert part.forecast_macs == (0 if idle else part.read_macs)
    assert 0 < summary.forecast_share < 1
    names = set(by_name(summary))
    plain = variant in ('baseline', 'recurrent')
    assert ('encoder1: stride 16' in names) == (not plain and variant != 'persistence')
    assert ('encoder2: stride 16' in names) == (not plain)
    assert ('scheduler' in names) == (not plain)
    assert ('recurrent: stride 16' in names) == (variant == 'recurrent')
