# SPDX-License-Identifier: Apache-2.0
"""Learning rates, parameter groups and the moving average."""

from dataclasses import replace

from forecast_detector_ros.model.config import preset
from forecast_detector_ros.model.network import ForecastDetector
from forecast_detector_ros.training.config import GroupConfig, StageConfig
from forecast_detector_ros.training.schedule import (
    group_parameters,
    learning_rate,
    make_optimizer,
    MovingAverage,
    set_modes,
)
import pytest
import torch


def stage(**values):
    groups = values.pop('groups', {'head': GroupConfig(1.0)})
    return StageConfig('s', **{'epochs': 40, 'clips_per_epoch': 20, 'batch': 2, **values},
                       groups=groups)


def test_milestones_of_the_paper():
    group = GroupConfig(1e-2, milestones=(18, 30))
    rates = {epoch: learning_rate(group, stage(), epoch * 10) for epoch in (0, 17, 18, 29, 30)}
    assert rates == pytest.approx({0: 1e-2, 17: 1e-2, 18: 1e-3, 29: 1e-3, 30: 1e-4})


def test_warm_up_is_linear_and_reaches_the_rate():
    rates = [learning_rate(GroupConfig(1.0), stage(warmup=4), i) for i in range(6)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_cosine_falls_from_the_rate_to_zero():
    rates = [learning_rate(GroupConfig(1.0), stage(cosine=True), i) for i in range(401)]
    assert rates[0] == 1.0
    assert rates[200] == pytest.approx(0.5)
    assert rates[400] == pytest.approx(0.0)
    assert all(a >= b for a, b in zip(rates, rates[1:]))


def test_groups_cover_every_parameter_once_and_freeze_the_rest():
    network = ForecastDetector(preset('features', 3))
    every = {name: GroupConfig(1.0) for name in
             ('backbone', 'projection', 'encoder', 'scheduler', 'head')}
    groups = group_parameters(network, stage(groups=every))
    ids = [id(p) for group in groups.values() for p in group]
    assert len(ids) == len(set(ids)) == len(list(network.parameters()))

    groups = group_parameters(network, stage(groups={'encoder': GroupConfig(1.0)}))
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert list(groups) == ['encoder']
    assert trained == {name for name, _ in network.named_parameters()
                       if name.startswith('encoder')}


def test_lstms_of_the_recurrent_detector_are_in_the_encoder_group():
    network = ForecastDetector(replace(preset('features', 3), variant='recurrent'))
    this = stage(groups={'encoder': GroupConfig(1.0)})
    groups = group_parameters(network, this)
    assert list(map(id, groups['encoder'])) == list(map(id, network.recurrent.parameters()))
    set_modes(network, this)
    assert network.recurrent.training and not network.head.training


def test_frozen_blocks_of_the_backbone():
    network = ForecastDetector(preset('features', 3))
    group_parameters(network, stage(groups={'backbone': GroupConfig(1.0)}, frozen_blocks=7))
    assert not any(p.requires_grad for p in network.extractor.stem[:7].parameters())
    assert all(p.requires_grad for p in network.extractor.stem[7:].parameters())
    assert all(p.requires_grad for p in network.extractor.trunk.parameters())


@pytest.mark.parametrize('name, kind', [('sgd', torch.optim.SGD), ('adamw', torch.optim.AdamW)])
def test_optimizer(name, kind):
    network = ForecastDetector(preset('features', 3))
    this = stage(optimizer=name, weight_decay=0.25)
    optimizer = make_optimizer(group_parameters(network, this), this)
    assert isinstance(optimizer, kind)
    assert [group['name'] for group in optimizer.param_groups] == ['head']
    assert optimizer.param_groups[0]['weight_decay'] == 0.25


def test_moving_average_by_hand():
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(1.0)
    average = MovingAverage(module, 0.5)
    module.weight.data.fill_(2.0)
    average.update(module)
    # The weight of the old value is min(0.5, 2 / 11).
    first = 1.0 * 2 / 11 + 2.0 * 9 / 11
    assert float(average.state['weight']) == pytest.approx(first)
    for _ in range(100):
        average.update(module)
    assert float(average.state['weight']) == pytest.approx(2.0)
