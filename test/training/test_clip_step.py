# SPDX-License-Identifier: Apache-2.0
"""One training step on clips: losses, gradients and the target y_t."""

from dataclasses import replace

from forecast_detector_ros.clips.dataset import Clip, collate
from forecast_detector_ros.model.config import preset
from forecast_detector_ros.model.network import ForecastDetector, Maps
from forecast_detector_ros.training.clip_step import clip_losses, reliable_targets
from forecast_detector_ros.training.frozen import FrozenFeatures
from forecast_detector_ros.training.losses import LossConfig
import pytest
import torch

BOX = torch.tensor([[8., 8., 40., 40.]])
SMALL = {'input_size': (64, 64), 'width': 0.35, 'feature_channels': (16, 24),
         'lstm_channels': (8, 12), 'extra_channels': (16,)}


def network(variant='complete', **values):
    torch.manual_seed(0)
    return ForecastDetector(replace(preset('features', 2), variant=variant, **SMALL,
                                    **values)).eval()


def batch(clips=2, frames=4):
    generator = torch.Generator().manual_seed(1)
    none = torch.zeros(0, 4)
    return collate([Clip(
        torch.randint(0, 256, (frames, 3, 64, 64), dtype=torch.uint8, generator=generator),
        [BOX] * frames, [torch.tensor([1])] * frames, [torch.ones(1)] * frames,
        [none] * frames) for _ in range(clips)])


def run(net, config=None, extra_frame=True, scheduler=True, seed=0, **flags):
    return clip_losses(net, batch(), config or LossConfig(), torch.Generator().manual_seed(seed),
                       extra_frame, scheduler, **flags)


def test_total_is_equation_1():
    losses = run(network(), LossConfig(alpha=2.0, beta=3.0, gamma=5.0, lambda_=7.0))
    parts = losses.parts
    expected = 2 * parts['loc'] + 3 * parts['cls'] + 5 * parts['for'] + 7 * parts['dec']
    assert float(losses.total.detach()) == pytest.approx(expected, rel=1e-5)


def test_forecast_loss_is_persistence_for_a_fresh_residual_encoder():
    losses = run(network())
    assert losses.parts['for'] == pytest.approx(losses.parts['persistence'], rel=1e-5)
    assert losses.parts['for'] > 0


def test_forecast_loss_against_an_own_loop():
    net = network(forecast_mode='direct')
    clips = batch()
    with torch.no_grad():
        total = 0.0
        for b in range(2):
            state = net.initial_state()
            for t in range(3):
                now = net.extract(net.normalise(clips.images[b, t:t + 1]))
                maps, state = net.encode(now, state)
                wanted = net.extract(net.normalise(clips.images[b, t + 1:t + 2]))
                total += sum(float(((f - w) ** 2).mean())
                             for f, w in zip(maps.forecast, wanted)) / 2
    assert run(net).parts['for'] == pytest.approx(total / 6, rel=1e-4)


def set_forecast(net, value):
    """Let the encoders always forecast maps of one value."""
    def encode(feature, state, read=True):
        forecast = tuple(torch.full_like(level, value) for level in feature)
        return Maps(feature, forecast, feature, feature), state._replace(forecast=forecast)
    net.encode = encode


def ramp(clips=2, frames=4):
    """Return features that are the frame's number, or twice that on the second level."""
    net = network()
    return tuple(torch.arange(frames, dtype=torch.float32).view(1, -1, 1, 1, 1)
                 .expand(clips, -1, channels, *size) * (level + 1)
                 for level, (channels, size) in enumerate(zip((16, 24), net.feature_sizes)))


def test_forecast_loss_in_units_of_persistence_by_hand():
    net = network()
    set_forecast(net, 1.0)
    parts = {}
    for scale in ('none', 'persistence'):
        parts[scale] = clip_losses(
            net, batch(), LossConfig(forecast_scale=scale), torch.Generator().manual_seed(0), True,
            False, features=ramp()).parts
    # Level 1: targets 1, 2, 3, forecast 1: errors 0, 1, 4; persistence 1, 1, 1.
    # Level 2: targets 2, 4, 6: errors 1, 9, 25; persistence 4, 4, 4.
    first, second = 5 / 3, 35 / 3
    assert parts['none']['for'] == pytest.approx((first + second) / 2)
    assert parts['none']['persistence'] == pytest.approx(2.5)
    assert parts['persistence']['for'] == pytest.approx((first / 1 + second / 4) / 2)
    assert parts['persistence']['persistence'] == pytest.approx(1.0)


def test_rollout_compares_forecasts_of_forecasts_with_the_true_features():
    net = network()
    seen = []

    def encode(feature, state, read=True):
        seen.append(float(feature[0].mean()))
        forecast = tuple(level + 10 for level in feature)
        return Maps(feature, forecast, feature, feature), state._replace(forecast=forecast)

    net.encode = encode
    losses = clip_losses(net, batch(), LossConfig(rollout=1.0), torch.Generator().manual_seed(0),
                         True, False, features=ramp())
    # The first input is a true feature; the others are forecasts.
    assert seen == [0, 10, 20]
    # Forecasts 10, 20, 30 against 1, 2, 3 and, on the second level, against 2, 4, 6.
    first, second = 81 + 18 ** 2 + 27 ** 2, 64 + 16 ** 2 + 24 ** 2
    assert losses.parts['for'] == pytest.approx((first + second) / 6)


def test_without_the_extra_frame_there_is_no_forecast_loss():
    assert set(run(network(), extra_frame=False, scheduler=False).parts) == {'loc', 'cls'}


def test_baseline_has_detection_losses_only():
    assert set(run(network('baseline'), scheduler=False).parts) == {'loc', 'cls'}


def test_gamma_zero_removes_the_forecast_loss():
    losses = run(network(), LossConfig(gamma=0.0), scheduler=False)
    assert float(losses.total) == pytest.approx(losses.parts['loc'] + losses.parts['cls'],
                                                rel=1e-5)


def test_frozen_detection_trains_the_scheduler_alone():
    net = network()
    losses = run(net, frozen_detection=True)
    losses.total.backward()
    assert set(losses.parts) == {'dec'}
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == name.startswith('scheduler')


def test_frozen_extractor_gets_no_gradient():
    net = network()
    run(net, frozen=FrozenFeatures(net, None)).total.backward()
    assert all(p.grad is None for p in net.extractor.parameters())
    assert all(p.grad is not None for p in net.encoder1.parameters())


def test_a_step_depends_on_the_generator():
    net = network(forecast_mode='direct')
    config = LossConfig(rollout=0.5)
    totals = [float(run(net, config, seed=seed).total) for seed in (5, 5, 6)]
    assert totals[0] == totals[1] != totals[2]


@pytest.mark.parametrize('index', range(3))
def test_combination_chooses_the_maps_of_the_head(index):
    net = network(forecast_mode='direct')
    probabilities = [0.0, 0.0, 0.0]
    probabilities[index] = 1.0
    seen = []
    net.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    maps = []
    encode = net.encode

    def spy(feature, state, read):
        result = encode(feature, state, read)
        maps.append(result[0])
        return result

    net.encode = spy
    run(net, LossConfig(combination=tuple(probabilities)), scheduler=False)
    for one, fused in zip(maps, seen):
        wanted = (one.feature, one.temporal, one.fused)[index]
        for got, want in zip(fused, wanted):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize('rollout', [0.0, 1.0])
def test_expected_map_comes_from_read_frames(rollout):
    net = network(scheduler_reference='expected')
    seen = []
    schedule = net.schedule

    def spy(maps):
        seen.append(maps)
        return schedule(maps)

    net.schedule = spy
    losses = run(net, LossConfig(rollout=rollout))
    # Each of two clips has three steps. No forecast of the first frame exists, so the scheduler
    # decides in two of the steps.
    assert len(seen) == 2 and losses.decisions == 4
    with torch.no_grad():
        _, state = net.encode(net.extract(net.normalise(batch().images[:, 0])),
                              net.initial_state(2))
    torch.testing.assert_close(seen[0].expected[0], state.forecast[-1])
    wanted = seen[0].expected[0] if rollout else seen[0].forecast[-1]
    assert torch.equal(seen[1].expected[0], wanted)


def test_a_reference_of_one_frame_decides_on_every_frame():
    assert run(network(scheduler_reference='temporal')).decisions == 6


def test_rollout_one_never_looks_at_later_images():
    net = network(forecast_mode='direct')
    config = LossConfig(rollout=1.0, gamma=0.0)
    first = batch()
    second = batch()
    second.images[:, 1:] = 0
    totals = [float(clip_losses(net, clips, config, torch.Generator().manual_seed(0), True,
                                False).total) for clips in (first, second)]
    assert totals[0] == totals[1]


def test_y_t_is_one_where_the_head_finds_the_box_and_zero_elsewhere():
    net = network()
    clips = batch()
    forecast = tuple(torch.zeros(2, c, *size) for c, size in zip((16, 24), net.feature_sizes))
    anchor = int((net.anchors - BOX).abs().sum(1).argmin())
    box = net.anchors[anchor].clamp(0, 64)

    def head(module, args, output):
        logits = torch.zeros_like(output.logits)
        logits[:, :, 0] = 20.0
        # The head finds the object, of class 1, only in the first clip.
        logits[0, anchor, 2] = 40.0
        return output._replace(logits=logits, offsets=torch.zeros_like(output.offsets))

    net.head.register_forward_hook(head)
    clips.all_boxes[:] = box
    found = reliable_targets(net, forecast, forecast, clips, 1, LossConfig())
    assert found.tolist() == [True, False]
    # The head's output does not depend on the maps, so both clips are reliable against `read`.
    found = reliable_targets(net, forecast, forecast, clips, 1, LossConfig(
        reliable_against='read'))
    assert found.tolist() == [True, True]


def test_reliable_against_read_follows_the_extractors_next_map():
    net = network(forecast_mode='direct')
    clips = batch()
    forecast = tuple(torch.zeros(2, c, *size) for c, size in zip((16, 24), net.feature_sizes))
    anchor = int((net.anchors - BOX).abs().sum(1).argmin())

    def head(module, args, output):
        logits = torch.zeros_like(output.logits)
        logits[:, :, 0] = 20.0
        # The head finds an object if the map is not zero.
        logits[:, anchor, 2] = 40.0 * args[0][0].amax((1, 2, 3)).sign()
        return output._replace(logits=logits, offsets=torch.zeros_like(output.offsets))

    net.head.register_forward_hook(head)
    following = tuple(level.clone() for level in forecast)
    following[0][1] = 1.0
    config = LossConfig(reliable_against='read')
    found = reliable_targets(net, forecast, following, clips, 1, config)
    assert found.tolist() == [True, False]


@pytest.mark.parametrize('against', ['truth', 'read'])
def test_y_t_changes_neither_batch_norms_nor_modes(against):
    def tracked(with_scheduler):
        net = network().train()
        # With `freeze_bn: backbone` too, only some modules are in training mode.
        net.head.extra.eval()
        modes = {name: module.training for name, module in net.named_modules()}
        run(net, LossConfig(reliable_against=against), scheduler=with_scheduler)
        assert {name: module.training for name, module in net.named_modules()} == modes
        return {name: value.clone() for name, value in net.head.state_dict().items()
                if 'running' in name or 'tracked' in name}

    without, with_it = tracked(False), tracked(True)
    assert any(int(value) for name, value in without.items() if name.endswith('tracked'))
    for name, value in without.items():
        assert torch.equal(with_it[name], value), name


def test_y_t_uses_the_output_of_inference(enliven):
    net = enliven(network())
    clips = batch()
    generator = torch.Generator().manual_seed(2)
    forecast = tuple(6 * torch.rand(2, c, *size, generator=generator)
                     for c, size in zip((16, 24), net.feature_sizes))
    seen = []

    def keep(module, args, output):
        seen.append(output.logits)

    net.head.register_forward_hook(keep)
    for mode in (True, False):
        reliable_targets(net.train(mode), forecast, forecast, clips, 1, LossConfig())
    assert torch.equal(*seen)


def test_detections_in_ignored_regions_are_reliable():
    net = network()
    clips = batch()
    forecast = tuple(torch.zeros(2, c, *size) for c, size in zip((16, 24), net.feature_sizes))
    anchor = int((net.anchors - BOX).abs().sum(1).argmin())
    box = net.anchors[anchor].clamp(0, 64)

    def head(module, args, output):
        logits = torch.zeros_like(output.logits)
        logits[:, :, 0] = 20.0
        logits[:, anchor, 2] = 40.0
        return output._replace(logits=logits, offsets=torch.zeros_like(output.offsets))

    net.head.register_forward_hook(head)
    empty = collate([Clip(
        clips.images[b], [torch.zeros(0, 4)] * 4, [torch.zeros(0, dtype=torch.int64)] * 4,
        [torch.zeros(0)] * 4, [torch.zeros(0, 4), region, region, region])
        for b, region in enumerate((box[None], torch.zeros(0, 4)))])
    found = reliable_targets(net, forecast, forecast, empty, 1, LossConfig())
    assert found.tolist() == [True, False]


@pytest.mark.parametrize('update', ['advance', 'hold'])
def test_rolled_out_frames_update_the_state_as_forecast_steps_do(update):
    net = network(forecast_mode='direct', state_update=update)
    clips = batch()
    states = []
    encode = net.encode

    def spy(feature, state, read):
        result = encode(feature, state, read)
        states.append(result[1])
        return result

    net.encode = spy
    with torch.no_grad():
        clip_losses(net, clips, LossConfig(rollout=1.0), torch.Generator().manual_seed(0), True,
                    False)
        del net.encode
        state = net.read_step(clips.images[:, 0].permute(0, 2, 3, 1).flip(3),
                              net.initial_state(2)).state
        for trained in states[1:]:
            state = net.forecast_step(state).state
            for mine, runs in zip((*trained.encoder1, *trained.encoder2),
                                  (*state.encoder1, *state.encoder2)):
                torch.testing.assert_close(mine.cell, runs.cell)
                torch.testing.assert_close(mine.hidden, runs.hidden)


@pytest.mark.parametrize('extra_frame', [True, False])
def test_recurrent_detector_learns_through_the_frames_of_a_clip(extra_frame):
    net = network('recurrent', forecast_mode='direct')
    clips = batch()
    features = [level.unflatten(0, (2, 4)).detach().requires_grad_() for level in net.extract(
        net.normalise(clips.images.flatten(0, 1)))]
    seen = []
    encode = net.encode

    def spy(feature, state, read):
        assert read is True, 'nothing is forecast, so nothing can stand in for a frame'
        maps, after = encode(feature, state, read)
        seen.append(maps.fused)
        return maps, after

    net.encode = spy
    losses = clip_losses(net, clips, LossConfig(rollout=1.0), torch.Generator().manual_seed(0),
                         extra_frame, True, features=tuple(features))
    assert set(losses.parts) == {'loc', 'cls'}
    assert len(seen) == (3 if extra_frame else 4)
    # The last frame's map depends on the first frame, through the LSTM alone.
    for level, last in zip(features, seen[-1]):
        (gradient,) = torch.autograd.grad(last.sum(), level, retain_graph=True)
        assert gradient[:, 0].abs().max() > 0 and gradient[:, len(seen):].abs().sum() == 0
    losses.total.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.recurrent.parameters())


def test_recurrent_maps_of_training_equal_those_of_inference():
    net = network('recurrent', forecast_mode='direct')
    clips = batch()
    heads = []
    handle = net.head.register_forward_hook(lambda module, inputs, output: heads.append(output))
    with torch.no_grad():
        clip_losses(net, clips, LossConfig(), torch.Generator().manual_seed(0), False, False)
        handle.remove()
        state = net.initial_state(2)
        for frame, trained in enumerate(heads):
            output = net.read_step(clips.images[:, frame].permute(0, 2, 3, 1).flip(3), state)
            state = output.state
            torch.testing.assert_close(output.head.logits, trained.logits, atol=1e-4, rtol=1e-4)
    assert len(heads) == 4
