# SPDX-License-Identifier: Apache-2.0
"""Isolate the tests from each other; prepare networks for them."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
import itertools
import os
from pathlib import Path
import shutil
import signal
import socket
import tempfile
from typing import Any, TYPE_CHECKING

from hypothesis import HealthCheck, settings
import numpy as np
import pytest

if TYPE_CHECKING:
    from torch import nn

# Slow examples on a busy machine are not a failure.
settings.register_profile('unhurried', deadline=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('unhurried')


def pytest_configure() -> None:
    """Make tests and the programs that they start independent of the caller's environment."""
    # Background jobs of a shell ignore SIGINT, and programs started by tests would inherit this.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Runs of the tests must not share a cache. Matplotlib's list of fonts is an exception, because
    # it takes seconds.
    os.environ.setdefault('MPLCONFIGDIR', str(Path.home() / '.cache' / 'matplotlib'))
    os.environ['XDG_CACHE_HOME'] = tempfile.mkdtemp(prefix='forecast_detector_ros_cache_')
    # Waiting threads must not spin, because other processes need the cores.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


def pytest_unconfigure() -> None:
    """Remove the cache of this test run."""
    shutil.rmtree(os.environ['XDG_CACHE_HOME'], ignore_errors=True)


#: Number of usable domains; the ports of higher ones are in Linux's range for clients.
DOMAINS = 101

# Different processes start at different domains, and consecutive tests use different domains.
_candidates = itertools.count(os.getpid())


def claim_domain(holder: ExitStack) -> int:
    """
    Return a ROS domain id that no other test uses, in this process or another.

    The domain is claimed until `holder` is closed. The claim is a socket in Linux's abstract name
    space, which leaves no file and ends with the process.

    :raises RuntimeError: if all domains are in use
    """
    for candidate in itertools.islice(_candidates, 2 * DOMAINS):
        domain = 1 + candidate % DOMAINS
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f'\0forecast_detector_ros/domain/{domain}')
        except OSError:
            claim.close()
            continue
        holder.enter_context(claim)
        return domain
    raise RuntimeError(f'all {DOMAINS} ROS domains are in use by tests')


@pytest.fixture
def new_domain() -> Iterator[Callable[[], int]]:
    """Return a function that claims another ROS domain for the duration of the test."""
    with ExitStack() as holder:
        yield lambda: claim_domain(holder)


@pytest.fixture(autouse=True)
def ros_domain(
    new_domain: Callable[[], int], monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> int:
    """Give the test and its processes a ROS graph of their own; return the domain."""
    domain = new_domain()
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    monkeypatch.setenv('ROS_LOG_DIR', str(tmp_path_factory.mktemp('ros_log')))
    return domain


@pytest.fixture(scope='session')
def settle() -> Callable[..., nn.Module]:
    """
    Return a function that fits a network's BatchNorm statistics to its weights.

    Without this, random weights amplify rounding errors through fifty layers.
    """
    # Imported here, because the import takes seconds and many tests do not need PyTorch.
    import torch
    from torch import nn

    def run(network: Any) -> Any:
        torch.manual_seed(0)
        for encoder in (*network.encoder1, *network.encoder2, *network.recurrent):
            if isinstance(encoder.expand, nn.Conv2d):
                nn.init.normal_(encoder.expand.weight, std=0.2)
        for predictor in network.head.classification:
            # Scores must differ clearly, so that rounding does not decide which box is better.
            nn.init.normal_(predictor[1].weight, std=0.5)
        height, width = network.config.input_size
        images = torch.randint(0, 256, (8, height, width, 3), dtype=torch.uint8)
        norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
        momentum = [norm.momentum for norm in norms]
        for norm in norms:
            # One step equals thirty steps on the same batch. The rest of the initial variance
            # keeps channels that are almost constant from amplifying rounding errors.
            norm.momentum = 1.0 - (1.0 - norm.momentum) ** 30
        network.train()
        with torch.no_grad():
            network.read_step(images, network.initial_state(8))
        for norm, usual in zip(norms, momentum, strict=True):
            norm.momentum = usual
        return network.eval()

    return run


@pytest.fixture(scope='session')
def enliven() -> Callable[..., nn.Module]:
    """Return a function that draws weights and statistics at random, from a seed."""
    import torch
    from torch import nn

    # The initial zeros and ones would hide mistakes.
    def draw(module: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.data.uniform_(0.7, 1.4, generator=generator)
                part.bias.data.uniform_(-0.2, 0.4, generator=generator)
                part.running_mean.uniform_(-0.2, 0.2, generator=generator)
                part.running_var.uniform_(0.6, 1.5, generator=generator)
            elif isinstance(part, nn.Conv2d | nn.Linear):
                fan_in = part.weight[0].numel()
                part.weight.data.normal_(0.0, 1.6 / fan_in ** 0.5, generator=generator)
                if part.bias is not None:
                    part.bias.data.uniform_(-0.3, 0.3, generator=generator)
        return module
    return draw


@pytest.fixture
def write_onnx(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a network with constant outputs."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')

    def write(outputs: dict[str, np.ndarray], input_shape: list[Any],
              name: str = 'teacher.onnx', bright: bool = False) -> Path:
        # With `bright`, outputs of type float are multiplied by the largest value of the input.
        helper, kinds = onnx.helper, onnx.TensorProto
        nodes = [helper.make_node('ReduceMax', ['images'], ['largest'], keepdims=0),
                 helper.make_node('Mul', ['largest', 'zero'], ['nought'])]
        constants = [onnx.numpy_helper.from_array(np.zeros((), np.float32), 'zero')]
        results = []
        for key, array in outputs.items():
            constants.append(onnx.numpy_helper.from_array(array, f'{key}_constant'))
            kind = kinds.INT64 if array.dtype == np.int64 else kinds.FLOAT
            term = 'nought' if kind == kinds.FLOAT else f'{key}_nought'
            if kind == kinds.INT64:
                nodes.append(helper.make_node('Cast', ['nought'], [term], to=kind))
            factor = bright and kind == kinds.FLOAT
            nodes.append(helper.make_node('Mul' if factor else 'Add',
                                          [f'{key}_constant', 'largest' if factor else term],
                                          [key]))
            results.append(helper.make_tensor_value_info(key, kind, array.shape))
        graph = helper.make_graph(
            nodes, 'teacher',
            [helper.make_tensor_value_info('images', kinds.FLOAT, input_shape)], results,
            constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)],
                                  ir_version=8)
        onnx.save(model, str(tmp_path / name))
        return tmp_path / name
    return write
