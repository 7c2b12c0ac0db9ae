# SPDX-License-Identifier: Apache-2.0
"""The parts that compare outputs and times of the CUDA back-end with others."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from time import monotonic, perf_counter
from typing import Any, TYPE_CHECKING

import cv2
from forecast_detector_ros.benchmark.peers import cuda_peers
from forecast_detector_ros.benchmark.steps import (
    backend_contenders,
    Build,
    frame_contenders,
    jpeg_message,
    scaled,
    SIZES,
)
from forecast_detector_ros.benchmark.timing import Contender, time_in_turns
from forecast_detector_ros.detector.backends import Backend
from forecast_detector_ros.detector.backends.cuda_graphs import CudaGraphBackend, CudaOptions
from forecast_detector_ros.detector.backends.parity import compare_backends
from forecast_detector_ros.detector.backends.registry import make_backend
from forecast_detector_ros.detector.backends.torch_backend import TorchBackend
from forecast_detector_ros.detector.checkpoint import default_checkpoint, load_checkpoint
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.images.image_messages import compressed_frame
from forecast_detector_ros.model.extractor import fold_batch_norm
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from dev.cuda_check.parts import Part

PICTURE = 'grace_hopper.jpg'  #: Photograph of a person that comes with Matplotlib

BUILDING = 0.6  #: Part of the time for making contenders; the rest is for measuring

MOST_ROUNDS = 200

OptionsOf = dict[str, Any]


def photograph() -> np.ndarray:
    """Return a picture of a person, BGR; noise if Matplotlib has no photograph."""
    try:
        from matplotlib.cbook import get_sample_data
        picture = cv2.imread(str(get_sample_data(PICTURE, asfileobj=False)))
        if picture is not None:
            return picture
    except (ImportError, OSError):
        pass
    return np.random.default_rng(0).integers(0, 256, (600, 512, 3), dtype=np.uint8)


def clip(size: tuple[int, int], frames: int, step: int) -> list[np.ndarray]:
    """Return pictures of (height, width) of a pan over the photograph, `step` pixels apart."""
    height, width = size
    whole = photograph()
    factor = 1.25 * max(height / whole.shape[0], width / whole.shape[1])
    whole = cv2.resize(whole, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    down, right = whole.shape[0] - height, whole.shape[1] - width
    places = ((min(number * step, down), min(number * step, right)) for number in range(frames))
    return [np.ascontiguousarray(whole[y:y + height, x:x + width]) for y, x in places]


def _loaded() -> tuple[ForecastDetector, ForecastDetector, Any]:
    """Return the default network as trained, the same with BatchNorm folded, and its card."""
    network, card = load_checkpoint(default_checkpoint())
    folded = fold_batch_norm(network)
    assert isinstance(folded, ForecastDetector)
    return network, folded, card


def _backend(part: Part, folded: ForecastDetector, precision: str, **options: bool) -> Backend:
    """Return the CUDA back-end, on the processor in a dry run."""
    if part.dry_run:
        options['capture'] = False
    return CudaGraphBackend(deepcopy(folded), part.device, precision, CudaOptions(**options))


def _compare(part: Part, name: str, reference: Backend, make: Callable[[], Backend],
             clips: Sequence[Sequence[np.ndarray]], card: Any) -> Backend | None:
    """Add a row with a back-end's difference to the reference; return None if it fails."""
    def work() -> Backend:
        start = perf_counter()
        candidate = make()
        parity = compare_backends(reference, candidate, clips, card)
        part.add('outputs', {
            'name': name, **parity.values(), 'likeness': round(parity.likeness, 3),
            'same as fp32': parity.same, 'seconds': round(perf_counter() - start, 1)})
        return candidate

    return part.attempt(name, work)


def precisions(part: Part) -> None:
    """Compare every precision and way to run with eager PyTorch in fp32 on the processor."""
    network, folded, card = _loaded()
    reference = TorchBackend(network)
    frames = 5 if part.dry_run else 20
    clips = [clip(card.input_size, frames, step) for step in (2, 9)]
    runs: list[tuple[str, OptionsOf]] = [
        ('fp32', {}), ('fp16', {}), ('tf32', {}), ('bf16', {}),
        ('fp32', {'channels_last': False}), ('fp16', {'channels_last': False}),
        ('fp16', {'capture': False}), ('fp16', {'search': True})]
    for precision, options in runs:
        if part.dry_run and (precision == 'tf32' or options):
            continue
        _compare(part, ' '.join([precision, *_words(options)]), reference,
                 partial(_backend, part, folded, precision, **options), clips, card)


def _words(options: OptionsOf) -> list[str]:
    words = {('channels_last', False): 'planes', ('capture', False): 'launched',
             ('search', True): 'search', ('compiled', True): 'compiled'}
    return [words[item] for item in options.items() if item in words]


def _measure(part: Part, contenders: Sequence[Contender]) -> None:
    """Time contenders in turns until the time is over, and add their rows."""
    fit = [contender for contender in contenders
           if part.attempt(contender.name, partial(_warm, contender))]
    start = perf_counter()
    for contender in fit:
        contender.run()
    once = max(perf_counter() - start, 1e-4)
    # `time_in_turns` calls each contender three times to warm it up.
    rounds = int((part.left - 4.0) / once) - 3
    most = 2 if part.dry_run else MOST_ROUNDS
    for timing in time_in_turns(fit, max(1, min(most, rounds))):
        row = asdict(timing)
        row['per_stream_ms'] = row['median_ms'] / row['batch']
        part.tables.setdefault('timings', []).append(row)
    part.save()


def _warm(contender: Contender) -> bool:
    contender.run()
    return True


def speed(part: Part) -> None:
    """Time the steps for all sizes of batch, whole frames, and other detectors, in turns."""
    _, folded, card = _loaded()
    pictures = clip(card.input_size, 4, 4)
    until = monotonic() + BUILDING * part.left
    every = (1, 2) if part.dry_run else (1, 2, 4, 8, 16, 32)
    some = (1,) if part.dry_run else (1, 8, 32)
    contenders: list[Contender] = []

    def steps(precision: str, batches: Sequence[int], **options: bool) -> None:
        words = _words({'capture': True, **options})
        backend = _backend(part, folded, precision, **options)
        made = backend_contenders(backend, card.network, Build('torch', precision), pictures,
                                  batches, ' '.join([precision, *words]))
        for contender in made:
            contender.run()
        contenders.extend(made)

    def peers(precision: str, batches: Sequence[int], capture: bool, *names: str) -> None:
        made = cuda_peers(part.device, precision, batches, capture and not part.dry_run, names)
        for contender in made:
            contender.run()
        contenders.extend(made)

    def plain(precision: str) -> None:
        network, _ = load_checkpoint(default_checkpoint())
        single = fold_batch_norm(network.with_variant('baseline'))
        assert isinstance(single, ForecastDetector)
        backend = _backend(part, single, precision)
        for batch in some:
            images = np.repeat(pictures[-1][None], batch, 0)
            label = f'plain SSDLite {precision}' + (f' x{batch}' if batch > 1 else '')
            contenders.append(Contender(
                label, partial(backend.read_step, images, backend.initial_state(batch)), 'peer',
                'torch', precision, 1, batch))

    def frames(precision: str) -> None:
        detector = Detector.load(default_checkpoint(), part.device, precision, backend='torch')
        picture = scaled(photograph(), SIZES['1080p'])
        contenders.extend(item for item in frame_contenders(
            detector, Build('torch', precision), picture) if '1080p' in item.name)

    small = 'ssdlite320_mobilenet_v3_large'
    works: list[tuple[str, Callable[[], object]]] = [
        ('fp16', partial(steps, 'fp16', every)), ('fp32', partial(steps, 'fp32', every)),
        ('fp16 launched', partial(steps, 'fp16', some, capture=False)),
        ('peer fp16', partial(peers, 'fp16', some, True, small)),
        ('peer fp32', partial(peers, 'fp32', some, True, small)),
        ('fp16 planes', partial(steps, 'fp16', some, channels_last=False)),
        ('fp32 planes', partial(steps, 'fp32', some, channels_last=False)),
        ('tf32', partial(steps, 'tf32', some)), ('bf16', partial(steps, 'bf16', some)),
        ('frames', partial(frames, 'fp16')), ('plain SSDLite', partial(plain, 'fp16')),
        ('peer fp16 launched', partial(peers, 'fp16', some, False, small)),
        ('fp32 launched', partial(steps, 'fp32', some, capture=False)),
        ('fp16 search', partial(steps, 'fp16', some, search=True)),
        ('peer ssd300_vgg16', partial(peers, 'fp16', (1,), True, 'ssd300_vgg16'))]
    for name, work in works:
        # The processor has no TF32, no cuDNN, and nothing to capture; it is slow in fp16.
        if part.dry_run and not {'fp16', 'peer fp32', 'bf16', 'frames', 'plain SSDLite',
                                 'fp32 planes'} & {name}:
            continue
        if monotonic() > until:
            part.notes.append(f'{name}: left out, as no time was left to prepare it')
            continue
        start = perf_counter()
        part.attempt(name, work)
        part.add('prepared', {'name': name, 'seconds': round(perf_counter() - start, 2)})
    _measure(part, contenders)
    if not part.dry_run:
        part.facts['memory of the device GiB'] = round(
            torch.cuda.max_memory_reserved() / 2 ** 30, 2)


def preprocess(part: Part) -> None:
    """Time a resize on the processor and one on the device, each with its upload."""
    device = torch.device(part.device)
    height, width = load_checkpoint(default_checkpoint())[1].input_size
    contenders = []

    def staging(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == 'cuda')

    def end() -> None:
        if device.type == 'cuda':
            torch.cuda.synchronize()

    def shrink(whole: torch.Tensor) -> torch.Tensor:
        small = functional.interpolate(whole.float(), (height, width), mode='bilinear')
        return small.round_().to(torch.uint8)

    def on_processor(picture: np.ndarray, buffer: torch.Tensor) -> torch.Tensor:
        cv2.resize(picture, (width, height), dst=buffer.numpy(), interpolation=cv2.INTER_LINEAR)
        found = buffer.to(device, non_blocking=True)
        end()
        return found

    def on_device(picture: np.ndarray, buffer: torch.Tensor) -> torch.Tensor:
        buffer.numpy()[...] = picture
        found = shrink(buffer.to(device, non_blocking=True).permute(2, 0, 1)[None])
        end()
        return found

    def jpeg_on_processor(message: Any, buffer: torch.Tensor) -> torch.Tensor:
        pixels, _ = compressed_frame(message).load_for((height, width))
        return on_processor(pixels.array, buffer)

    def jpeg_on_device(data: torch.Tensor) -> torch.Tensor:
        from torchvision.io import decode_jpeg
        found = shrink(decode_jpeg(data, device=part.device)[None])
        end()
        return found

    for name, size in SIZES.items():
        picture = scaled(photograph(), size)
        message = jpeg_message(picture)
        works: list[tuple[str, Callable[[], torch.Tensor]]] = [
            ('resize on the processor', partial(on_processor, picture,
                                                staging((height, width, 3)))),
            ('resize on the device', partial(on_device, picture, staging(picture.shape))),
            ('JPEG on the processor', partial(jpeg_on_processor, message,
                                              staging((height, width, 3)))),
            ('JPEG on the device', partial(jpeg_on_device, torch.frombuffer(
                bytearray(message.data), dtype=torch.uint8)))]
        contenders += [Contender(f'{what}, {name}', work, 'part') for what, work in works]
        same = part.attempt(f'resize, {name}', partial(_largest_difference, works))
        part.facts[f'largest difference of the resizes, {name}'] = same
    _measure(part, contenders)


def _largest_difference(works: Sequence[tuple[str, Callable[[], torch.Tensor]]]) -> float:
    """Return the largest difference between the results of the first two ways of resizing."""
    (_, first), (_, second) = works[:2]
    return (first().cpu().permute(2, 0, 1).float() - second()[0].cpu().float()).abs().max().item()


def compile_steps(part: Part) -> None:
    """Compare steps of torch.compile with those of PyTorch's own kernels."""
    network, folded, card = _loaded()
    frames = clip(card.input_size, 5, 4)
    contenders: list[Contender] = []
    for precision, options in (('fp16', {'compiled': True}), ('fp16', {}),
                               ('fp32', {'compiled': True})):
        name = ' '.join([precision, *_words(options)])
        if part.dry_run and precision == 'fp16':
            continue
        if contenders and part.left < 30.0:
            part.notes.append(f'{name}: left out, as no time was left')
            continue
        backend = _compare(part, name, TorchBackend(deepcopy(network)),
                           partial(_backend, part, folded, precision, **options), [frames], card)
        if backend is not None:
            contenders += backend_contenders(
                backend, card.network, Build('torch', precision), frames[:2],
                (1,) if part.dry_run else (1, 8), name)
    _measure(part, contenders)


def onnx(part: Part) -> None:
    """Run the exported steps in ONNX Runtime, by each available provider."""
    try:
        import onnx  # noqa: F401 (writes the graphs)
        import onnxruntime
    except ImportError as error:
        part.notes.append(f'no onnx and onnxruntime here; not measured: {error}')
        return
    network, _, card = _loaded()
    frames = clip(card.input_size, 5, 4)
    available = onnxruntime.get_available_providers()
    part.facts['providers'] = ', '.join(available)
    contenders = []
    runs = [('onnxruntime', part.device, 'fp32'), ('tensorrt', part.device, 'fp16')]
    for name, device, precision in runs:
        provider = {'onnxruntime': 'CUDA', 'tensorrt': 'Tensorrt'}[name]
        if not part.dry_run and f'{provider}ExecutionProvider' not in available:
            part.notes.append(f'{name} on {device}: this onnxruntime has no '
                              f'{provider}ExecutionProvider; not measured')
            continue
        if part.dry_run and name == 'tensorrt':
            continue
        backend = _compare(part, f'{name} {precision}', TorchBackend(deepcopy(network)),
                           partial(make_backend, network, name, device, precision), [frames],
                           card)
        if backend is not None:
            contenders += backend_contenders(
                backend, card.network, Build(name, precision), frames[:2],
                (1,) if part.dry_run else (1, 8))
    if contenders:
        _measure(part, contenders)
