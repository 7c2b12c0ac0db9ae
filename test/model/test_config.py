# SPDX-License-Identifier: Apache-2.0
"""Check the configuration of the network and the presets: ranges, YAML, parameter counts."""

from dataclasses import fields

from forecast_detector_ros.model.config import (
    ConfigError,
    FEATURE_MODES,
    FORECAST_MODES,
    LEVELS,
    NetworkConfig,
    preset,
    PRESETS,
    REFERENCES,
    SPACINGS,
    STATE_UPDATES,
    VARIANTS,
    WIDTHS,
)
from forecast_detector_ros.model.extractor import parameter_count
from forecast_detector_ros.model.network import ForecastDetector
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
import torch
from torchvision.models import mobilenet_v2
import yaml

counts = st.integers(1, 4096)


@st.composite
def configs(draw):
    levels = draw(st.sampled_from(LEVELS))
    per_level = st.tuples(*[counts] * len(levels))
    low = draw(st.floats(0.01, 0.5))
    mode = draw(st.sampled_from(FORECAST_MODES if levels == LEVELS[-1] else FEATURE_MODES))
    neck = draw(st.none() | counts)
    upsampled = neck is None and mode in FEATURE_MODES
    return NetworkConfig(
        classes=draw(st.integers(1, 100)),
        input_size=draw(st.tuples(*[st.integers(64, 2000)] * 2)),
        width=draw(st.sampled_from(WIDTHS)), tail=draw(st.booleans()), levels=levels,
        feature_channels=draw(per_level), lstm_channels=draw(per_level),
        upsample_channels=draw(st.none() | counts) if upsampled else None, neck_channels=neck,
        anchor_spacing=draw(st.sampled_from(SPACINGS)),
        aspect_ratios=tuple(draw(st.lists(st.integers(2, 4), max_size=3))),
        motion_channels=2 * draw(st.integers(1, 2048)), motion_from_boxes=draw(st.booleans()),
        extra_channels=tuple(draw(st.lists(counts, max_size=5))),
        anchor_scales=(low, draw(st.floats(low, 1.0, exclude_min=True))),
        forecast_mode=mode,
        scheduler_reference=draw(st.sampled_from(REFERENCES)),
        scheduler_channels=draw(counts), scheduler_norm=draw(st.booleans()),
        state_update=draw(st.sampled_from(STATE_UPDATES)),
        variant=draw(st.sampled_from(VARIANTS)))


@settings(max_examples=50)
@given(configs())
def test_round_trip_through_yaml(config):
    text = yaml.safe_dump(config.to_dict())
    assert NetworkConfig.from_dict(yaml.safe_load(text)) == config


def test_every_key_is_written():
    assert set(NetworkConfig().to_dict()) == {field.name for field in fields(NetworkConfig)}


BAD = [
    ('classes', 0), ('classes', 2.5), ('classes', True), ('classes', '3'), ('classes', None),
    ('input_size', [320]), ('input_size', [320, 32]), ('input_size', 320),
    ('input_size', [320.5, 320]), ('input_size', [320, 320, 3]),
    ('expansion_channels', [16] * 16), ('expansion_channels', [33] + [16] * 16),
    ('expansion_channels', [0] * 17), ('expansion_channels', 16),
    ('width', 0.9), ('width', '1.0'), ('width', None), ('levels', [8, 16]), ('levels', []),
    ('levels', 32), ('feature_channels', []), ('feature_channels', [0]),
    ('feature_channels', [96, 256]), ('feature_channels', [1.5]), ('feature_channels', 256),
    ('lstm_channels', [-1]), ('lstm_channels', ['a']), ('upsample_channels', 0),
    ('upsample_channels', 'wide'), ('upsample_channels', 1.5), ('extra_channels', [128, 0]),
    ('extra_channels', 128), ('extra_channels', None), ('anchor_scales', [0.2]),
    ('anchor_scales', [0.9, 0.2]), ('anchor_scales', [0.0, 0.5]), ('anchor_scales', [0.5, 2.5]),
    ('anchor_scales', ['a', 'b']), ('anchor_scales', [float('nan'), 0.5]),
    ('forecast_mode', 'nearest'), ('forecast_mode', None), ('scheduler_reference', 'forecast'),
    ('scheduler_channels', 0), ('scheduler_channels', '64'), ('state_update', 'skip'),
    ('tail', 1), ('tail', 'no'), ('scheduler_norm', 0), ('neck_channels', 0),
    ('neck_channels', 'wide'), ('anchor_spacing', 'cubic'), ('aspect_ratios', [1]),
    ('aspect_ratios', 2), ('motion_channels', 0), ('motion_channels', '64'),
    ('motion_from_boxes', 1),
    ('variant', 'full'), ('variant', ['complete']), ('variant', {'a': 1})]


@pytest.mark.parametrize('key, value', BAD)
def test_bad_value_is_one_line_that_names_the_key(key, value):
    with pytest.raises(ConfigError) as error:
        NetworkConfig.from_dict({key: value})
    message = str(error.value)
    assert message.startswith(f'{key} is ') and 'must be' in message and '\n' not in message


@pytest.mark.parametrize(('changes', 'words'), [
    ({'motion_channels': 1}, 'motion_channels is 1, must be even where forecast_mode is motion'),
    ({'motion_channels': 33}, 'motion_channels is 33, must be even where'),
    ({'upsample_channels': 8, 'neck_channels': None}, 'upsample_channels is 8, must be null')])
def test_invalid_values_for_the_motion_encoder(changes, words):
    values = {**PRESETS['default'].to_dict(), **changes}
    with pytest.raises(ConfigError, match=f'^{words}'):
        NetworkConfig.from_dict(values)
    # A variant without a motion encoder accepts the values.
    assert NetworkConfig.from_dict({**values, 'variant': 'baseline'})


def test_every_key_is_checked():
    assert {key for key, _ in BAD} == {field.name for field in fields(NetworkConfig)}


@pytest.mark.parametrize('key', ['alpha', 5, None])
def test_unknown_key(key):
    with pytest.raises(ConfigError, match=f'^unknown key {key!r}, must be one of .*classes'):
        NetworkConfig.from_dict({key: 1})


def conv_norm(inputs, outputs, kernel=1, groups=1):
    return inputs * outputs // groups * kernel ** 2 + 2 * outputs


def separable(inputs, outputs):
    return 9 * inputs + inputs * outputs + outputs


def encoder(channels, hidden, mode):
    attention = 7 * 7 * 2 + 2
    lstm = separable(channels + hidden, hidden) + separable(hidden, 4 * hidden)
    back = 0 if mode == 'direct' and hidden == channels else hidden * channels + channels
    return attention + lstm + back


def scheduler(hidden, norm):
    convolutions = 49 * 9 * hidden + hidden + 9 * hidden * hidden + hidden
    return (2 * 49 if norm else 0) + convolutions + 2 * hidden + 2


def head(maps, extra, classes, neck=None, ratios=2):
    total = 0
    if neck is not None:
        total += sum(conv_norm(c, neck) + conv_norm(neck, neck, 3, neck) + conv_norm(neck, neck)
                     for c in maps)
        maps = (neck,) * len(maps)
    anchors = 2 + 2 * ratios
    for outputs in extra:
        squeezed = outputs // 2
        total += (conv_norm(maps[-1], squeezed) + conv_norm(squeezed, squeezed, 3, squeezed)
                  + conv_norm(squeezed, outputs))
        maps = (*maps, outputs)
    for channels in maps:
        for outputs in (anchors * (classes + 1), anchors * 4):
            total += (conv_norm(channels, channels, 3, channels)
                      + channels * outputs + outputs)
    return total


def extractor(config):
    native = {8: 32, 16: 576, 32: 1280 if config.tail else 320}
    assert config.width == 1.0
    return (parameter_count(mobilenet_v2(weights=None).features)
            - (0 if config.tail else conv_norm(320, 1280))
            + sum(conv_norm(native[stride], channels)
                  for stride, channels in zip(config.levels, config.feature_channels)
                  if native[stride] != channels))


@pytest.mark.parametrize('name', sorted(PRESETS))
def test_parameter_counts(name):
    config = preset(name, 17)
    network = ForecastDetector(config)
    pairs = zip(config.feature_channels, config.lstm_channels)
    assert parameter_count(network.extractor) == extractor(config)
    assert parameter_count(network.head) == head(
        config.feature_channels, config.extra_channels, 17, config.neck_channels,
        len(config.aspect_ratios))
    if config.forecasts_motion:
        assert not len(network.encoder1) and network.scheduler is None
        # The forecast must be cheap, so its part of the network is small.
        assert parameter_count(network.motion) < 0.1 * parameter_count(network)
        return
    encoders = sum(encoder(c, h, config.forecast_mode) for c, h in pairs)
    assert config.upsample_channels is None
    assert parameter_count(network.encoder1) == encoders
    assert parameter_count(network.encoder2) == encoders
    assert parameter_count(network.scheduler) == scheduler(
        config.scheduler_channels, norm=name != 'paper')


@pytest.mark.parametrize('name', sorted(PRESETS))
def test_shapes(name):
    config = preset(name, 17)
    network = ForecastDetector(config).eval()
    image = torch.zeros(1, *config.input_size, 3, dtype=torch.uint8)
    with torch.inference_mode():
        read = network.read_step(image, network.initial_state())
        forecast = network.forecast_step(read.state)
    anchors = network.anchors.shape[0]
    for output in (read, forecast):
        assert output.head.logits.shape == (1, anchors, 18)
        assert output.head.offsets.shape == (1, anchors, 4)
        assert output.decision.shape == (1, 2)
        assert config.forecasts_motion or [tuple(x.shape) for x in output.state.forecast] == [
            (1, c, config.input_size[0] // stride, config.input_size[1] // stride)
            for stride, c in zip(config.levels, config.feature_channels)]


def test_preset_paper_is_that_of_the_paper():
    config = preset('paper', 30)
    assert config == NetworkConfig(
        classes=30, input_size=(320, 320), width=1.0, levels=(32,), feature_channels=(1280,),
        lstm_channels=(1280,), anchor_scales=(0.2, 0.95), forecast_mode='direct',
        scheduler_reference='temporal', scheduler_norm=False, variant='complete')


def test_unknown_preset():
    with pytest.raises(ConfigError, match=r"^preset is 'tiny', must be one of .*paper"):
        preset('tiny', 3)
