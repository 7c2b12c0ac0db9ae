# SPDX-License-Identifier: Apache-2.0
"""Forecasts by horizon, compared with values computed from the network's parts."""

from dataclasses import replace

from forecast_detector_ros.detector.backends.torch_backend import TorchBackend
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.detector.policy import AlternatePolicy, AlwaysReadPolicy
from forecast_detector_ros.detector.processing import resize
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.evaluation.forecast_backends import FeatureSource, SharedFeatureBackend
from forecast_detector_ros.evaluation.forecast_quality import measure_forecasts
from forecast_detector_ros.evaluation.runs import run_video
from forecast_detector_ros.evaluation.sequences import EvaluationError, picture
from forecast_detector_ros.metrics.tables import one_hot, TruthTable
import numpy as np
import pytest
import torch

SETTINGS = DetectorSettings(score_threshold=0.3, max_detections=10)


def seen(run, classes=3):
    """Return the detections of a run that have an area, as true boxes."""
    sides = run.shown.boxes[:, 2:] - run.shown.boxes[:, :2]
    shown = run.shown.select(sides.min(1) > 0)
    return TruthTable(shown.frames, shown.boxes, one_hot(shown.labels, classes),
                      np.zeros(0, np.int64), np.zeros((0, 4), np.float32))


def measure(network, card, items, settings, horizons, **options):
    """Measure forecasts at one frame rate."""
    (quality,) = measure_forecasts(network, card, items, settings, horizons, **options).strides
    return quality


def at_half(hits):
    """Return recall at IoU 0.5 of the first sequence."""
    return float(hits.recall[0, 0])


def features(network, item):
    images = [resize(picture(record), network.config.input_size) for record in item.frames]
    with torch.inference_mode():
        return [network.extract(network.normalise_bgr(torch.from_numpy(image[None])))
                for image in images]


@pytest.mark.parametrize('mode', ['residual', 'direct'])
def test_feature_errors_by_hand(make_network, card, videos, mode):
    network = make_network(forecast_mode=mode)
    (item,) = videos(walk=('dog', 3))
    quality = measure(network, card, [item], SETTINGS, horizons=1)
    with torch.inference_mode():
        first, second, third = features(network, item)
        # Start phase 0 reads frame 0 and forecasts frame 1; phase 1 reads frames 0 and 1.
        one, state = network.encode(first, network.initial_state())
        two, _ = network.encode(second, state)
    for level in range(2):
        forecast = [float(((guess[level] - real[level]) ** 2).mean())
                    for guess, real in ((one.forecast, second), (two.forecast, third))]
        held = [float(((guess[level] - real[level]) ** 2).mean())
                for guess, real in ((first, second), (second, third))]
        assert quality.feature_mse[level, 0, 0] == pytest.approx(np.mean(forecast))
        assert quality.persistence_mse[level, 0, 0] == pytest.approx(np.mean(held))


def test_second_forecast_is_made_from_the_first(make_network, card, videos):
    network = make_network()
    (item,) = videos(walk=('dog', 3))
    quality = measure(network, card, [item], SETTINGS, horizons=2)
    with torch.inference_mode():
        first, _, third = features(network, item)
        one, state = network.encode(first, network.initial_state())
        two, _ = network.encode(one.forecast, state)
    # Only frame 2 of start phase 0 is two frames behind a read.
    for level in range(2):
        assert quality.feature_mse[level, 1, 0] == pytest.approx(
            float(((two.forecast[level] - third[level]) ** 2).mean()))
        assert quality.persistence_mse[level, 1, 0] == pytest.approx(
            float(((first[level] - third[level]) ** 2).mean()))


def test_every_frame_is_measured_once_at_each_horizon(make_network, card, videos):
    items = videos(long=('dog', 6), short=('dog', 2))
    quality = measure(make_network(), card, items, SETTINGS, horizons=3)
    assert quality.names == ('long', 'short')
    for hits in quality.rows.values():
        assert [item.boxes.tolist() for item in hits] == [[6, 2], [5, 1], [4, 0], [3, 0]]
    # The short sequence has no frame three behind a read.
    assert np.isnan(quality.feature_mse[:, 2, 1]).all()
    assert not np.isnan(quality.feature_mse[:, :, 0]).any()


def test_reads_have_full_recall_if_they_are_the_truth(make_network, card, videos):
    network = make_network()
    (item,) = videos(walk=('dog', 6))
    detector = Detector(TorchBackend(network), card)
    run = run_video(detector, item, replace(SETTINGS, policy=AlwaysReadPolicy()), False)
    assert len(run.shown) > 6
    quality = measure(network, card, [replace(item, truth=seen(run))], SETTINGS, 2)
    assert [at_half(hits) for hits in quality.rows['read']] == [1.0, 1.0, 1.0]
    # The frames are independent noise, which cannot be forecast.
    for rival in ('forecast', 'held', 'persistence', 'repeated_boxes'):
        assert at_half(quality.rows[rival][1]) < 1.0


def test_frames_read_before_a_start_phase_do_not_count_again(make_network, card, videos):
    # Without a state all reads of a frame agree, so counting twice would find each box twice.
    network = make_network(variant='baseline')
    (item,) = videos(walk=('dog', 4))
    detector = Detector(TorchBackend(network), card)
    once = seen(run_video(detector, item, replace(SETTINGS, policy=AlwaysReadPolicy()), False))
    twice = replace(item, truth=TruthTable.join([once, once]))
    quality = measure(network, card, [twice], SETTINGS, 2)
    assert quality.rows['forecast'][0].found[0].tolist() == [len(once)]


def test_alternating_run_is_one_of_the_start_phases(make_network, card, videos):
    network = make_network()
    (item,) = videos(walk=('dog', 2))
    detector = Detector(TorchBackend(network), card)
    run = run_video(detector, item, replace(SETTINGS, policy=AlternatePolicy(1)), False)
    assert np.any(run.shown.frames == 1)
    quality = measure(network, card, [replace(item, truth=seen(run))], SETTINGS, 1)
    # Only start phase 0, which is the alternating run, forecasts frame 1.
    assert at_half(quality.rows['forecast'][1]) == 1.0


def test_repeated_boxes_are_those_of_the_last_read_frame(make_network, card, videos):
    network = make_network()
    (item,) = videos(walk=('dog', 2))
    detector = Detector(TorchBackend(network), card)
    truth = seen(run_video(detector, item, SETTINGS, False))
    first = truth.select(truth.frames == 0)
    both = TruthTable.join([first, first.shift(1)])
    quality = measure(network, card, [replace(item, truth=both)], SETTINGS, 1)
    assert at_half(quality.rows['repeated_boxes'][1]) == 1.0


def test_untrained_residual_forecast_is_persistence(make_network, card, videos):
    network = make_network()
    for encoder in network.encoder1:
        encoder.expand.weight.data.zero_()
        encoder.expand.bias.data.zero_()
    (item,) = videos(walk=('dog', 6))
    detector = Detector(TorchBackend(network), card)
    run = run_video(detector, item, replace(SETTINGS, policy=AlternatePolicy(2)), False)
    quality = measure(network, card, [replace(item, truth=seen(run))], SETTINGS, 2)
    np.testing.assert_allclose(quality.feature_mse, quality.persistence_mse, rtol=1e-5)
    for rival in ('held', 'persistence'):
        for mine, other in zip(quality.rows['forecast'], quality.rows[rival]):
            assert mine.found.tolist() == other.found.tolist()
    assert quality.rows['forecast'][1].found[0, 0] > 0


@pytest.mark.parametrize('update', ['advance', 'hold'])
def test_shared_backend_agrees_with_the_plain_one(make_network, update):
    network = make_network(state_update=update)
    plain = TorchBackend(network)
    shared = SharedFeatureBackend(network, 'cpu', 'fp32', FeatureSource(network))
    rng = np.random.default_rng(0)
    states = [backend.initial_state(1) for backend in (plain, shared)]
    for read in (True, True, False, False, True):
        images = rng.integers(0, 256, (1, 64, 96, 3), np.uint8)
        one, two = (backend.read_step(images, state) if read else backend.forecast_step(state)
                    for backend, state in zip((plain, shared), states))
        torch.testing.assert_close(two.logits, one.logits)
        torch.testing.assert_close(two.offsets, one.offsets)
        assert two.confidence == pytest.approx(one.confidence)
        states = [one.state, two.state]


def test_held_feature_replaces_every_forecast(make_network):
    network = make_network()
    backend = SharedFeatureBackend(network, 'cpu', 'fp32', FeatureSource(network), hold=True)
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    state = backend.read_step(images, backend.initial_state(1)).state
    with torch.inference_mode():
        feature = network.extract(network.normalise_bgr(torch.from_numpy(images)))
        _, expected = network.encode(feature, network.initial_state())
        for _ in range(3):
            maps, expected = network.encode(feature, expected)
            raw = backend.forecast_step(state)
            torch.testing.assert_close(raw.logits, network.head(maps.fused).logits.numpy())
            state = raw.state


def test_held_feature_is_exact_in_a_still_scene(make_network, card, videos):
    (item,) = videos(still=True, walk=('dog', 4))
    quality = measure(make_network(), card, [item], SETTINGS, 2)
    assert np.all(quality.persistence_mse == 0)
    assert np.all(quality.feature_mse > 0)


def test_held_state_update_is_respected(make_network, card, videos):
    (item,) = videos(still=True, walk=('dog', 4))
    network = make_network(state_update='hold')
    detector = Detector(TorchBackend(network), card)
    run = run_video(detector, item, replace(SETTINGS, policy=AlwaysReadPolicy()), False)
    quality = measure(network, card, [replace(item, truth=seen(run))], SETTINGS, 2)
    # A read advances the state with both settings, so read frames agree.
    assert at_half(quality.rows['held'][0]) \
        == at_half(quality.rows['forecast'][0])


def test_baseline_has_no_persistence_variant(make_network, card, videos):
    (item,) = videos(walk=('dog', 3))
    quality = measure(make_network(variant='baseline'), card, [item], SETTINGS, 1)
    assert set(quality.rows) == {'read', 'forecast', 'held', 'repeated_boxes',
                                 'constant_velocity', 'true_velocity',
                                 'moved_by_truth'}
    np.testing.assert_array_equal(quality.feature_mse, quality.persistence_mse)


def test_frame_rates_pool_all_starts_of_a_sequence(make_network, card, videos):
    items = videos(long=('dog', 7), short=('dog', 2))
    quality = measure_forecasts(make_network(), card, items, SETTINGS, 2, strides=(1, 3))
    assert quality.reads_every == 3
    one, three = quality.strides
    assert (one.stride, three.stride, three.names) == (1, 3, ('long', 'short'))
    assert [hits.boxes.tolist() for hits in one.rows['forecast']] == [[7, 2], [6, 1], [5, 0]]
    # The long sequence is thinned to frames 0, 3, 6; 1, 4; and 2, 5, the short one to 0; and 1.
    for hits in three.rows.values():
        assert [item.boxes.tolist() for item in hits] == [[7, 2], [4, 0], [1, 0]]


def test_only_the_named_rows(make_network, card, videos):
    items = videos(walk=('dog', 3))
    quality = measure(make_network(), card, items, SETTINGS, 1, rows=['forecast', 'read'])
    assert set(quality.rows) == {'read', 'forecast'}


def test_a_second_network_is_measured_as_if_alone(make_network, enliven, card, videos):
    network, other = make_network(), enliven(make_network(), seed=1)
    (item,) = videos(walk=('dog', 5))
    detector = Detector(TorchBackend(other), card)
    run = run_video(detector, item, replace(SETTINGS, policy=AlternatePolicy(1)), False)
    items = [replace(item, truth=seen(run))]
    alone = measure(other, card, items, SETTINGS, 2)
    both = measure(network, card, items, SETTINGS, 2, beside={'other': (other, card)})
    for mine, its in zip(both.rows['other'], alone.rows['forecast']):
        np.testing.assert_array_equal(mine.found, its.found)
    assert any((mine.found != its.found).any()
               for mine, its in zip(both.rows['forecast'], both.rows['other']))
    with pytest.raises(EvaluationError, match='other: its classes are cow'):
        measure(network, card, items, SETTINGS, 2,
                beside={'other': (other, replace(card, classes=('cow',)))})


def test_held_row_of_a_motion_forecast_equals_repeated_boxes(make_network, card, videos):
    changes = {'levels': (8, 16, 32), 'feature_channels': (12, 16, 20),
               'lstm_channels': (8, 8, 8), 'forecast_mode': 'motion', 'motion_channels': 16}
    network = make_network(**changes)
    card = replace(card, network=network.config)
    (item,) = videos(walk=('dog', 5))
    detector = Detector(TorchBackend(network), card)
    run = run_video(detector, item, replace(SETTINGS, policy=AlwaysReadPolicy()), False)
    quality = measure(network, card, [replace(item, truth=seen(run))], SETTINGS, 2)
    assert 'persistence' not in quality.rows and quality.feature_mse is None
    for held, repeated in zip(quality.rows['held'], quality.rows['repeated_boxes']):
        np.testing.assert_array_equal(held.found, repeated.found)
    assert at_half(quality.rows['forecast'][0]) == 1.0
    assert (quality.rows['forecast'][1].found != quality.rows['held'][1].found).any()
