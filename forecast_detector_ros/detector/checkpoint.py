# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints: weights as safetensors, with a YAML card beside them.

``NAME.safetensors`` contains the weights. ``NAME.yaml`` describes them: classes, network,
preprocessing, licence, origin, metrics. Neither is a pickle. PyTorch is imported only to build a
network.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
import hashlib
from pathlib import Path
from typing import Any, TYPE_CHECKING

import numpy as np
from safetensors import numpy as safetensors_numpy, SafetensorError
import yaml

from .policy import ThresholdPolicy
from .processing import NO_VOTES
from .settings import DetectorSettings
from ..errors import cut, InputError, one_line
from ..files import find_share, write_atomically
from ..model.config import NetworkConfig
from ..plain_values import build, PlainYamlError, read_plain_yaml

if TYPE_CHECKING:
    import torch

    from ..model.network import ForecastDetector

FORMAT = 'forecast_detector_ros/1'  #: Value of the card's key `format`

#: The only preprocessing; a card with another one is refused.
PREPROCESSING = 'bgr8, bilinear resize to input_size, ImageNet mean and std inside the graph'

SHIPPED = ('small', 'default', 'large')  #: Checkpoints of the package, cheapest first

MOST_NAME = 256  #: Characters of a checkpoint's or class's name, which messages repeat


class RuntimeConfigError(InputError):
    """Checkpoint, device or precision cannot be used; the message is one line."""


class CheckpointError(RuntimeConfigError):
    """A checkpoint is missing, damaged or of another format; the message names the file."""


@dataclass(frozen=True)
class Card:
    """The description of a checkpoint."""

    name: str
    classes: tuple[str, ...]
    network: NetworkConfig
    preset: str = 'custom'
    licence: str = 'unspecified'
    description: str = ''
    #: Recommended score threshold, in [0, 1].
    score_threshold: float = 0.3
    nms_threshold: float = 0.45
    vote_threshold: float = NO_VOTES  #: As in `DetectorSettings`
    score_memory: float = 0.0  #: As in `DetectorSettings`
    threshold: float = 0.5  #: Recommended threshold of the scheduler, in [0, 1]

    #: Training data with licences, recipe, versions; plain YAML values.
    provenance: dict[str, Any] = field(default_factory=dict)

    #: Measured figures, with the commands that measured them.
    metrics: dict[str, Any] = field(default_factory=dict)
    known_failures: tuple[str, ...] = ()
    preprocessing: str = PREPROCESSING
    weights_sha256: str = ''  #: SHA-256 of the weights' file, hexadecimal; empty: not checked

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the network's input, pixels."""
        return self.network.input_size

    def settings(self) -> DetectorSettings:
        """Return the settings that the card recommends."""
        return DetectorSettings(ThresholdPolicy(float(self.threshold)),
                                float(self.score_threshold), float(self.nms_threshold),
                                float(self.vote_threshold), float(self.score_memory))


def card_path(weights: Path) -> Path:
    """Return the path of the card that belongs to a weights' file."""
    return weights.with_suffix('.yaml')


def _read_card(path: Path) -> Card:
    try:
        values = read_plain_yaml(path)
    except FileNotFoundError:
        raise CheckpointError(f'{path}: no such file; a checkpoint needs its card beside the '
                              'weights') from None
    except PlainYamlError as error:
        raise CheckpointError(f'{path}: {error}') from None
    if not isinstance(values, dict) or values.pop('format', None) != FORMAT:
        raise CheckpointError(f'{path}: not a card of this package (key format must be '
                              f'{FORMAT!r})')
    try:
        return build_card(values)
    except InputError as error:
        raise CheckpointError(f'{path}: {error}') from None


def build_card(values: dict[str, Any]) -> Card:
    """Build a card from plain values; raises InputError, whose message names the key."""
    if isinstance(network := values.get('network'), dict):
        # Its messages name the valid range, which those of `build` do not.
        values = {**values, 'network': NetworkConfig.from_dict(network)}
    card = build(Card, values)
    for key in ('score_threshold', 'nms_threshold', 'vote_threshold', 'threshold'):
        if not 0 <= (value := getattr(card, key)) <= 1:
            raise CheckpointError(f'{key} is {value}, must be a number in [0, 1]')
    if not 0 <= card.score_memory < 1:
        raise CheckpointError(f'score_memory is {card.score_memory}, must be a number in [0, 1)')
    for text in (card.name, *card.classes):
        if len(text) > MOST_NAME:
            raise CheckpointError(f'the name {cut(text)!r} is longer than {MOST_NAME} characters')
    if len(card.classes) != card.network.classes:
        raise CheckpointError(f'{len(card.classes)} names in classes, but the network has '
                              f'{card.network.classes} classes')
    if len(set(card.classes)) != len(card.classes):
        raise CheckpointError('classes has a name twice')
    if card.preprocessing != PREPROCESSING:
        raise CheckpointError(f'preprocessing is {cut(card.preprocessing)!r}, this version knows '
                              f'{PREPROCESSING!r}')
    return card


@dataclass(frozen=True)
class Checkpoint:
    """The two files of a checkpoint, read once and checked against each other."""

    path: Path
    card: Card
    digest: str  #: SHA-256 of the weights' file, hexadecimal
    data: bytes = field(repr=False)  #: Content of the weights' file

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the weights by name, floats as float32; raises CheckpointError."""
        arrays = {key: value.astype(np.float32) if value.dtype.kind == 'f' else value
                  for key, value in self._parse(safetensors_numpy.load).items()}
        for key, value in arrays.items():
            if not np.isfinite(value).all():
                raise self._not_finite(key)
        return arrays

    def network(self) -> 'ForecastDetector':
        """Build the network, float32, on the CPU, in evaluation mode; raises CheckpointError."""
        from safetensors import torch as safetensors_torch
        import torch

        from ..model.network import ForecastDetector
        tensors = self._parse(safetensors_torch.load)
        network = ForecastDetector(self.card.network)
        try:
            network.load_state_dict({
                key: value.float() if value.is_floating_point() else value
                for key, value in tensors.items()})
        except RuntimeError as error:
            raise CheckpointError(f'{self.path}: weights do not fit the network in the card: '
                                  f'{one_line(error)}') from None
        for key, value in network.state_dict().items():
            if not torch.isfinite(value).all():
                raise self._not_finite(key)
        return network.eval()

    def _parse(self, load: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
        try:
            return load(self.data)
        except SafetensorError as error:
            raise CheckpointError(f'{self.path}: not a safetensors file, or truncated '
                                  f'({one_line(error)})') from None
        except KeyError as error:
            raise CheckpointError(f'{self.path}: holds a tensor of type {error}, which cannot be '
                                  'loaded here') from None

    def _not_finite(self, key: str) -> CheckpointError:
        return CheckpointError(f'{self.path}: {key} holds values that are infinite or no numbers; '
                               'train again, or take an earlier checkpoint')


def read_checkpoint(path: str | Path) -> Checkpoint:
    """
    Read the two files of a checkpoint.

    :param path: the ``.safetensors`` file, a folder with one such file, or one of `SHIPPED`
    :raises CheckpointError: if a file is missing, unreadable or of another format, or if the files
        do not belong together
    """
    try:
        path = _in_folder(_with_package(Path(path)))
        if path.suffix != '.safetensors':
            raise CheckpointError(f'{path}: a checkpoint is a .safetensors file with its .yaml '
                                  f'card, or one of {", ".join(SHIPPED)}')
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f'{path}: no such checkpoint') from None
    except OSError as error:
        raise CheckpointError(f'{cut(path)}: cannot be read: {error.strerror}') from None
    if path.name.endswith('.snapshot.safetensors') and not card_path(path).exists():
        raise CheckpointError(f'{path}: is the snapshot of a run; use a STAGE.safetensors of it')
    card = _read_card(card_path(path))
    digest = hashlib.sha256(data).hexdigest()
    if card.weights_sha256 not in ('', digest):
        raise CheckpointError(f'{path}: does not match weights_sha256 of its card; the file is '
                              'damaged or belongs to another card')
    return Checkpoint(path, card, digest, data)


def _with_package(path: Path) -> Path:
    """Resolve a name in `SHIPPED`, unless a file or folder has this name."""
    name = str(path)
    return shipped_checkpoint(name) if name in SHIPPED and not path.exists() else path


def _in_folder(path: Path) -> Path:
    if path.suffix == '.safetensors' or not path.is_dir():
        return path
    # The folder of a training also has a snapshot.
    inside = sorted(file for file in path.glob('*.safetensors')
                    if not file.name.endswith('.snapshot.safetensors'))
    if len(inside) == 1:
        return inside[0]
    names = ', '.join(file.name for file in inside) or 'none'
    raise CheckpointError(f'{path}: must have one checkpoint, has {names}; name the file')


def load_checkpoint(path: str | Path) -> tuple['ForecastDetector', Card]:
    """
    Load a network and its card.

    :param path: as for `read_checkpoint`
    :returns: the network, float32, on the CPU, in evaluation mode; and the card
    :raises CheckpointError: as `read_checkpoint`, and if the weights do not fit the card or are
        not finite
    """
    checkpoint = read_checkpoint(path)
    return checkpoint.network(), checkpoint.card


def save_checkpoint(path: str | Path, network: 'ForecastDetector', card: Card,
                    dtype: 'torch.dtype | None' = None) -> Card:
    """
    Write a network and its card, each file atomically, the card last.

    :param path: the ``.safetensors`` file; the card is written beside it
    :param network: its configuration replaces that of the card
    :param card: `weights_sha256` is set in the written card
    :param dtype: type of the stored floating-point weights; None for float16
    :returns: the card as it was written
    :raises CheckpointError: if a file cannot be written. Nothing is written if `path` has another
        suffix, a weight is not finite in `dtype`, or the card has an invalid value.
    """
    from safetensors.torch import save
    import torch

    path = Path(path)
    if path.suffix != '.safetensors':
        raise CheckpointError(f'{path}: the name must end in .safetensors')
    dtype = dtype or torch.float16
    tensors = {key: value.detach().to('cpu', dtype).contiguous()
               if value.is_floating_point() else value.detach().cpu().contiguous()
               for key, value in network.state_dict().items()}
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f'{path}: not written: {key} holds values that are infinite or '
                                  f'no numbers, or too large for {dtype}')
    data = save(tensors)
    values = asdict(card)
    values['network'] = network.config.to_dict()
    values['classes'] = list(card.classes)
    values['known_failures'] = list(card.known_failures)
    values['weights_sha256'] = hashlib.sha256(data).hexdigest()
    try:
        build_card(values)
        text = yaml.safe_dump({'format': FORMAT, **values}, sort_keys=False, allow_unicode=True,
                              width=96)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
        write_atomically(card_path(path), text.encode())
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be written: {error.strerror}') from None
    except InputError as error:
        raise CheckpointError(f'{path}: not written: {error}') from None
    except yaml.YAMLError as error:
        raise CheckpointError(f'{path}: the card holds something that YAML cannot: '
                              f'{one_line(error)}') from None
    return _read_card(card_path(path))


def default_checkpoint() -> Path:
    """Return the path of the default weights; raises CheckpointError."""
    return shipped_checkpoint('default')


def shipped_checkpoint(name: str) -> Path:
    """Return the path of the weights `name`, one of `SHIPPED`; raises CheckpointError."""
    try:
        return find_share(f'checkpoints/{name}.safetensors')
    except FileNotFoundError as error:
        raise CheckpointError(f'{error}; install the package again, or name a checkpoint'
                              ) from None
