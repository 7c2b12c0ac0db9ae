# SPDX-License-Identifier: Apache-2.0
"""
The detector node's parameters: descriptions, defaults and ranges.

Fixed parameters are declared with the node. Live parameters are declared when the checkpoint is
loaded, because its card gives their defaults. A clean-up undeclares them.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
import re
from typing import Any, NamedTuple, TYPE_CHECKING

from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from .program import declare, declare_fixed
from ..detector.policy import parse_policy, PolicyError, ThresholdPolicy
from ..detector.settings import DetectorSettings, SettingsError
from ..errors import cut, InputError
from ..images.image_messages import MAX_IMAGE_PIXELS

if TYPE_CHECKING:  # The recorder needs no checkpoint.
    from ..detector.checkpoint import Card

TRANSPORTS = ('raw', 'compressed')

MOST_CAMERAS = 256

MOST_NAME = 256  #: Characters of a topic or class; topics of ROS are shorter (rmw allows 247)

MOST_CLASSES = 10_000  #: Names in the parameter `classes`


class ParameterError(InputError):
    """A parameter has the right type but an invalid value; the message is one line."""


def _declared(default: Any, description: str, span: tuple[float, float] | None = None,
              constraints: str = '') -> Any:
    """Return a field of FixedParameters with the arguments of `declare_fixed`."""
    return field(metadata={'declared': (default, description, span, constraints)})


@dataclass(frozen=True)
class FixedParameters:
    """Parameters that cannot change while the node runs; durations are in seconds."""

    image_topics: tuple[str, ...] = _declared(
        ['image_raw'], 'Base topics of the cameras, one each; `compressed` appends /compressed')
    image_transport: str = _declared(
        'raw', 'How the cameras publish: sensor_msgs/Image, or sensor_msgs/CompressedImage on '
        '<topic>/compressed', constraints=f'one of: {", ".join(TRANSPORTS)}')
    checkpoint: str = _declared(
        '', 'Weights: small, default, large, or a .safetensors file with its .yaml card beside '
        'it; empty: default')
    device: str = _declared(
        'auto', 'Where the network runs; auto: on CUDA where it is usable, else on the CPU',
        constraints='auto, cpu, cuda or cuda:N')
    backend: str = _declared(
        'auto', 'What runs the network; auto: the fastest that is installed',
        constraints='auto, openvino, onnxruntime, torch, torch_compile or tensorrt')
    precision: str = _declared(
        'auto', 'Arithmetic of the network; auto: bf16 or int8 with OpenVINO on a processor with '
        'instructions for it, else fp32',
        constraints='auto, fp32, tf32, bf16, fp16 or int8; not every back-end has all of them')
    num_threads: int = _declared(
        1, 'Threads of one inference on the CPU; more than one seldom helps if other processes '
        'are busy', (1, 256))
    num_interop_threads: int = _declared(
        1, 'Operators that PyTorch may run at the same time on the CPU', (1, 256))
    max_image_pixels: int = _declared(
        MAX_IMAGE_PIXELS, 'Larger images are refused, compressed ones before they are decoded',
        (1, 2**30))
    max_gap_s: float = _declared(
        1.0, 'Longest gap between the stamps of two images of a camera, seconds; after a longer '
        'gap its state is reset', (0.0, 3600.0))
    max_failures: int = _declared(
        10, 'After this number of failed frames in a row the node deactivates itself, and with '
        'autostart the process ends; 0: never', (0, 1000000))
    no_image_timeout: float = _declared(
        5.0, 'Seconds without an image after which /diagnostics warns', (0.1, 3600.0))
    min_output_rate: float = _declared(
        0.0, 'Frames per second of a camera below which /diagnostics warns; 0.0: off',
        (0.0, 1000.0))
    max_age_s: float = _declared(
        0.0, 'Age of boxes, from the stamp of their image, above which /diagnostics warns, '
        'seconds; it also warns of stamps in the future; 0.0: off', (0.0, 3600.0))
    diagnostics_period: float = _declared(
        1.0, 'Seconds between two messages on /diagnostics', (0.05, 3600.0))
    publish_ahead: bool = _declared(
        False, 'Publish on detections_ahead, after the detections of each image, those expected '
        'one period of the camera later')
    lazy: bool = _declared(
        False, 'Receive no images while detections, detections_ahead, decision and '
        'image_annotated have no subscribers')
    lazy_timeout: float = _declared(
        5.0, 'Seconds without subscribers after which a lazy node rests', (0.1, 3600.0))
    autostart: bool = _declared(
        False, 'Configure and activate the node at start-up; if that fails, or the node '
        'deactivates itself, the process ends with exit code 1')
    tune_allocator: bool = _declared(
        True, 'Let glibc keep the memory of large images, which reduces the CPU time per received '
        'raw image to less than a third')

    def check(self) -> None:
        """Check the rules that ranges cannot express; raises ParameterError."""
        topics = self.image_topics
        if not topics or not all(topics):
            raise ParameterError('image_topics must name at least one topic, and none may be '
                                 f'empty: {cut(list(topics))}')
        if len(topics) > MOST_CAMERAS or max(map(len, topics)) > MOST_NAME:
            raise ParameterError(f'image_topics may name {MOST_CAMERAS} topics of {MOST_NAME} '
                                 f'characters: {cut(list(topics))}')
        if len(set(topics)) != len(topics):
            raise ParameterError(f'image_topics names a topic twice: {cut(list(topics))}')
        if self.image_transport not in TRANSPORTS:
            raise ParameterError(f'image_transport is {cut(self.image_transport)!r}, must be one '
                                 f'of {", ".join(TRANSPORTS)}')


def declare_fixed_parameters(node: Node) -> FixedParameters:
    """
    Declare the fixed parameters and return their values.

    Raises rclpy's ParameterException for a value of the wrong type or outside its range.
    """
    values = {item.name: declare_fixed(node, item.name, *item.metadata['declared'])
              for item in fields(FixedParameters)}
    return FixedParameters(**{**values, 'image_topics': tuple(values['image_topics'])})


def resolved_topic(node: Node, parameter: str, name: str) -> str:
    """
    Return the full name of a topic with the node's remappings.

    Raises ParameterError, which names `parameter`, if `name` is not a topic name.
    """
    try:
        return str(node.resolve_topic_name(name))
    except RuntimeError as error:  # RCLError of rclpy, which is not public.
        reason = re.sub(r'^failed to resolve name: |, at \S+:\d+$', '', str(error))
        raise ParameterError(
            f'{parameter}: {cut(name)!r} is no topic name: {cut(reason)}') from None


def camera_topics(node: Node, names: Sequence[str], compressed: bool) -> list[tuple[str, str]]:
    """
    Return the base topic and the subscribed topic of each camera, both resolved.

    A remapping of the base topic also applies to its compressed topic. Raises ParameterError if a
    name is not a topic name, or if two names give the same topic.
    """
    bases = [resolved_topic(node, 'image_topics', name) for name in names]
    topics = ([resolved_topic(node, 'image_topics', f'{base}/compressed') for base in bases]
              if compressed else bases)
    for topic in topics:
        if topics.count(topic) > 1:
            raise ParameterError(f'image_topics names {topic} twice: {cut(list(names))}')
    return list(zip(bases, topics, strict=True))


class _Live(NamedTuple):
    """Description and range of a parameter that may change at any time."""

    description: str
    span: tuple[float, float] | None = None
    constraints: str = ''


_LIVE = {
    'threshold': _Live(
        'The next image is not read when the scheduler trusts its forecast more than this; '
        '1.0: every image is read; 0.0: only forced reads', (0.0, 1.0)),
    'policy': _Live(
        'Rule that replaces the threshold; empty: threshold(<threshold>)',
        constraints="'', threshold(p) with p in [0, 1], alternate(k) with k >= 1, budget(fps) "
        'with fps > 0, always_read'),
    'score_threshold': _Live('Only boxes with a higher score are detections', (0.0, 1.0)),
    'nms_threshold': _Live(
        'Overlap (IoU) at or above which the weaker of two boxes of a class is dropped',
        (0.0, 1.0), 'greater than 0'),
    'vote_threshold': _Live(
        'Overlap (IoU) at or above which weaker boxes of a class shift a kept box; 1.0: never',
        (0.0, 1.0), 'greater than 0'),
    'score_memory': _Live(
        "Weight of an object's score in the previous frame; 0.0: none", (0.0, 1.0),
        'less than 1'),
    'max_detections': _Live('Most detections of a frame', (1, 1000)),
    'classes': _Live(
        "Names of the classes to detect; ['']: all of them",
        constraints='names from the label_info topic'),
    'max_consecutive_forecasts': _Live(
        'After this number of forecasts in a row the next image is read', (1, 1000)),
    'target_rate': _Live(
        'Frames per second that must be possible for every camera: an image is not read if '
        'the read would exceed the time that is left; 0.0: no limit', (0.0, 1000.0)),
}

LIVE_PARAMETERS = tuple(_LIVE)  #: Names of the parameters that may change while the node runs


def declare_live_parameters(node: Node, card: Card) -> None:
    """
    Declare the live parameters, with the card's recommendations as defaults.

    Raises ParameterError, which names the parameter, if a value given at start-up has the wrong
    type or is out of range. No parameter is declared then.
    """
    settings = card.settings()
    # An empty list has no type in ROS, so a list of one empty name stands for it.
    defaults: dict[str, Any] = {
        'threshold': settings.policy.threshold, 'policy': '', 'classes': ['']}
    defaults |= {name: getattr(settings, name) for name in _LIVE if name not in defaults}
    try:
        for name, live in _LIVE.items():
            declare(node, name, defaults[name], *live)
    except ParameterException as error:
        undeclare_live_parameters(node)
        raise ParameterError(cut(error, 500)) from None


def undeclare_live_parameters(node: Node) -> None:
    """Undeclare the live parameters; declared again, they have their start-up values."""
    for name in LIVE_PARAMETERS:
        if node.has_parameter(name):
            node.undeclare_parameter(name)


def read_settings(node: Node, changes: Iterable[Parameter] = ()) -> DetectorSettings:
    """
    Return the detector's settings from the live parameters, with `changes` applied.

    Raises SettingsError for an invalid value.
    """
    values = {name: node.get_parameter(name).value for name in LIVE_PARAMETERS}
    values.update((change.name, change.value) for change in changes if change.name in _LIVE)
    return settings_of(values)


def settings_of(values: Mapping[str, Any]) -> DetectorSettings:
    """
    Return the settings for a complete set of live parameters.

    Raises SettingsError for an invalid value.
    """
    try:
        # The threshold is also checked while another policy replaces it.
        policy = ThresholdPolicy(values['threshold'])
        chosen = parse_policy(values['policy']) if values['policy'].strip() else policy
    except PolicyError as error:
        raise SettingsError(str(error)) from None
    return DetectorSettings(
        policy=chosen, score_threshold=values['score_threshold'],
        nms_threshold=values['nms_threshold'], vote_threshold=values['vote_threshold'],
        score_memory=values['score_memory'],
        max_detections=values['max_detections'],
        classes=_names(values['classes']),
        max_consecutive_forecasts=values['max_consecutive_forecasts'],
        target_rate=values['target_rate'])


def _names(classes: Sequence[str]) -> tuple[str, ...]:
    if len(classes) > MOST_CLASSES:
        raise SettingsError(f'classes has {len(classes)} names, may have {MOST_CLASSES}')
    long = next((name for name in classes if len(name) > MOST_NAME), None)
    if long is not None:
        raise SettingsError(f'classes names {cut(long)!r}, a name may have {MOST_NAME} characters')
    return tuple(name for name in classes if name)
