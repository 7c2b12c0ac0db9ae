# SPDX-License-Identifier: Apache-2.0
"""The managed node that detects objects in the images of cameras."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from functools import partial
import gc
from time import perf_counter
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from .camera_stream import CameraStream, step_waiting, Waiting
from .diagnostics import camera_values, CameraStatistics, describe, health, Situation
from .outputs import Idle, Outputs
from .parameters import (
    camera_topics, declare_fixed_parameters, declare_live_parameters, LIVE_PARAMETERS,
    ParameterError, read_settings, undeclare_live_parameters)
from .program import FailureLog, guarded, SafeParameterService, warn_of_unknown_parameters
from ..detector.checkpoint import default_checkpoint, RuntimeConfigError
from ..detector.detector import check_ahead, Detector, StepResult
from ..detector.host import give_back_free_blocks, keep_large_blocks
from ..detector.policy import READ
from ..detector.settings import DetectorSettings, SettingsError
from ..errors import cut
from ..images.frame import FrameError

#: The sensor data profile with depth 1, so that no stale image is processed.
_NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
#: Period in which a lazy node counts its subscribers, seconds; it wakes within this time.
_LISTENERS_S = 0.2
_SAME_ERROR_S = 5.0  #: Least seconds between two log lines about a camera's malformed images


class DetectorNode(LifecycleNode):
    """
    Detects objects in the images of one or several cameras.

    Callbacks process the images, waiting images of several cameras together. The node therefore
    needs a single-threaded executor. Errors of parameters and checkpoint appear in `on_configure`,
    as one line in the log.
    """

    def __init__(self, name: str, **options: Any) -> None:
        """
        Declare the fixed parameters; `options` are those of rclpy's Node.

        Raises rclpy's ParameterException for a parameter that ROS refuses.
        """
        super().__init__(name, start_parameter_services=False, **options)
        self._parameter_services = SafeParameterService(self)
        self.fixed = declare_fixed_parameters(self)
        self._detector: Detector | None = None
        self._settings = DetectorSettings()
        self._streams: list[CameraStream] = []
        self._subscriptions_of: dict[str, Any] = {}
        self._outputs: Outputs | None = None
        self._wake: Any = None
        self._made = ExitStack()
        self.failures = FailureLog(name)  #: Log of unexpected exceptions
        self._failures_in_a_row = 0
        self.given_up = ''  #: Why the node has deactivated itself; else empty
        self._idle = Idle(self.fixed.lazy_timeout, 0.0)
        self._enabled = True
        self._active = False
        if self.fixed.tune_allocator and not keep_large_blocks():
            self.get_logger().warning('tune_allocator has no effect with this C library')
        self.add_on_set_parameters_callback(self._validate_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)

    # Life cycle. A user's error gives one line and FAILURE. Any other error gives a traceback and
    # ERROR, after which on_error releases everything.

    @guarded('cannot configure')
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the checkpoint and create the outputs; FAILURE and one line in the log on error."""
        try:
            self._configure()
        except (RuntimeConfigError, ParameterError, SettingsError) as error:
            self.get_logger().error(f'cannot configure: {error}')
            self.close()
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    @guarded('cannot activate')
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Warm up the network, then subscribe to the images."""
        try:
            self._activate(state)
        # A device that fails, or an invalid QoS override.
        except (RuntimeError, ParameterException) as error:
            self.get_logger().error(f'cannot activate: {cut(error)}')
            self._stop()
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    @guarded('cannot deactivate')
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe from the images; the model stays loaded."""
        self._stop()
        return super().on_deactivate(state)

    @guarded('cannot clean up')
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything that `on_configure` created."""
        self.close()
        return super().on_cleanup(state)

    @guarded('cannot shut down')
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, in any state."""
        self.close()
        return super().on_shutdown(state)

    @guarded('cannot clean up after an error')
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything; the node may be configured again."""
        self.close()
        return super().on_error(state)

    def _activate(self, state: LifecycleState) -> None:
        assert self._detector is not None and self._outputs is not None
        self._detector.warm_up(len(self._streams))
        now = self._now()
        for stream in self._streams:
            stream.restart()
            stream.statistics = CameraStatistics(now)
        self._failures_in_a_row, self.given_up = 0, ''
        self._idle = Idle(self.fixed.lazy_timeout, perf_counter())
        if self._enabled:
            self._subscribe()
        super().on_activate(state)
        self._active = True
        self._outputs.publish_labels(self._settings.score_threshold)
        self.get_logger().info(
            'active: ' + ', '.join(stream.topic for stream in self._streams) + ' -> '
            + self._outputs.topic)

    def _stop(self) -> None:
        self._active = False
        self._unsubscribe()

    def _configure(self) -> None:
        fixed = self.fixed
        fixed.check()
        self.given_up = ''
        compressed = fixed.image_transport == 'compressed'
        cameras = camera_topics(self, fixed.image_topics, compressed)
        self._detector = Detector.load(
            fixed.checkpoint or default_checkpoint(), fixed.device, fixed.precision,
            fixed.num_threads, fixed.num_interop_threads, fixed.backend)
        if fixed.publish_ahead:
            check_ahead(self._detector)
        declare_live_parameters(self, self._detector.card)
        warn_of_unknown_parameters(self)
        settings = self._read_settings()
        self._detector.check_settings(settings)
        self._settings = settings
        now = self._now()
        for name, topic in cameras:
            self._streams.append(CameraStream(
                name, topic, compressed, now, fixed.max_image_pixels, fixed.max_gap_s))
        if len(self._streams) > 1:
            self._wake = self.create_guard_condition(self._process)
            self._made.callback(self.destroy_guard_condition, self._wake)
        try:
            self._outputs = Outputs(self, self._detector, fixed.publish_ahead)
        except (RuntimeError, ParameterException) as error:
            raise ParameterError(f'qos_overrides: {error}') from None
        self._made.callback(self._outputs.destroy)
        for service_type, name, callback in (
                (Trigger, '~/reset', self._on_reset), (SetBool, '~/enable', self._on_enable)):
            self._made.callback(
                self.destroy_service, self.create_service(service_type, name, callback))
        # A steady clock, because diagnostics must continue if simulated time stops.
        self._made.callback(self.destroy_timer, self.create_timer(
            fixed.diagnostics_period, self._on_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME)))
        if fixed.lazy:
            self._made.callback(self.destroy_timer, self.create_timer(
                _LISTENERS_S, self._on_listeners, clock=Clock(clock_type=ClockType.STEADY_TIME)))
        self.get_logger().info(describe(self._detector, settings))

    def close(self) -> None:
        """Release everything without a transition; may be called any number of times."""
        try:
            # ExitStack runs all callbacks in reverse order, even if one of them fails.
            with self._made.pop_all() as made:
                made.callback(undeclare_live_parameters, self)
                made.callback(self._stop)
        except Exception as error:  # noqa: B902
            self.failures.tell('not everything could be released', error)
        self._outputs = None
        self._streams.clear()
        self._wake = None
        self._detector = None
        self._enabled = True
        # A network has reference cycles; free it before the next one is loaded.
        gc.collect()
        give_back_free_blocks()

    # Images.

    def _subscribe(self) -> None:
        compressed = self.fixed.image_transport == 'compressed'
        kind = CompressedImage if compressed else Image
        for stream, base in zip(self._streams, self.fixed.image_topics, strict=True):
            stream.drops.forget()
            # The resolved name would be remapped a second time.
            asked = f'{stream.name}/compressed' if compressed else base
            self._subscriptions_of[stream.topic] = self.create_subscription(
                kind, asked, partial(self._on_image, stream), copy(_NEWEST),
                qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def _unsubscribe(self) -> None:
        for stream in self._streams:
            stream.waiting = None
        if not self._subscriptions_of:
            return
        while self._subscriptions_of:
            self.destroy_subscription(self._subscriptions_of.popitem()[1])
        give_back_free_blocks()

    def _on_image(self, stream: CameraStream, message: Any, info: Any) -> None:
        start = perf_counter()
        if not self._subscriptions_of:
            return  # The executor took it just before the subscription was destroyed.
        dropped = stream.drops.dropped_before(info)
        stream.statistics.add_image(self._now(), dropped)
        try:
            if stream.put(message, start, dropped):
                stream.statistics.dropped += 1
        except FrameError as error:
            self._refuse(stream, error)
            return
        if self._wake is None:
            self._process()
        else:
            # The executor first delivers the images of other cameras that have arrived.
            self._wake.trigger()

    def _process(self) -> None:
        if self._detector is None or self._outputs is None:
            return
        for stream, waiting, result in step_waiting(
                self._streams, self._detector, self._settings, self.fixed.max_gap_s):
            if isinstance(result, FrameError):
                self._refuse(stream, result)
                continue
            try:
                if isinstance(result, Exception):
                    raise result
                self._publish(self._outputs, stream, waiting, result)
                self._failures_in_a_row = 0
            # The back-end or the making of the messages may raise anything.
            except Exception as error:  # noqa: B902
                self._fail(stream, error)
        most = self.fixed.max_failures
        if most and self._failures_in_a_row >= most and self._active:
            self._give_up()

    def _publish(self, outputs: Outputs, stream: CameraStream, waiting: Waiting,
                 result: StepResult) -> None:
        header = waiting.message.header
        outputs.publish_detections(header, result)
        latency_ms = (perf_counter() - waiting.start) * 1e3
        now = self._now()
        age_ms = (now - header.stamp.sec - header.stamp.nanosec * 1e-9) * 1e3
        outputs.publish_decision(
            header, stream, result, latency_ms, age_ms, stream.statistics.dropped)
        stream.statistics.add_result(
            now, result.decision.kind == READ, latency_ms, result.decision.reason, age_ms)
        outputs.publish_ahead(header, stream, self._settings)
        if outputs.is_watched():
            # A forecast frame must be decoded for drawing, so draw only for a subscriber.
            try:
                outputs.publish_picture(header, waiting.frame.load(), result)
            except FrameError as error:
                self._refuse(stream, error)

    def _refuse(self, stream: CameraStream, error: FrameError) -> None:
        stream.statistics.add_error(self._now(), str(error))
        if perf_counter() - stream.statistics.told_error > _SAME_ERROR_S:
            stream.statistics.told_error = perf_counter()
            self.get_logger().warning(f'{stream.topic}: image refused: {error}')

    def _fail(self, stream: CameraStream, error: Exception) -> None:
        reason = self.failures.tell(f'{stream.topic}: an image failed', error)
        stream.statistics.add_failure(self._now(), reason)
        self._failures_in_a_row += 1

    def _give_up(self) -> None:
        """Deactivate, so that the manager of the life cycle can react."""
        reason = max(self._streams, key=lambda stream: stream.statistics.failed)
        self.given_up = (f'{self._failures_in_a_row} images in a row failed: '
                         f'{reason.statistics.last_failure}')
        self.get_logger().error(f'deactivating: {self.given_up}')
        self.trigger_deactivate()

    # Services, parameters, diagnostics.

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response
                  ) -> Trigger.Response:
        for stream in self._streams:
            stream.restart('reset')
        response.success = True
        response.message = 'the next image of every camera is read'
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response
                   ) -> SetBool.Response:
        # A paused node unsubscribes, so that it does not spend CPU time on receiving.
        if self._active and request.data and not self._enabled:
            self._resume()
        elif not request.data:
            self._unsubscribe()
        self._enabled = request.data
        response.success = True
        response.message = 'enabled' if request.data else 'paused'
        return response

    def _validate_parameters(self, changes: Sequence[Parameter]) -> SetParametersResult:
        # Settings can be checked only when all live parameters are declared.
        if self._detector is not None and all(map(self.has_parameter, LIVE_PARAMETERS)):
            try:
                self._detector.check_settings(self._read_settings(changes))
            except SettingsError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changes: Sequence[Parameter]) -> None:
        if self._outputs is None or not any(item.name in LIVE_PARAMETERS for item in changes):
            return
        before, self._settings = self._settings, self._read_settings()
        if self._active and before.score_threshold != self._settings.score_threshold:
            self._outputs.publish_labels(self._settings.score_threshold)

    def _read_settings(self, changes: Iterable[Parameter] = ()) -> DetectorSettings:
        return replace(read_settings(self, changes), streams=len(self.fixed.image_topics))

    def _on_listeners(self) -> None:
        """Unsubscribe or subscribe, depending on the subscribers of the results."""
        if self._outputs is None or not self._active or not self._enabled:
            return
        rests = self._idle.rests(self._outputs.is_heard(), perf_counter())
        if rests == bool(self._subscriptions_of):
            self.get_logger().info('resting: nobody listens' if rests else 'working again')
            if rests:
                self._unsubscribe()
            else:
                self._resume()

    def _resume(self) -> None:
        now = self._now()
        for stream in self._streams:
            stream.statistics.resume(now)
        self._subscribe()

    def _on_diagnostics(self) -> None:
        if self._outputs is None:
            return
        now = self._now()
        for stream in self._streams:
            stream.statistics.begin(now)
            subscription = self._subscriptions_of.get(stream.topic)
            situation = Situation(
                stream.topic, now, self._active, self._enabled,
                0 if subscription is None else subscription.get_publisher_count(),
                self.fixed.no_image_timeout, self._enabled and not self._subscriptions_of,
                self.given_up, self.fixed.min_output_rate, self.fixed.max_age_s)
            level, text = health(situation, stream.statistics)
            self._outputs.publish_diagnostics(
                stream, level, text, camera_values(stream.statistics, now), self._settings)

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9
