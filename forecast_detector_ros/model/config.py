# SPDX-License-Identifier: Apache-2.0
"""
Configuration of the network, and the presets.

PyTorch is not imported, because back-ends that run graphs need the configuration without it.
"""
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import cut, InputError

#: Width multipliers of MobileNetV2 (Sandler et al. 2018, table 4) that are accepted.
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.4)

#: Channels of the last map of MobileNetV2 up to width 1.0 (Sandler et al. 2018, table 2).
LITERAL_CHANNELS = 1280

#: Channels of MobileNetV2's first convolution, and inside each of its blocks 2 to 17, at width 1.0
#: (Sandler et al. 2018, table 2).
EXPANSIONS = (32, 96, *[144] * 2, *[192] * 3, *[384] * 4, *[576] * 3, *[960] * 3)

LEVELS = ((32,), (16, 32), (8, 16, 32))  #: Sets of levels, by their strides

#: Mean of ImageNet's RGB values in [0, 1], of torchvision's reference training.
IMAGENET_MEAN = (0.485, 0.456, 0.406)

IMAGENET_STD = (0.229, 0.224, 0.225)  #: Standard deviation of these RGB values

#: Output of an encoder: the LSTM's output, or a change of the encoder's input.
FEATURE_MODES = ('direct', 'residual')

EXPECTED = 'expected'

#: Maps with which `forecast` can be correlated. The paper's text names F-tilde (`fused`) and F-hat
#: (`temporal`). All except `expected` are of one frame. `expected` is the earlier forecast of the
#: last read frame. It differs from the new forecast where something moved.
REFERENCES = ('temporal', 'fused', 'feature', EXPECTED)

#: Growth of the anchors from map to map: by a difference, as in SSD, or by a factor.
LINEAR, GEOMETRIC = SPACINGS = ('linear', 'geometric')

#: Weights of (dx, dy, dw, dh): the inverse of SSD's variances 0.1 and 0.2.
BOX_CODER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)

#: Least side of a detection, pixels of the input. Thinner boxes are at the picture's edge, of
#: objects that moved out of the picture.
LEAST_SIDE = 1.0


#: Rows of the paper's Table 2, and `persistence`, whose `forecast` is the last `feature`.
#: `without_forecast` is trained without L_for. The head of `without_combination` gets only
#: `temporal`. `baseline` has no encoders and no scheduler. `recurrent` is the baseline of section
#: 3, with a bottleneck LSTM before the head on every level (Liu & Zhu, CVPR 2018). It does not
#: forecast.
VARIANTS = ('complete', 'without_forecast', 'without_combination', 'baseline', 'recurrent',
            'persistence')

MOTION = 'motion'

#: The forecast: new features (`direct`, the paper's form), a change of the present features
#: (`residual`), or the motion of the last read's boxes (`motion`).
FORECAST_MODES = (*FEATURE_MODES, MOTION)

#: Whether a forecast step updates the LSTMs' states or keeps them.
STATE_UPDATES = ('advance', 'hold')


MOST_CLASSES = 10_000
MOST_SIDE = 4096  #: Largest height and width of the input, pixels

MOST_CHANNELS = 4096
MOST_RATIO = 100
MOST_ITEMS = 16  #: Most numbers in a list

#: Largest anchor, as a fraction of the input. It may exceed 1, because anchors keep their size in
#: pixels if a network starts from weights for a larger input.
LARGEST_ANCHOR = 2.0

MOST_NUMBERS = 2**28  #: Most numbers in one tensor of weights or scores: 1 GiB of float32


class ConfigError(InputError):
    """A network configuration is invalid; the message names the key."""


@dataclass(frozen=True)
class NetworkConfig:
    """
    The configuration of a network.

    :raises ConfigError: if a value is out of range
    """

    classes: int = 30  #: Number of classes without background, at least 1

    #: (height, width) of the input, pixels, each at least 64.
    input_size: tuple[int, int] = (320, 320)
    width: float = 1.0  #: Width multiplier of MobileNetV2 (alpha), one of `WIDTHS`

    #: Channels that replace `EXPANSIONS` in a pruned backbone of width 1.0; None: not pruned.
    expansion_channels: tuple[int, ...] | None = None
    tail: bool = True  #: Whether the backbone has MobileNetV2's last convolution
    levels: tuple[int, ...] = (32,)  #: Strides of the levels, one of `LEVELS`

    #: Channels of `feature`, one number per level.
    feature_channels: tuple[int, ...] = (LITERAL_CHANNELS,)

    #: Hidden channels of the LSTMs, one number per level.
    lstm_channels: tuple[int, ...] = (LITERAL_CHANNELS,)

    #: Channels of a map upsampled from the deepest `fused` map; None: no such map.
    upsample_channels: int | None = None

    #: Channels of a top-down path between the levels and the predictors; None: no such path.
    neck_channels: int | None = None

    #: Output channels of the head's extra layers; the default is that of torchvision's ssdlite.
    extra_channels: tuple[int, ...] = (512, 256, 256, 128)

    #: Smallest and largest anchor, as fractions of the input, up to `LARGEST_ANCHOR`.
    anchor_scales: tuple[float, float] = (0.2, 0.95)

    #: Growth of the anchors from map to map, one of `SPACINGS`.
    anchor_spacing: str = 'linear'

    #: Aspect ratios of the anchors in addition to 1; each also adds its inverse.
    aspect_ratios: tuple[int, ...] = (2, 3)
    forecast_mode: str = 'direct'  #: One of `FORECAST_MODES`
    motion_channels: int = 64  #: `motion`: channels of the encoder that compares frames; even

    #: `motion`: whether the encoder also compares the boxes of both frames.
    motion_from_boxes: bool = False

    #: Map with which `forecast` is compared, one of `REFERENCES`.
    scheduler_reference: str = 'temporal'
    scheduler_channels: int = 64  #: Channels, or hidden units, of the scheduler

    #: Whether BN follows the scheduler's correlation of maps; not so in the paper.
    scheduler_norm: bool = True
    state_update: str = 'advance'  #: One of `STATE_UPDATES`
    variant: str = 'complete'  #: One of `VARIANTS`

    def __post_init__(self) -> None:
        _require(_is_count(self.classes, most=MOST_CLASSES), 'classes', self.classes,
                 f'an integer from 1 to {MOST_CLASSES}')
        _require(_are_counts(self.input_size, 2, least=64, most=MOST_SIDE), 'input_size',
                 self.input_size, f'a height and a width, integers from 64 to {MOST_SIDE}')
        _require(self.width in WIDTHS, 'width', self.width, f'one of {WIDTHS}')
        _require(self.levels in LEVELS, 'levels', self.levels, f'one of {LEVELS}')
        expansions = self.expansion_channels
        _require(expansions is None or self.width == 1.0
                 and _are_counts(expansions, len(EXPANSIONS))
                 and all(count <= most for count, most in zip(expansions, EXPANSIONS)),
                 'expansion_channels', expansions,
                 f'null, or with width 1.0 integers from 1 to {EXPANSIONS}')
        for key in ('tail', 'scheduler_norm', 'motion_from_boxes'):
            value = getattr(self, key)
            _require(isinstance(value, bool), key, value, 'true or false')
        for key in ('feature_channels', 'lstm_channels'):
            value = getattr(self, key)
            _require(_are_counts(value, len(self.levels)), key, value,
                     f'one integer from 1 to {MOST_CHANNELS} for each of the levels '
                     f'{self.levels}')
        for key in ('upsample_channels', 'neck_channels'):
            value = getattr(self, key)
            _require(value is None or _is_count(value), key, value,
                     f'an integer from 1 to {MOST_CHANNELS}, or null')
        _require(_is_count(self.motion_channels), 'motion_channels', self.motion_channels,
                 f'an integer from 1 to {MOST_CHANNELS}')
        _require(not self.forecasts_motion or self.motion_channels % 2 == 0, 'motion_channels',
                 self.motion_channels, f'even where forecast_mode is {MOTION}')
        _require(self.forecast_mode != MOTION or self.levels == LEVELS[-1], 'levels', self.levels,
                 f'{LEVELS[-1]} where forecast_mode is {MOTION}')
        _require(self.neck_channels is None or self.upsample_channels is None,
                 'upsample_channels', self.upsample_channels, 'null where neck_channels is set')
        _require(not self.forecasts_motion or self.upsample_channels is None, 'upsample_channels',
                 self.upsample_channels, f'null where forecast_mode is {MOTION}')
        _require(_are_counts(self.aspect_ratios, least=2, most=MOST_RATIO)
                 or self.aspect_ratios == (), 'aspect_ratios', self.aspect_ratios,
                 f'a list of at most {MOST_ITEMS} integers from 2 to {MOST_RATIO}')
        _require(_are_counts(self.extra_channels), 'extra_channels', self.extra_channels,
                 f'a list of at most {MOST_ITEMS} integers from 1 to {MOST_CHANNELS}')
        scales = self.anchor_scales
        _require(isinstance(scales, tuple) and len(scales) == 2
                 and all(isinstance(scale, (int, float)) for scale in scales)
                 and 0 < scales[0] < scales[1] <= LARGEST_ANCHOR,
                 'anchor_scales', scales, f'two numbers, 0 < low < high <= {LARGEST_ANCHOR:g}')
        for key, allowed in (('forecast_mode', FORECAST_MODES),
                             ('scheduler_reference', REFERENCES),
                             ('anchor_spacing', SPACINGS),
                             ('state_update', STATE_UPDATES), ('variant', VARIANTS)):
            _require(getattr(self, key) in allowed, key, getattr(self, key), f'one of {allowed}')
        _require(_is_count(self.scheduler_channels), 'scheduler_channels',
                 self.scheduler_channels, f'an integer from 1 to {MOST_CHANNELS}')
        self._check_memory()

    def _check_memory(self) -> None:
        """Raise ConfigError if a tensor of weights or scores would be too large."""
        boxes = 2 + 2 * len(self.aspect_ratios)
        height, width = self.input_size
        finest = min(self.levels) // (1 if self.upsample_channels is None else 2)
        scores = (height // finest) * (width // finest) * boxes * (self.classes + 1)
        widest = max(*self.feature_channels, *self.extra_channels, self.upsample_channels or 0,
                     self.neck_channels or 0)
        if max(scores, boxes * (self.classes + 1) * widest) > MOST_NUMBERS:
            raise ConfigError(f'classes is {self.classes}, too many for input_size '
                              f'{self.input_size} and {widest} channels: more than '
                              f'{MOST_NUMBERS} numbers in one tensor')

    @property
    def has_encoders(self) -> bool:
        """Whether the variant has encoders and a scheduler."""
        return self.variant not in ('baseline', 'recurrent')

    @property
    def forecasts(self) -> bool:
        """Whether a forecast is more than a repetition of the last read."""
        return self.has_encoders and self.variant != 'persistence'

    @property
    def forecasts_motion(self) -> bool:
        """Whether a forecast keeps the scores of the last read and moves its boxes."""
        return self.forecast_mode == MOTION and self.has_encoders

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'NetworkConfig':
        """
        Build from plain values of YAML; lists become tuples.

        :raises ConfigError: if a key is unknown, or a value has the wrong type or is out of range
        """
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise ConfigError(f'unknown key {cut(repr(key))}, must be one of {sorted(known)}')
        arguments: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()}
        return cls(**arguments)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for YAML; tuples become lists."""
        return {key: list(value) if isinstance(value, tuple) else value
                for key, value in asdict(self).items()}


def _require(condition: bool, key: str, value: object, wanted: str) -> None:
    if not condition:
        raise ConfigError(f'{key} is {cut(repr(value))}, must be {wanted}')


def _is_count(value: object, least: int = 1, most: int = MOST_CHANNELS) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)
            and least <= value <= most)


def _are_counts(value: object, length: int | None = None, least: int = 1,
                most: int = MOST_CHANNELS) -> bool:
    return (isinstance(value, tuple)
            and (len(value) <= MOST_ITEMS if length is None else len(value) == length)
            and all(_is_count(item, least, most) for item in value))


PRESETS = {
    # Section 4.2: MobileNetV2, alpha 1.0, the map before average pooling; 30 classes of VID.
    # Fig. 3 has no normalisation between the correlation and the convolutions.
    'paper': NetworkConfig(scheduler_norm=False),
    # Forecasts features, as the paper does, and is small enough for a small machine.
    'features': NetworkConfig(
        input_size=(288, 384), levels=(16, 32), feature_channels=(96, 256),
        lstm_channels=(32, 64), extra_channels=(256, 128, 128, 64), anchor_scales=(0.1, 0.95),
        forecast_mode='residual', scheduler_reference='expected'),
    # Most cameras have 4:3 or 16:9, so an input of 4:3 stretches pictures little. It has 8 % more
    # pixels than 320x320.
    'default': NetworkConfig(
        input_size=(288, 384), tail=False, levels=(8, 16, 32), feature_channels=(48, 96, 256),
        lstm_channels=(16, 32, 64), neck_channels=96, extra_channels=(128, 128, 128),
        anchor_scales=(0.06, 0.95), anchor_spacing='geometric', aspect_ratios=(2,),
        forecast_mode='motion', motion_from_boxes=True),
}


def preset(name: str, classes: int) -> NetworkConfig:
    """
    Return a preset.

    :param name: one of `PRESETS`
    :param classes: number of classes without background
    :raises ConfigError: if there is no such preset
    """
    if name not in PRESETS:
        raise ConfigError(f'preset is {name!r}, must be one of {sorted(PRESETS)}')
    return replace(PRESETS[name], classes=classes)
