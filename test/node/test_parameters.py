# SPDX-License-Identifier: Apache-2.0
"""Check parameters: descriptors, defaults, documentation, and refused changes."""
from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
import re
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from forecast_detector_ros.detector.policy import AlternatePolicy, ThresholdPolicy
from forecast_detector_ros.detector.settings import SettingsError
from forecast_detector_ros.node.parameters import (
    FixedParameters,
    LIVE_PARAMETERS,
    ParameterError,
    settings_of,
)
import pytest
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterDescriptor, ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
import yaml

from .graph import Graph, picture_message, values_of
from ..helpers.pages import code, keys, rows, section

ROOT = Path(__file__).resolve().parents[2]

FIXED = FixedParameters(
    image_topics=('image_raw',), image_transport='raw', checkpoint='', device='auto',
    backend='auto', precision='fp32', num_threads=1, num_interop_threads=1,
    max_image_pixels=1000, max_gap_s=1.0, max_failures=10, no_image_timeout=5.0,
    min_output_rate=0.0, max_age_s=0.0, diagnostics_period=1.0, publish_ahead=False, lazy=False,
    lazy_timeout=5.0, autostart=False, tune_allocator=True)

LIVE: dict[str, Any] = {
    'threshold': 0.25, 'policy': '', 'score_threshold': 0.3, 'nms_threshold': 0.45,
    'vote_threshold': 1.0, 'score_memory': 0.0, 'max_detections': 100, 'classes': [''],
    'max_consecutive_forecasts': 3, 'target_rate': 0.0}

Active = Callable[..., Graph]

#: Headings of the reference, by executable.
PROGRAMS = {'camera_node': 'The node `camera` (executable `camera_node`)',
            'recorder_node': 'The node `recorder` (executable `recorder_node`)'}


@pytest.mark.parametrize(('changes', 'word'), [
    ({'image_transport': 'h264'}, 'image_transport'),
    ({'image_topics': ()}, 'image_topics'),
    ({'image_topics': ('a', '')}, 'image_topics'),
    ({'image_topics': ('a', 'a')}, 'twice'),
    ({'image_topics': ('a' * 257,)}, '256'),
    ({'image_topics': tuple(map(str, range(257)))}, '256'),
    ({'image_transport': 'x' * 100_000}, 'raw, compressed')])
def test_fixed_parameters_without_meaning_are_refused(changes: dict[str, Any], word: str) -> None:
    FIXED.check()
    with pytest.raises(ParameterError, match=word) as refusal:
        replace(FIXED, **changes).check()
    assert len(str(refusal.value)) < 400


def test_empty_policy_is_the_threshold() -> None:
    assert settings_of(LIVE).policy == ThresholdPolicy(0.25)
    assert settings_of({**LIVE, 'policy': 'alternate(2)'}).policy == AlternatePolicy(2)
    assert settings_of(LIVE).classes == ()
    assert settings_of({**LIVE, 'classes': ['dog', '']}).classes == ('dog',)


@pytest.mark.parametrize(('key', 'value'), [
    ('policy', 'sometimes'), ('policy', 'alternate(0)'), ('threshold', 1.5),
    ('score_threshold', float('nan')), ('nms_threshold', 0.0), ('vote_threshold', 0.0),
    ('score_memory', 1.0), ('max_detections', 0),
    ('max_consecutive_forecasts', 0), ('policy', 'budget(0)'), ('target_rate', -1.0),
    ('target_rate', float('nan')), ('target_rate', 1001.0), ('policy', 'threshold(' + ' ' * 10**6),
    ('classes', ['x' * 100_000]), ('classes', list(map(str, range(20_000))))])
def test_live_values_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(SettingsError) as refusal:
        settings_of({**LIVE, key: value})
    assert len(str(refusal.value)) < 400


def test_threshold_is_checked_while_another_policy_is_set() -> None:
    with pytest.raises(SettingsError, match='threshold'):
        settings_of({**LIVE, 'policy': 'always_read', 'threshold': -1.0})


def test_every_parameter_is_described(graph: Graph) -> None:
    node = graph.add_detector([])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    names = [*FixedParameters.__dataclass_fields__, *LIVE_PARAMETERS]
    for name in names:
        descriptor: ParameterDescriptor = node.describe_parameter(name)
        assert descriptor.description, name
        assert descriptor.read_only == (name not in LIVE_PARAMETERS), name
        if isinstance(node.get_parameter(name).value, float):
            assert descriptor.floating_point_range, name
        elif type(node.get_parameter(name).value) is int:
            assert descriptor.integer_range, name


def test_user_overrides_the_recommendations_of_the_checkpoint(graph: Graph) -> None:
    node = graph.add_detector([Parameter('nms_threshold', value=0.6)])
    assert not node.has_parameter('score_threshold')
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.get_parameter('score_threshold').value == 0.4
    assert node.get_parameter('nms_threshold').value == 0.6
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert not node.has_parameter('score_threshold')
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize(('name', 'value'), [
    ('threshold', 1.5), ('score_threshold', -0.1), ('nms_threshold', 0.0),
    ('vote_threshold', 0.0), ('score_memory', 1.0), ('max_detections', 0),
    ('max_detections', 1.5),
    ('classes', ['unicorn']), ('max_consecutive_forecasts', 0),
    ('policy', 'alternate(0)'), ('device', 'cuda'), ('image_topics', ['other'])])
def test_bad_change_is_refused_with_a_reason_and_changes_nothing(
        active: Active, name: str, value: Any) -> None:
    graph = active()
    node = graph.detector
    before = node._settings
    (alone,) = node.set_parameters([Parameter(name, value=value)])
    together = node.set_parameters_atomically([
        Parameter('score_threshold', value=0.9), Parameter(name, value=value)])
    for answer in (alone, together):
        assert not answer.successful
        assert answer.reason
        assert '\n' not in answer.reason
    assert node._settings == before
    assert node.get_parameter('score_threshold').value == 0.4


def test_change_holds_from_the_next_frame(active: Active) -> None:
    graph = active(threshold=1.0)
    camera = graph.camera()
    assert graph.send(camera, picture_message(0), picture_message(1))[1]['decision'] == 'read'
    answer = graph.detector.set_parameters_atomically([
        Parameter('threshold', value=0.0), Parameter('classes', value=['dog']),
        Parameter('max_detections', value=2)])
    assert answer.successful
    values = graph.send(camera, picture_message(2))
    assert (values[0]['decision'], values[0]['threshold']) == ('forecast', '0')
    found = graph.detections[-1].detections
    assert len(found) <= 2
    assert {item.results[0].hypothesis.class_id for item in found} <= {'dog'}


@pytest.mark.parametrize(('name', 'value', 'words'), [
    ('threshold', 2.0, ['threshold', '2.0']), ('policy', 'never', ['policy', 'never']),
    ('classes', ['unicorn'], ['unicorn', 'cat']), ('classes', None, ['classes', 'empty list']),
    ('device', 'tpu', ['tpu']),
    ('precision', 'fp8', ['fp8']), ('backend', 'tvm', ['tvm', 'openvino']),
    ('image_transport', 'h264', ['image_transport', 'h264']),
    ('checkpoint', '/nowhere/x.safetensors', ['/nowhere/x.safetensors']),
    ('qos_overrides./detections.publisher.reliability', 'certain', ['reliability', 'certain'])])
def test_bad_start_value_fails_configure_with_one_line(
        graph: Graph, capfd: pytest.CaptureFixture[str], name: str, value: Any,
        words: list[str]) -> None:
    node = graph.add_detector([Parameter(name, value=value)])
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith('[ERROR]')]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words), lines
    # The failed attempt has no effect: the second one fails in the same way.
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE


def test_endless_text_stops_the_node_with_a_short_line(graph: Graph) -> None:
    with pytest.raises(ParameterException, match='checkpoint') as refusal:
        graph.add_detector([Parameter('checkpoint', value='x' * 100_000)])
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(('name', 'value', 'words'), [
    ('num_threads', 0, 'num_threads'), ('image_topics', None, 'empty list .*: image_topics')])
def test_fixed_parameter_out_of_range_stops_the_node(
        graph: Graph, name: str, value: Any, words: str) -> None:
    with pytest.raises(ParameterException, match=words):
        graph.add_detector([Parameter(name, value=value)])


def test_file_of_parameters_gives_the_defaults(graph: Graph) -> None:
    given = yaml.safe_load((ROOT / 'config/detector.yaml').read_text())['/**']['ros__parameters']
    node = graph.add_detector([])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    recommended = {'threshold', 'score_threshold', 'nms_threshold', 'vote_threshold',
                   'score_memory'}
    own = {'backend', 'checkpoint', 'diagnostics_period'}
    names = {*FixedParameters.__dataclass_fields__, *LIVE_PARAMETERS} - recommended
    assert set(given) == names
    for name in names - own:
        assert node.get_parameter(name).value == given[name], name


@pytest.mark.parametrize('number', [10, 200, 255])
def test_unknown_type_of_a_parameter_is_refused_and_the_node_lives(
        active: Active, capfd: pytest.CaptureFixture[str], number: int) -> None:
    graph = active(threshold=1.0)
    bad = ParameterMessage(name='threshold', value=ParameterValue(type=number))
    good = Parameter('score_threshold', value=0.9).to_parameter_msg()
    answers = graph.call(SetParameters, 'set_parameters',
                         SetParameters.Request(parameters=[bad, good])).results
    assert [answer.successful for answer in answers] == [False, True]
    assert answers[0].reason == f'threshold: there is no parameter type {number}'
    together = graph.call(
        SetParametersAtomically, 'set_parameters_atomically',
        SetParametersAtomically.Request(parameters=[
            Parameter('score_threshold', value=0.8).to_parameter_msg(), bad])).result
    assert not together.successful and str(number) in together.reason
    assert graph.detector.get_parameter('score_threshold').value == 0.9
    assert f'there is no parameter type {number}' in capfd.readouterr().err
    graph.send(graph.camera(), picture_message(0))


def test_integer_is_accepted_for_a_float(active: Active) -> None:
    graph = active(score_threshold=1, max_gap_s=2)
    assert graph.detector.get_parameter('score_threshold').value == 1.0
    assert graph.detector.fixed.max_gap_s == 2.0
    request = SetParameters.Request(parameters=[
        Parameter('score_threshold', value=0).to_parameter_msg(),
        Parameter('max_detections', value=7.0).to_parameter_msg(),
        Parameter('threshold', value=2).to_parameter_msg()])
    taken, kind, high = graph.call(SetParameters, 'set_parameters', request).results
    assert taken.successful and not kind.successful and not high.successful
    assert 'threshold' in high.reason
    assert graph.detector.get_parameter('score_threshold').value == 0.0


def test_misspelt_parameter_is_named_with_the_one_that_may_be_meant(
        active: Active, capfd: pytest.CaptureFixture[str]) -> None:
    graph = active(image_topic='/left/image_raw', wholly_unknown=True)
    told = capfd.readouterr().err
    assert ("there is no parameter 'image_topic', perhaps 'image_topics' is meant; its value is "
            'not used') in told
    assert "there is no parameter 'wholly_unknown'; its value is not used" in told
    assert told.count('there is no parameter') == 2
    request = SetParameters.Request(parameters=[
        Parameter('thresholds', value=0.5).to_parameter_msg()])
    (answer,) = graph.call(SetParameters, 'set_parameters', request).results
    assert not answer.successful
    assert answer.reason == "there is no parameter 'thresholds', perhaps 'threshold' is meant"


def test_undeclared_parameter_of_endless_name_is_refused_shortly(active: Active) -> None:
    graph = active()
    request = SetParameters.Request(parameters=[
        Parameter('x' * 100_000, value=1).to_parameter_msg()])
    (answer,) = graph.call(SetParameters, 'set_parameters', request).results
    assert not answer.successful
    assert len(answer.reason) <= 300


def declared(program: str) -> dict[str, str]:
    """Return the parameters of a program with their defaults as a ROS user writes them."""
    module = ROOT / 'forecast_detector_ros/node' / f'{program.removesuffix("_node")}.py'
    tree = ast.parse(module.read_text())
    found = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, 'id', '') == 'declare_fixed':
            name, default = (ast.literal_eval(argument) for argument in call.args[1:3])
            found[name] = str(default).lower() if isinstance(default, bool) else str(default)
    return found


def described(program: str) -> dict[str, str]:
    """Return the parameters and defaults in the section of a program."""
    table = rows(section('reference/ros.md', PROGRAMS[program]))
    return {code(first)[0]: default.strip('`').replace("''", '') for first, default, *_ in table}


@pytest.mark.parametrize('program', PROGRAMS)
def test_page_lists_every_parameter_with_its_default(program: str) -> None:
    assert declared(program)
    assert described(program) == declared(program)


def number(text: str) -> float:
    """Parse a number in the notation of the page: 64000000, 2^30, 10^6."""
    base, _, exponent = text.partition('^')
    return float(base) ** int(exponent or 1)


def test_page_lists_the_parameters_of_the_detector_with_defaults_and_ranges(graph: Graph) -> None:
    node = graph.add_detector([])
    own = {item.name: item.metadata['declared'][0] for item in fields(FixedParameters)}
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    own |= {name: node.get_parameter(name).value for name in LIVE_PARAMETERS}
    table = {code(first)[0]: (default.strip('`'), span) for first, default, span, _ in
             rows(section('reference/ros.md', 'Parameters'))}
    assert set(table) == set(own)
    for name, (default, span) in table.items():
        if default != 'card':
            assert yaml.safe_load(default) == own[name], name
        descriptor: ParameterDescriptor = node.describe_parameter(name)
        for limits in (*descriptor.floating_point_range, *descriptor.integer_range):
            told = list(map(number, re.findall(r'[\d.^]+', span)))
            assert told == [limits.from_value, limits.to_value], name


def test_page_lists_every_value_of_diagnostics_and_decision(active: Active) -> None:
    graph = active()
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    (decision,) = graph.send(graph.camera(), picture_message(0))
    graph.spin_until(lambda: bool(heard))
    for heading, values in (('Values on `/diagnostics`', values_of(heard[-1])),
                            ('Values of a `decision`', decision)):
        table = section('reference/ros.md', heading).partition('| key |')[2]
        assert sorted(keys(table.partition('| reason |')[0])) == sorted(values)
