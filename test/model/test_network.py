# SPDX-License-Identifier: Apache-2.0
"""Check the assembled network: data flow of every variant, the two steps, explicit state."""

from dataclasses import replace

from forecast_detector_ros.model.config import ConfigError, REFERENCES, VARIANTS
from forecast_detector_ros.model.network import ForecastDetector
import pytest
import torch
from torchvision.transforms.v2 import functional

MODES = ('direct', 'residual')


@pytest.fixture(autouse=True)
def without_gradient():
    """Run without gradients, as inference does."""
    with torch.no_grad():
        yield


def flat(value):
    """Return all tensors of a nested tuple."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for item in value for tensor in flat(item)]


def assert_same(a, b):
    a, b = flat(a), flat(b)
    assert len(a) == len(b)
    assert all(torch.equal(x, y) for x, y in zip(a, b))


def assert_close(a, b):
    for x, y in zip(flat(a), flat(b), strict=True):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)


def reference_recurrent(network, feature, state, kind):
    """Compute one step of the paper's baseline, which has only the LSTM of Liu & Zhu."""
    if kind == 'forecast':
        # The baseline does not forecast: the head gets the maps of the last read.
        return network.head(state.forecast), torch.zeros(len(feature[-1]), 2), state
    seen, memory = [], []
    for layer, f, before in zip(network.recurrent, feature, state.recurrent):
        after = layer.lstm(f, before)
        back = layer.expand(after.hidden)
        # If the LSTM is as wide as the feature, `direct` has no expansion.
        seen.append((f + back).clamp(0, 6) if network.config.forecast_mode == 'residual' else back)
        memory.append(after)
    return network.head(seen), torch.zeros(len(feature[-1]), 2), (seen, memory)


def reference_step(network, feature, state, kind):
    """Compute one step with the modules, level by level, as in the paper's Fig. 2."""
    variant = network.config.variant
    if variant == 'recurrent':
        return reference_recurrent(network, feature, state, kind)
    forecast, temporal, fused, states1, states2 = [], [], [], [], []
    for level, f in enumerate(feature):
        if variant == 'baseline':
            guess, seen = f, f
            state1, state2 = state.encoder1[level], state.encoder2[level]
        else:
            guess, state1 = (f, state.encoder1[level]) if variant == 'persistence' \
                else network.encoder1[level](f, state.encoder1[level])
            seen, state2 = network.encoder2[level](guess, state.encoder2[level])
        forecast.append(guess)
        temporal.append(seen)
        fused.append(seen if variant == 'without_combination' else (f + seen) / 2)
        states1.append(state1)
        states2.append(state2)
    maps = {'temporal': temporal, 'fused': fused, 'feature': feature}
    if variant == 'baseline':
        decision = torch.zeros(feature[-1].shape[0], 2)
    else:
        decision = network.scheduler(forecast[-1],
                                     maps[network.config.scheduler_reference][-1])
    return network.head(fused), decision, (forecast, states1, states2)


def test_normalisation_is_that_of_torchvision(build, pictures):
    network = build()
    bgr = pictures(2)
    rgb = bgr[..., [2, 1, 0]].permute(0, 3, 1, 2)
    expected = functional.normalize(functional.to_dtype(rgb, torch.float32, scale=True),
                                    [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(network.normalise_bgr(bgr), expected)
    torch.testing.assert_close(network.normalise(rgb), expected)
    seen = []
    network.extractor.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network.read_step(bgr, network.initial_state(2))
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize('levels', [(32,), (16, 32)])
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('variant', VARIANTS)
def test_data_flow_of_every_variant(variant, mode, levels, build, pictures):
    count = len(levels)
    network = build(variant=variant, forecast_mode=mode, levels=levels,
                    feature_channels=(12, 20)[-count:], lstm_channels=(8, 10)[-count:])
    state = network.initial_state()
    for index, kind in enumerate(('read', 'forecast', 'read', 'forecast', 'forecast')):
        if kind == 'read':
            image = pictures(seed=index)
            feature = network.extract(network.normalise_bgr(image))
            output = network.read_step(image, state)
        else:
            feature = state.forecast
            output = network.forecast_step(state)
        assert_same(output, reference_step(network, feature, state, kind))
        state = output.state


@pytest.mark.parametrize('variant', VARIANTS)
def test_variants_have_the_modules_they_use(variant, build):
    network = build(variant=variant)
    plain = variant in ('baseline', 'recurrent')
    assert len(network.encoder1) == (0 if plain or variant == 'persistence' else 2)
    assert len(network.encoder2) == (0 if plain else 2)
    assert (network.scheduler is None) == plain
    assert len(network.recurrent) == (2 if variant == 'recurrent' else 0)
    # Only variants with Encoder 1 have forecasts that differ from the last read.
    assert network.config.forecasts == bool(len(network.encoder1))
    used = set()
    for name, module in network.named_modules():
        if name and not list(module.children()):
            module.register_forward_hook(lambda m, i, o, name=name: used.add(name))
    state = network.initial_state()
    network.read_step(torch.zeros(1, 64, 96, 3, dtype=torch.uint8), state)
    idle = {name for name, module in network.named_modules()
            if name and list(module.parameters(recurse=False))} - used
    assert not idle, 'a module with weights that no step runs'


@pytest.mark.parametrize('reference', REFERENCES)
def test_scheduler_compares_with_the_configured_map(reference, build, pictures):
    network = build(scheduler_reference=reference)
    # Use the second frame, because there is no expected map at the first one.
    state = network.read_step(pictures(), network.initial_state()).state
    image = pictures()
    maps, _ = network.encode(network.extract(network.normalise_bgr(image)), state)
    compared = {**maps._asdict(), 'expected': state.forecast}
    scores = {name: network.scheduler(maps.forecast[-1], compared[name][-1])
              for name in REFERENCES}
    decision = network.read_step(image, state).decision
    assert [name for name in REFERENCES if torch.equal(scores[name], decision)] == [reference]


def test_expected_is_the_earlier_forecast_of_the_last_read_frame(build, pictures):
    network = build(scheduler_reference='expected')
    state = network.initial_state()
    assert_same(state.expected, [torch.zeros_like(state.forecast[-1])])
    for read, known in ((True, 'new'), (True, 'new'), (False, 'old'), (False, 'old'),
                        (True, 'new')):
        wanted = state.forecast[-1:] if known == 'new' else state.expected
        output = network.read_step(pictures(), state) if read else network.forecast_step(state)
        assert_same(output.state.expected, wanted)
        state = output.state
    assert not build(scheduler_reference='temporal').initial_state().expected


def test_a_batch_may_mix_reads_and_forecasts(build, pictures):
    network = build(scheduler_reference='expected')
    start = network.read_step(pictures(2), network.initial_state(2)).state
    feature = network.extract(network.normalise_bgr(pictures(2)))
    mixed = tuple(torch.stack((f[0], guess[1])) for f, guess in zip(feature, start.forecast))
    maps, state = network.encode(mixed, start, torch.tensor([True, False]))
    assert torch.equal(state.expected[0][0], start.forecast[-1][0])
    assert torch.equal(state.expected[0][1], start.expected[0][1])
    assert_same(maps.expected, state.expected)


def test_hold_keeps_the_lstms_of_the_streams_that_are_not_read(build, pictures):
    network = build(state_update='hold')
    start = network.read_step(pictures(2), network.initial_state(2)).state
    feature = network.extract(network.normalise_bgr(pictures(2)))
    _, read = network.encode(feature, start)
    _, mixed = network.encode(feature, start, torch.tensor([True, False]))
    for name in ('encoder1', 'encoder2'):
        for mine, new, old in zip(*(getattr(state, name) for state in (mixed, read, start))):
            for part, fresh, before in zip(mine, new, old):
                assert not torch.equal(fresh[1], before[1])
                assert torch.equal(part[0], fresh[0]) and torch.equal(part[1], before[1])
    assert_same(mixed.forecast, read.forecast)


def test_persistence_takes_the_last_feature(build, pictures):
    network = build(variant='persistence')
    image = pictures()
    read = network.read_step(image, network.initial_state())
    assert_same(read.state.forecast, network.extract(network.normalise_bgr(image)))
    assert_same(network.forecast_step(read.state).state.forecast, read.state.forecast)


def test_untrained_residual_network_detects_as_its_baseline(build, pictures):
    baseline = build(variant='baseline')
    network = ForecastDetector(replace(baseline.config, variant='complete')).eval()
    network.load_state_dict(baseline.state_dict(), strict=False)
    image = pictures()
    expected = baseline.read_step(image, baseline.initial_state())
    output = network.read_step(image, network.initial_state())
    assert_close(output.head, expected.head)
    assert_close(network.forecast_step(output.state).head, expected.head)


def test_advance_and_hold(build, pictures):
    advance, hold = build(state_update='advance'), build(state_update='hold')
    image = pictures()
    a = advance.read_step(image, advance.initial_state())
    h = hold.read_step(image, hold.initial_state())
    assert_same(a, h)
    a, h, before = advance.forecast_step(a.state), hold.forecast_step(h.state), h.state
    assert_same((a.head, a.decision, a.state.forecast), (h.head, h.decision, h.state.forecast))
    assert_same((h.state.encoder1, h.state.encoder2), (before.encoder1, before.encoder2))
    for now, then in zip(flat((a.state.encoder1, a.state.encoder2)),
                         flat((before.encoder1, before.encoder2)), strict=True):
        assert not torch.equal(now, then)


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('update', ['advance', 'hold'])
def test_state_and_image_passed_in_are_not_changed(variant, update, build, pictures):
    network = build(variant=variant, state_update=update)
    image = pictures()
    state = network.read_step(image, network.initial_state()).state
    for step in (lambda: network.read_step(image, state), lambda: network.forecast_step(state)):
        before = [tensor.clone() for tensor in flat((state, image))]
        first = step()
        assert_same(before, (state, image))
        assert_same(first, step())


def test_batch_gives_the_results_of_single_pictures(build, pictures):
    network = build()
    images, later = pictures(2), pictures(2, seed=1)
    together = [network.read_step(images, network.initial_state(2))]
    together.append(network.forecast_step(together[-1].state))
    together.append(network.read_step(later, together[-1].state))
    for i in range(2):
        alone = [network.read_step(images[i:i + 1], network.initial_state())]
        alone.append(network.forecast_step(alone[-1].state))
        alone.append(network.read_step(later[i:i + 1], alone[-1].state))
        for a, b in zip(alone, together):
            assert_close(a, [tensor[i:i + 1] for tensor in flat(b)])


def test_initial_state_is_zero_and_fits(build, pictures):
    network = build()
    state = network.initial_state(2)
    after = network.read_step(pictures(2), state).state
    assert [x.shape for x in flat(state)] == [x.shape for x in flat(after)]
    assert [x.dtype for x in flat(state)] == [x.dtype for x in flat(after)]
    assert all(x.abs().max() == 0 for x in flat(state))
    assert network.double().initial_state().forecast[0].dtype == torch.float64


def test_upsampled_map_has_predictions(build, pictures):
    network = build(levels=(32,), feature_channels=(20,), lstm_channels=(10,),
                    upsample_channels=6)
    output = network.read_step(pictures(), network.initial_state())
    cells = 4 * 6 + 2 * 3 + 1 * 2 + 1 * 1
    assert output.head.logits.shape == (1, 6 * cells, 4)
    assert network.anchors.shape == (6 * cells, 4)
    assert len(output.state.forecast) == 1
    assert network.forecast_step(output.state).head.logits.shape == (1, 6 * cells, 4)


@pytest.mark.parametrize('mode', MODES)
def test_recurrent_detector_remembers_and_repeats_reads(mode, build, pictures):
    network = build(variant='recurrent', forecast_mode=mode)
    first, later = pictures(), pictures(seed=1)
    alone = network.read_step(later, network.initial_state())
    before = network.read_step(first, network.initial_state())
    held = network.forecast_step(before.state)
    assert_same(held.head, before.head)
    assert_same(held.state, before.state)
    behind = network.read_step(later, held.state)
    assert not torch.equal(behind.head.logits, alone.head.logits), 'the LSTM forgot the frame'
    assert_same(behind, network.read_step(later, before.state))


def test_a_batch_of_the_recurrent_variant_may_mix_reads_and_repetitions(build, pictures):
    network = build(variant='recurrent')
    start = network.read_step(pictures(2), network.initial_state(2)).state
    feature = network.extract(network.normalise_bgr(pictures(2, seed=3)))
    mixed = tuple(torch.stack((f[0], held[1])) for f, held in zip(feature, start.forecast))
    maps, state = network.encode(mixed, start, torch.tensor([True, False]))
    _, read = network.encode(feature, start)
    for name in ('forecast', 'recurrent'):
        mine, new, old = (flat(getattr(item, name)) for item in (state, read, start))
        for part, fresh, kept in zip(mine, new, old, strict=True):
            assert torch.equal(part[0], fresh[0]) and torch.equal(part[1], kept[1])
    assert_same(maps.fused, state.forecast)


def test_untrained_recurrent_residual_detects_as_its_baseline(build, pictures):
    baseline = build(variant='baseline')
    network = ForecastDetector(replace(baseline.config, variant='recurrent')).eval()
    network.load_state_dict(baseline.state_dict(), strict=False)
    image = pictures()
    assert_close(network.read_step(image, network.initial_state()).head,
                 baseline.read_step(image, baseline.initial_state()).head)


@pytest.mark.parametrize('variant', [name for name in VARIANTS if name != 'recurrent'])
def test_with_variant_copies_the_weights(variant, build):
    network = build()
    other = network.with_variant(variant)
    assert other.config == replace(network.config, variant=variant)
    assert not other.training
    own = network.state_dict()
    for key, value in other.state_dict().items():
        assert torch.equal(value, own[key]) and value.data_ptr() != own[key].data_ptr()
    assert network.train().double().with_variant(variant).mean.dtype == torch.float64
    assert network.with_variant(variant).training


@pytest.mark.parametrize('source, target, lacking', [
    ('baseline', 'complete', 'encoder1'), ('persistence', 'complete', 'encoder1'),
    ('baseline', 'persistence', 'encoder2'), ('complete', 'recurrent', 'recurrent')])
def test_with_variant_that_needs_more(source, target, lacking, build):
    with pytest.raises(ConfigError, match=f"variant '{target}' needs {lacking}.*'{source}'"):
        build(variant=source).with_variant(target)


def test_with_unknown_variant(build):
    with pytest.raises(ConfigError, match="^variant is 'full'"):
        build().with_variant('full')


def test_weights_do_not_include_computable_tensors(build):
    keys = build().state_dict().keys()
    assert not [key for key in keys
                if key.split('.')[-1] in ('anchors', 'mean', 'std', 'index', 'inside')]
