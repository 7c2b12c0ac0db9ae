# SPDX-License-Identifier: Apache-2.0
"""Named network shapes: `paper` is the paper's own, `default` is built for small machines."""

from dataclasses import replace

from .config import ConfigError, NetworkConfig

PRESETS = {
    # Section 4.2: MobileNetV2, alpha 1.0, the map before average pooling; 30 classes of VID.
    # Fig. 3 has nothing between the correlation and the convolutions.
    'paper': NetworkConfig(scheduler_norm=False),
    # Forecasts features, in the paper's manner, at the price of a small machine.
    'features': NetworkConfig(
        input_size=(288, 384), levels=(16, 32), feature_channels=(96, 256),
        lstm_channels=(32, 64), extra_channels=(256, 128, 128, 64), anchor_scales=(0.1, 0.95),
        forecast_mode='residual', scheduler_reference='expected'),
    # 4:3 lies between the pictures of most cameras, 4:3 and 16:9, so that little is stretched; it
    # has 8 % more pixels than 320x320.
    'default': NetworkConfig(
        input_size=(288, 384), tail=False, levels=(8, 16, 32), feature_channels=(48, 96, 256),
        lstm_channels=(16, 32, 64), neck_channels=96, extra_channels=(128, 128, 128),
        anchor_scales=(0.06, 0.95), anchor_spacing='geometric', aspect_ratios=(2,),
        forecast_mode='motion'),
}


def preset(name: str, classes: int) -> NetworkConfig:
    """
    Look a preset up.

    Parameters
    ----------
    name:
        One of `PRESETS`.
    classes:
        Number of classes without background.

    Raises
    ------
    ConfigError
        If there is no such preset.

    """
    if name not in PRESETS:
        raise ConfigError(f'preset is {name!r}, must be one of {sorted(PRESETS)}')
    return replace(PRESETS[name], classes=classes)
