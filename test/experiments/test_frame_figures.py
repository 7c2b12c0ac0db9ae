# SPDX-License-Identifier: Apache-2.0
"""Figs. 4 and 6: the frames, their boxes and the maps of errors."""

from dataclasses import replace

from forecast_detector_ros.detector.policy import AlternatePolicy, AlwaysReadPolicy
from forecast_detector_ros.detector.processing import Detections, resize
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.evaluation.sequences import EvaluationError, picture
from forecast_detector_ros.experiments.figure_files import save_figure
from forecast_detector_ros.experiments.frame_figures import (
    chosen_frames,
    draw_error_maps,
    draw_strips,
    error_maps,
    error_rows,
    LAST_READ,
    shown_frames,
    strip_rows,
    strip_values,
)
import numpy as np
import pytest
import torch

LABELS = ('cat', 'dog', 'train')


def test_frames_are_chosen(videos):
    item = videos(a=('cat', 6))[0]
    assert chosen_frames(item, 1, 2, 9) == [1, 3, 5]
    assert chosen_frames(item, 0, 1, 2) == [0, 1]
    with pytest.raises(EvaluationError, match='a: has 6 frames, so none from 6 on'):
        chosen_frames(item, 6, 1, 1)


def test_strip_shows_decisions_and_boxes(detector, videos):
    item = videos(a=('cat', 5))[0]
    settings = DetectorSettings(policy=AlternatePolicy(1))
    frames = shown_frames(detector, item, settings, [0, 1, 4])
    assert [(frame.number, frame.decision.kind) for frame in frames] == [
        (0, 'read'), (1, 'forecast'), (4, 'read')]
    box = Detections(np.array([[8.0, 9.0, 40.0, 30.0]], np.float32), np.array([1]),
                     np.array([0.75], np.float32))
    frames = [replace(frame, detections=box) for frame in frames]
    assert strip_rows('a', frames, LABELS)[1] == {
        'sequence': 'a', 'frame': 1, 'decision': 'forecast', 'label': 'dog', 'score': 0.75,
        'x0': 8.0, 'y0': 9.0, 'x1': 40.0, 'y1': 30.0}
    values = strip_values('a', frames)
    assert values[0]['confidence'] is None and values[0]['reason'] == 'first_frame'
    assert 0 <= values[1]['confidence'] <= 1 and values[1]['boxes'] == 1

    figure = draw_strips([('a', frames), ('b', frames[:1])], LABELS, 'title')
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(pictures) == 4
    corners = [tuple(map(int, picture[1, 1, :3])) for picture in pictures]
    # Only the forecast frame has the red border.
    assert corners[1] == (220, 38, 38)
    assert (220, 38, 38) not in (corners[0], *corners[2:])


def feature_of(network, record, level):
    image = resize(picture(record), network.config.input_size)[None]
    with torch.inference_mode():
        return network.extract(network.normalise_bgr(torch.from_numpy(image)))[level]


@pytest.mark.parametrize('level', [0, 1])
def test_persistence_and_forecast_by_hand(make_network, card, videos, level):
    item, network = videos(a=('cat', 4))[0], make_network()
    maps = {(entry.rule, entry.frame): entry for entry in error_maps(
        network, card, item, DetectorSettings(), [AlternatePolicy(1), AlwaysReadPolicy()],
        [2, 3], level)}
    assert list(maps) == [(rule, frame) for frame in (2, 3)
                          for rule in ('alternate(1)', 'always_read', LAST_READ)]
    assert [maps['alternate(1)', frame].kind for frame in (2, 3)] == ['read', 'forecast']
    features = [feature_of(network, record, level) for record in item.frames]
    # The last read frame before frame 2 is frame 0, and before frame 3 it is frame 2.
    for frame, last in ((2, 0), (3, 2)):
        wanted = (features[last] - features[frame]).abs().mean(1)[0].numpy()
        np.testing.assert_allclose(maps[LAST_READ, frame].error, wanted, rtol=1e-4, atol=1e-6)
    # If every frame is read, the forecast for frame 2 is made at frame 1.
    state = network.initial_state(1)
    with torch.inference_mode():
        for record in item.frames[:2]:
            image = torch.from_numpy(resize(picture(record), network.config.input_size)[None])
            state = network.read_step(image, state).state
    wanted = (state.forecast[level] - features[2]).abs().mean(1)[0].numpy()
    np.testing.assert_allclose(maps['always_read', 2].error, wanted, rtol=1e-4, atol=1e-6)


def test_pictures_and_rows(make_network, card, videos):
    item = videos(a=('cat', 4))[0]
    maps = error_maps(make_network(), card, item, DetectorSettings(), [AlternatePolicy(1)],
                      [1, 2, 3])
    rows = error_rows('a', maps)
    assert len(rows) == 6 and rows[0]['decision'] == 'forecast'
    assert rows[0]['mean_error'] == pytest.approx(maps[0].error.mean())
    figure = draw_error_maps(item, maps, 'title')
    red = [axes for axes in figure.axes if axes.get_title().startswith('forecast')]
    assert len(red) == 4
    assert all(axes.spines['left'].get_visible() for axes in red)
    # All maps have the same scale.
    limits = {axes.images[0].get_clim() for axes in figure.axes
              if axes.images and ', mean' in axes.get_title()}
    assert len(limits) == 1


def test_names_that_are_not_utf_8_are_drawn(detector, make_network, card, videos, tmp_path):
    item = replace(videos(a=('cat', 2))[0], name='caf\udce9')
    strip = shown_frames(detector, item, DetectorSettings(), [0])
    maps = error_maps(make_network(), card, item, DetectorSettings(), [AlternatePolicy(1)], [1])
    for figure in (draw_strips([(item.name, strip)], detector.labels, 'title'),
                   draw_error_maps(item, maps, 'title')):
        save_figure(figure, tmp_path / 'one.png')


@pytest.mark.parametrize(('level', 'frames', 'message'), [
    (2, [1], 'level is 2; the network has 2'), (-1, [1], 'level is -1'),
    (0, [0, 1], 'frame 0 has no frame before it')])
def test_missing_levels_and_frames_are_refused(make_network, card, videos, level, frames, message):
    with pytest.raises(EvaluationError, match=message):
        error_maps(make_network(), card, videos(a=('cat', 2))[0], DetectorSettings(),
                   [AlwaysReadPolicy()], frames, level)


def test_policy_named_twice_is_run_once(make_network, card, videos):
    item, network = videos(a=('cat', 4))[0], make_network()
    policy = AlternatePolicy(1)
    once, twice = (error_maps(network, card, item, DetectorSettings(), policies, [1, 2])
                   for policies in ([policy], [policy, AlternatePolicy(1)]))
    assert [(found.rule, found.frame, found.kind) for found in once] == [
        (found.rule, found.frame, found.kind) for found in twice]
