# SPDX-License-Identifier: Apache-2.0
"""Check the answers of the detector node to images, on a real graph."""
from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import StreamState
from forecast_detector_ros.images.frame import Frame, Pixels
import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import LabelInfo, VisionInfo

from .graph import Graph, picture_message, values_of

Active = Callable[..., Graph]


def kinds(values: list[dict[str, str]]) -> list[str]:
    return [item['decision'] for item in values]


def reasons(values: list[dict[str, str]]) -> list[str]:
    return [item['reason'] for item in values]


def test_every_output_carries_the_header_of_its_image(active: Active) -> None:
    graph = active(policy='alternate(1)')
    images = [picture_message(index) for index in range(4)]
    decided = kinds(graph.send(graph.camera(), *images))
    graph.spin_for(0.2)
    assert decided == ['read', 'forecast', 'read', 'forecast']
    assert len(graph.detections) == len(graph.decisions) == len(images)
    for image, found, decision in zip(images, graph.detections, graph.decisions, strict=True):
        assert found.header == image.header
        assert decision.header == image.header
        assert all(item.header == image.header for item in found.detections)
    assert any(found.detections for found in graph.detections)


def test_detections_are_in_pixels_of_the_image_and_name_their_class(active: Active) -> None:
    graph = active(policy='always_read', score_threshold=0.2)
    graph.send(graph.camera(), picture_message(size=(48, 80)))
    (found,) = graph.detections
    assert found.detections
    scores = [item.results[0].hypothesis.score for item in found.detections]
    assert scores == sorted(scores, reverse=True)
    numbers = [item.id for item in found.detections]
    assert len(set(numbers)) == len(numbers) and all(map(str.isdecimal, numbers))
    for item in found.detections:
        centre, box = item.bbox.center.position, item.bbox
        assert centre.x - box.size_x / 2 >= -1e-3
        assert centre.x + box.size_x / 2 <= 80 + 1e-3
        assert centre.y - box.size_y / 2 >= -1e-3
        assert centre.y + box.size_y / 2 <= 48 + 1e-3
        assert len(item.results) == 1
        assert item.results[0].hypothesis.class_id in ('cat', 'dog', 'train')


def test_empty_array_is_published_when_nothing_is_found(active: Active) -> None:
    graph = active(score_threshold=1.0)
    graph.send(graph.camera(), picture_message())
    assert len(graph.detections) == 1
    assert graph.detections[0].detections == []


def test_threshold_one_reads_every_frame(active: Active) -> None:
    graph = active(threshold=1.0)
    values = graph.send(graph.camera(), *map(picture_message, range(5)))
    assert kinds(values) == ['read'] * 5
    assert reasons(values) == ['first_frame'] + ['scheduler'] * 4


def test_threshold_zero_forecasts_all_but_forced_reads(active: Active) -> None:
    graph = active(threshold=0.0, max_consecutive_forecasts=2)
    values = graph.send(graph.camera(), *map(picture_message, range(7)))
    assert kinds(values) == ['read', 'forecast', 'forecast', 'read', 'forecast', 'forecast',
                             'read']
    assert reasons(values) == ['first_frame', 'scheduler', 'scheduler', 'max_consecutive',
                               'scheduler', 'scheduler', 'max_consecutive']
    assert [item['consecutive_forecasts'] for item in values] == list('0120120')


def test_decision_has_the_measured_times(active: Active) -> None:
    graph = active(policy='alternate(1)')
    read, forecast = graph.send(graph.camera(), picture_message(0), picture_message(1))
    assert float(read['preprocess_ms']) > 0.0
    assert float(forecast['preprocess_ms']) == 0.0
    for values in (read, forecast):
        assert float(values['latency_ms']) >= float(values['inference_ms']) > 0.0
        assert float(values['image_age_ms']) > 0.0
        assert values['dropped_frames'] == '0'
    status = graph.decisions[1].status[0]
    assert status.name == 'forecast_detector: /image_raw'
    assert status.message == 'forecast'
    assert status.level == status.OK


def test_bytes_of_a_forecast_frame_change_nothing(active: Active) -> None:
    graph = active(policy='alternate(2)')
    camera = graph.camera()
    outcomes = []
    for seeds in ((0, 1, 2), (0, 77, 78)):
        before = len(graph.detections)
        graph.send(camera, *(picture_message(index, seed=seed)
                             for index, seed in enumerate(seeds)))
        found = [message.detections for message in graph.detections[before:]]
        for detection in (one for frame in found for one in frame):
            detection.id = ''  # Object numbers are never reused.
        outcomes.append(found)
        graph.call(Trigger, 'reset', Trigger.Request())
    assert outcomes[0] == outcomes[1]
    assert any(outcomes[0])


@pytest.mark.parametrize('stamp_ns', [900_000_000_000, 1_000_000_000_000 + 5_000_000_000])
def test_step_back_and_gap_forget_the_state(active: Active, stamp_ns: int) -> None:
    graph = active(threshold=0.0, max_gap_s=1.0)
    values = graph.send(graph.camera(), picture_message(0), picture_message(1),
                        picture_message(stamp_ns=stamp_ns))
    assert reasons(values) == ['first_frame', 'scheduler', 'gap']
    status = graph.decisions[-1].status[0]
    assert status.level == status.WARN


def test_new_size_forgets_the_state(active: Active) -> None:
    graph = active(threshold=0.0)
    values = graph.send(graph.camera(), picture_message(0), picture_message(1, size=(40, 60)))
    assert reasons(values) == ['first_frame', 'size_changed']


def test_reset_forgets_the_state(active: Active) -> None:
    graph = active(threshold=0.0)
    camera = graph.camera()
    graph.send(camera, picture_message(0))
    assert graph.call(Trigger, 'reset', Trigger.Request()).success
    assert reasons(graph.send(camera, picture_message(1))) == ['reset']


def test_enable_pauses_and_continues(active: Active) -> None:
    graph = active(threshold=0.0)
    camera = graph.camera()
    graph.send(camera, picture_message(0))
    assert graph.call(SetBool, 'enable', SetBool.Request(data=False)).success
    graph.spin_until(lambda: camera.get_subscription_count() == 0)
    for index in range(1, 6):
        camera.publish(picture_message(index))
    graph.spin_for(0.3)
    assert len(graph.decisions) == 1
    assert graph.call(SetBool, 'enable', SetBool.Request(data=True)).success
    graph.spin_until(lambda: camera.get_subscription_count() == 1)
    graph.spin_for(0.2)
    (values,) = graph.send(camera, picture_message(6))
    assert values['reason'] == 'scheduler'
    assert values['dropped_frames'] == '0', 'what passed during the pause was not dropped'


def test_newest_image_wins_and_the_others_count_as_dropped(active: Active) -> None:
    graph = active(policy='always_read')
    camera = graph.camera()
    graph.send(camera, picture_message(0))
    for index in range(1, 6):
        camera.publish(picture_message(index))
    last = picture_message(5)
    graph.spin_until(lambda: graph.decisions[-1].header == last.header)
    taken = len(graph.decisions)
    assert taken < 6
    assert values_of(graph.decisions[-1])['dropped_frames'] == str(6 - taken)


def malformed() -> list[Any]:
    broken = []
    for key, value in (('step', 10), ('encoding', 'rgb1000'), ('height', 0), ('width', 0),
                       ('data', array('B', bytes(7)))):
        message = picture_message(1)
        setattr(message, key, value)
        broken.append(pytest.param(message, id=f'wrong_{key}'))
    return broken


@pytest.mark.parametrize('message', malformed())
def test_malformed_image_is_skipped_and_the_state_survives(active: Active, message: Image
                                                           ) -> None:
    graph = active(threshold=0.0)
    camera = graph.camera()
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    graph.send(camera, picture_message(0))
    camera.publish(message)
    graph.spin_until(lambda: bool(heard) and values_of(heard[-1])['decode_errors'] == '1')
    status = heard[-1].status[0]
    assert status.level == status.WARN
    assert values_of(heard[-1])['last_error'] in status.message
    assert len(graph.decisions) == len(graph.detections) == 1
    (values,) = graph.send(camera, picture_message(2))
    assert (values['decision'], values['reason']) == ('forecast', 'scheduler')


def jpeg_or_png(image: Image, extension: str, format_field: str = '') -> CompressedImage:
    pixels = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)
    _, data = cv2.imencode(extension, pixels)
    return CompressedImage(header=image.header, format=format_field,
                           data=array('B', data.tobytes()))


def test_compressed_image_gives_the_boxes_of_its_pixels(active: Active) -> None:
    graph = active(policy='always_read', image_transport='compressed')
    image = picture_message(0)
    # The format field is wrong on purpose.
    graph.send(graph.camera('image_raw/compressed'), jpeg_or_png(image, '.png', 'jpeg'))
    pixels = np.frombuffer(image.data, np.uint8).reshape(48, 80, 3)
    expected, _ = Detector.load(graph.checkpoint, backend='torch').step(
        Frame((48, 80), lambda: Pixels(pixels, 'bgr')), StreamState.initial(),
        DetectorSettings(score_threshold=0.4))
    scores = [item.results[0].hypothesis.score for item in graph.detections[0].detections]
    assert scores == pytest.approx(expected.detections.scores.tolist())
    assert scores


def test_truncated_jpeg_is_skipped_and_the_state_survives(active: Active) -> None:
    graph = active(policy='alternate(1)', image_transport='compressed')
    camera = graph.camera('image_raw/compressed')
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    whole = [jpeg_or_png(picture_message(index), '.jpg') for index in range(4)]
    broken = jpeg_or_png(picture_message(2), '.jpg')
    broken.data = broken.data[:300]
    assert kinds(graph.send(camera, *whole[:2])) == ['read', 'forecast']
    camera.publish(broken)
    graph.spin_until(lambda: bool(heard) and values_of(heard[-1])['decode_errors'] == '1')
    assert 'truncated' in values_of(heard[-1])['last_error']
    (values,) = graph.send(camera, whole[3])
    assert (values['decision'], values['reason']) == ('read', 'policy')


@pytest.mark.parametrize('transport', ['raw', 'compressed'])
def test_image_above_the_limit_is_skipped(active: Active, transport: str) -> None:
    graph = active(policy='always_read', image_transport=transport, max_image_pixels=48 * 80)
    compressed = transport == 'compressed'
    camera = graph.camera('image_raw/compressed' if compressed else 'image_raw')
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    fine, large = picture_message(0), picture_message(1, size=(49, 80))
    graph.send(camera, jpeg_or_png(fine, '.png') if compressed else fine)
    camera.publish(jpeg_or_png(large, '.png') if compressed else large)
    graph.spin_until(lambda: bool(heard) and values_of(heard[-1])['decode_errors'] == '1')
    assert '80x49' in values_of(heard[-1])['last_error']
    assert 'max_image_pixels' in values_of(heard[-1])['last_error']


def test_labels_reach_a_late_joiner(active: Active) -> None:
    graph = active()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    labels = graph.listen(LabelInfo, 'label_info', latched)
    vision = graph.listen(VisionInfo, 'vision_info', latched)
    graph.spin_until(lambda: bool(labels) and bool(vision))
    assert [(item.class_id, item.class_name) for item in labels[0].class_map] == [
        (0, 'cat'), (1, 'dog'), (2, 'train')]
    assert labels[0].threshold == pytest.approx(0.4), 'recommended by the checkpoint'
    assert vision[0].database_location == '/label_info'
    assert 'small' in vision[0].method


def test_annotated_picture_has_a_red_border_on_forecasts(
        active: Active) -> None:
    graph = active(policy='alternate(1)')
    camera = graph.camera()
    graph.send(camera, picture_message(0))
    newest = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    pictures = graph.listen(Image, 'image_annotated', newest)
    jpegs = graph.listen(CompressedImage, 'image_annotated/compressed', newest)
    graph.spin_until(lambda: graph.detector.count_subscribers('image_annotated') > 0
                     and graph.detector.count_subscribers('image_annotated/compressed') > 0)
    images = [picture_message(index) for index in (1, 2)]
    assert kinds(graph.send(camera, *images)) == ['forecast', 'read']
    graph.spin_until(lambda: len(pictures) == len(jpegs) == 2)
    red = []
    for image, picture, jpeg in zip(images, pictures, jpegs, strict=True):
        assert picture.header == jpeg.header == image.header
        array_ = np.frombuffer(picture.data, np.uint8).reshape(48, 80, 3)
        red.append(bool((array_[0, :] == (0, 0, 255)).all()))
        decoded = cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape == (48, 80, 3)
    assert red == [True, False]


def test_cameras_keep_their_states_apart(active: Active) -> None:
    graph = active(threshold=0.0, image_topics=['left', 'right'])
    left, right = graph.camera('left'), graph.camera('right')
    values = [graph.send(camera, picture_message(index))[0]
              for camera, index in ((left, 0), (left, 1), (right, 0), (left, 2), (right, 1))]
    assert reasons(values) == ['first_frame', 'scheduler', 'first_frame', 'scheduler',
                               'scheduler']
    assert [item['consecutive_forecasts'] for item in values] == list('01021')
    names = [message.status[0].name for message in graph.decisions]
    assert names[2] == 'forecast_detector: /right'


def test_cameras_that_wait_at_the_same_time_share_a_batch(active: Active) -> None:
    topics = ['left', 'right', 'front']
    graph = active(policy='alternate(1)', image_topics=topics)
    cameras = [graph.camera(topic) for topic in topics]
    for index in range(3):
        # All three arrive while the detector does not spin.
        for camera in cameras:
            camera.publish(picture_message(index))
        graph.spin_until(lambda wanted=3 * index + 3: len(graph.decisions) == wanted
                         and len(graph.detections) == wanted)
    values = [values_of(message) for message in graph.decisions]
    assert kinds(values) == ['read'] * 3 + ['forecast'] * 3 + ['read'] * 3
    # Some images may arrive too late for a batch, but not all.
    assert max(int(item['batch']) for item in values) > 1
    for index in range(3):
        found = [message.detections for message in graph.detections[3 * index:3 * index + 3]]
        labels = [[item.results[0].hypothesis.class_id for item in each] for each in found]
        # The three pictures are equal, so their results must be equal.
        assert labels[0] == labels[1] == labels[2] and labels[0]


def test_target_rate_makes_forecasts(active: Active) -> None:
    # No machine reads 1000 images per second; the limit of forecasts still holds.
    graph = active(policy='always_read', target_rate=1000.0, max_consecutive_forecasts=2)
    camera = graph.camera()
    values = graph.send(camera, *(picture_message(index) for index in range(5)))
    assert reasons(values) == ['first_frame', 'budget', 'budget', 'max_consecutive', 'budget']
    assert kinds(values) == ['read', 'forecast', 'forecast', 'read', 'forecast']


def test_diagnostics_warn_of_missing_images_with_advice(active: Active) -> None:
    graph = active(no_image_timeout=0.3)
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    graph.spin_until(lambda: bool(heard) and heard[-1].status[0].level
                     == heard[-1].status[0].WARN)
    text = heard[-1].status[0].message
    assert '/image_raw' in text and 'topic name' in text
    graph.send(graph.camera(), picture_message(0))
    graph.spin_until(lambda: heard[-1].status[0].message == 'running')
    values = values_of(heard[-1])
    assert (values['model'], values['device'], values['precision']) == ('small', 'cpu', 'fp32')
    assert values['processed_frames'] == '1'
    assert values['read_ratio'] == '1.000'
    assert float(values['latency_max_ms']) > 0.0


@pytest.mark.parametrize('backend', ['torch', 'onnxruntime', 'openvino'])
def test_back_end_is_chosen_and_reported(active: Active, backend: str) -> None:
    graph = active(backend=backend, policy='alternate(1)')
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    values = graph.send(graph.camera(), picture_message(0), picture_message(1))
    assert kinds(values) == ['read', 'forecast']
    graph.spin_until(lambda: bool(heard))
    assert values_of(heard[-1])['backend'] == backend


def test_life_cycle_can_be_walked_back_and_forth(active: Active) -> None:
    graph = active(threshold=0.0)
    node, success = graph.detector, TransitionCallbackReturn.SUCCESS
    camera = graph.camera()
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    assert kinds(graph.send(camera, picture_message(0), picture_message(1))) == [
        'read', 'forecast']
    assert node.trigger_deactivate() == success
    graph.spin_until(lambda: camera.get_subscription_count() == 0)
    camera.publish(picture_message(2))
    graph.spin_until(lambda: bool(heard) and heard[-1].status[0].message == 'inactive')
    assert len(graph.decisions) == 2
    assert node.trigger_activate() == success
    graph.spin_until(lambda: camera.get_subscription_count() == 1)
    graph.spin_for(0.2)
    assert reasons(graph.send(camera, picture_message(3))) == ['first_frame']
    assert node.trigger_deactivate() == success
    assert node.trigger_cleanup() == success
    assert node.trigger_configure() == success
    assert node.trigger_activate() == success
    graph.spin_until(lambda: camera.get_subscription_count() == 1)
    graph.spin_until(lambda: node.count_subscribers('detections') > 0)
    graph.spin_for(0.2)
    assert reasons(graph.send(camera, picture_message(4))) == ['first_frame']
    assert node.trigger_shutdown() == success
    node.close()
    node.destroy_node()
    node.destroy_node()
