# SPDX-License-Identifier: Apache-2.0
"""The configuration of the network: ranges, types, and the way to YAML and back."""

from dataclasses import fields

from forecast_detector_ros.model.config import (
    ConfigError,
    FORECAST_MODES,
    NetworkConfig,
    STATE_UPDATES,
    VARIANTS,
)
from forecast_detector_ros.model.constants import (
    FEATURE_MODES,
    LEVELS,
    REFERENCES,
    SPACINGS,
    WIDTHS,
)
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
import yaml

counts = st.integers(1, 4096)


@st.composite
def configs(draw):
    levels = draw(st.sampled_from(LEVELS))
    per_level = st.tuples(*[counts] * len(levels))
    low = draw(st.floats(0.01, 0.5))
    neck = draw(st.none() | counts)
    return NetworkConfig(
        classes=draw(st.integers(1, 100)),
        input_size=draw(st.tuples(*[st.integers(64, 2000)] * 2)),
        width=draw(st.sampled_from(WIDTHS)), tail=draw(st.booleans()), levels=levels,
        feature_channels=draw(per_level), lstm_channels=draw(per_level),
        upsample_channels=draw(st.none() | counts) if neck is None else None, neck_channels=neck,
        anchor_spacing=draw(st.sampled_from(SPACINGS)),
        aspect_ratios=tuple(draw(st.lists(st.integers(2, 4), max_size=3))),
        motion_channels=draw(counts),
        extra_channels=tuple(draw(st.lists(counts, max_size=5))),
        anchor_scales=(low, draw(st.floats(low, 1.0, exclude_min=True))),
        forecast_mode=draw(st.sampled_from(
            FORECAST_MODES if levels == LEVELS[-1] else FEATURE_MODES)),
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
    ('variant', 'full'), ('variant', ['complete']), ('variant', {'a': 1})]


@pytest.mark.parametrize('key, value', BAD)
def test_bad_value_is_one_line_that_names_the_key(key, value):
    with pytest.raises(ConfigError) as error:
        NetworkConfig.from_dict({key: value})
    message = str(error.value)
    assert message.startswith(f'{key} is ') and 'must be' in message and '\n' not in message


def test_every_key_is_checked():
    assert {key for key, _ in BAD} == {field.name for field in fields(NetworkConfig)}


@pytest.mark.parametrize('key', ['alpha', 5, None])
def test_unknown_key(key):
    with pytest.raises(ConfigError, match=f'^unknown key {key!r}, must be one of .*classes'):
        NetworkConfig.from_dict({key: 1})
