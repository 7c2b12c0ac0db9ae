# SPDX-License-Identifier: Apache-2.0
"""Check scheduling policies and their text form."""

from math import isnan, nextafter
from time import process_time

from forecast_detector_ros.detector.policy import (
    AlternatePolicy,
    AlwaysReadPolicy,
    BudgetPolicy,
    parse_policy,
    PolicyError,
    REASONS,
    ThresholdPolicy,
)
from hypothesis import given
from hypothesis import strategies as st
import pytest

fractions = st.floats(0.0, 1.0)


@given(fractions, fractions, st.integers(0, 100))
def test_threshold_is_strict(p, confidence, consecutive):
    assert ThresholdPolicy(p).forecast(confidence, consecutive) == (confidence > p)
    assert not ThresholdPolicy(p).forecast(p, consecutive)


@given(fractions)
def test_ends_of_the_threshold(confidence):
    assert not ThresholdPolicy(1.0).forecast(confidence, 0)
    assert ThresholdPolicy(0.0).forecast(confidence, 0) == (confidence > 0)


def test_unknown_confidence_is_not_forecast():
    assert not ThresholdPolicy(0.0).forecast(float('nan'), 0)


@given(st.integers(1, 20), fractions)
def test_alternate_reads_one_frame_in_k_plus_one(k, confidence):
    policy, consecutive, kinds = AlternatePolicy(k), 0, []
    for _ in range(3 * (k + 1)):
        forecast = policy.forecast(confidence, consecutive)
        consecutive = consecutive + 1 if forecast else 0
        kinds.append(forecast)
    # After the read of the first frame, k forecasts and a read follow, three times.
    assert kinds == ([True] * k + [False]) * 3


@given(fractions, st.integers(0, 100))
def test_always_read(confidence, consecutive):
    assert not AlwaysReadPolicy().forecast(confidence, consecutive)


policies = (fractions.map(ThresholdPolicy) | st.integers(1, 10 ** 6).map(AlternatePolicy)
            | st.just(AlwaysReadPolicy()) | st.floats(1e-3, 1e4).map(BudgetPolicy))


@given(policies)
def test_text_round_trip(policy):
    assert parse_policy(str(policy)) == policy


@given(policies)
def test_properties_of_policies(policy):
    assert policy.reason in REASONS
    if isinstance(policy, ThresholdPolicy):
        assert policy.threshold == policy.p
    else:
        assert isnan(policy.threshold)
    assert (policy.rate > 0) == isinstance(policy, BudgetPolicy)


@pytest.mark.parametrize('text, policy', [
    ('threshold(0.5)', ThresholdPolicy(0.5)), (' threshold( 1 ) ', ThresholdPolicy(1.0)),
    ('threshold(1e-3)', ThresholdPolicy(0.001)), ('alternate(2)', AlternatePolicy(2)),
    ('always_read', AlwaysReadPolicy()), ('budget(15)', BudgetPolicy(15.0)),
    ('always_read()', AlwaysReadPolicy())])
def test_text(text, policy):
    assert parse_policy(text) == policy


@pytest.mark.parametrize('text', [
    '', 'threshold', 'threshold()', 'threshold(half)', 'threshold(0.5', 'threshold 0.5',
    'threshold((0.5))', 'threshold(1.01)', 'threshold(-0.1)', 'threshold(nan)',
    'threshold(inf)', 'alternate', 'alternate()', 'alternate(0)', 'alternate(-1)',
    'alternate(1.5)', 'always_read(1)', 'always', 'Threshold(0.5)', 'budget(0)',
    'budget(-1)', 'budget(nan)', 'budget(inf)', 'budget', 'budget(fast)',
    'threshold(0.5) alternate(1)', 'threshold(0.5)\nalways_read'])
def test_bad_text_is_one_line(text):
    with pytest.raises(PolicyError) as error:
        parse_policy(text)
    assert '\n' not in str(error.value) and 'must be' in str(error.value)


@given(st.text())
def test_any_text_is_a_policy_or_a_policy_error(text):
    try:
        policy = parse_policy(text)
    except PolicyError as error:
        assert '\n' not in str(error)
    else:
        assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize('text', [
    'threshold(' + ' ' * 10_000, ' ' * 10_000 + 'x', 'threshold(' + '0' * 1_000_000 + ')',
    'alternate(' + '9' * 5_000 + ')', '(' * 100_000])
def test_long_text_is_refused_at_once_and_shortly(text):
    start = process_time()
    with pytest.raises(PolicyError) as error:
        parse_policy(text)
    assert process_time() - start < 0.1
    assert len(str(error.value)) < 400


def test_values_out_of_range():
    for p in (nextafter(1.0, 2.0), -1e-9, float('nan'), float('inf')):
        with pytest.raises(PolicyError, match=r'threshold is .* must be in \[0, 1\]'):
            ThresholdPolicy(p)
    with pytest.raises(PolicyError, match='at least 1'):
        AlternatePolicy(0)
    with pytest.raises(PolicyError, match='must be above 0 frames per second'):
        BudgetPolicy(0.0)
