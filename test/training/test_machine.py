# SPDX-License-Identifier: Apache-2.0
"""The number format of `amp: auto`, and the description of the machine in the log."""

from forecast_detector_ros.detector import host
from forecast_detector_ros.training import machine
from forecast_detector_ros.training.machine import AMP, choose_amp, describe_machine
import pytest
import torch

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


def pretend(monkeypatch, answer):
    monkeypatch.setattr(machine, 'multiplies_bf16', lambda: answer)


@pytest.mark.parametrize('able, wanted', [(True, 'bf16'), (False, 'none')])
def test_auto_looks_at_the_processor(monkeypatch, able, wanted):
    pretend(monkeypatch, able)
    assert choose_amp('auto', CPU) == wanted


@pytest.mark.parametrize('able, wanted', [(True, 'bf16'), (False, 'fp16')])
def test_auto_looks_at_the_card(monkeypatch, able, wanted):
    # Emulated bf16 is slower than fp16.
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation: able
                        or including_emulation)
    assert choose_amp('auto', CUDA) == wanted


@pytest.mark.parametrize('amp', [amp for amp in AMP if amp != 'auto'])
def test_a_named_format_is_used(monkeypatch, amp):
    for able in (True, False):
        pretend(monkeypatch, able)
        assert choose_amp(amp, CPU) == choose_amp(amp, CUDA) == amp


def test_the_log_names_instructions_and_type(monkeypatch):
    pretend(monkeypatch, False)
    found = host.instruction_set()
    assert found
    assert describe_machine('auto', CPU, 2) == \
        f'cpu with {found}, 2 threads; computes in float32 (amp: auto)'
    assert describe_machine('bf16', CPU, 1) == f'cpu with {found}, 1 threads; computes in bf16'
