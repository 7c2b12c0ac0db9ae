# SPDX-License-Identifier: Apache-2.0
"""The training recipe: a YAML file, which may extend another, as checked dataclasses."""

from dataclasses import dataclass, field, replace
from math import prod, sqrt
from pathlib import Path
from typing import Any

from .losses import first_decision, LossConfig
from .machine import AMP, DEVICES
from .recipe_file import read_recipe, RecipeError
from ..annotations.findings import DataError
from ..annotations.sources import SourceConfig
from ..clips.augment import AugmentConfig
from ..detector.checkpoint import build_card
from ..errors import InputError
from ..model.config import ConfigError, MOTION, NetworkConfig, preset, VARIANTS
from ..model.extractor import first_blocks
from ..plain_values import build, PlainValueError

#: Parts of the network with a learning rate of their own; a part without one is frozen.
GROUPS = ('backbone', 'projection', 'encoder', 'scheduler', 'head')
START = 'start'  #: Name of the checkpoint that a run starts from, in a stage's `mean_of`
PAUSE = 6  #: Frames of a pause that are kept: more than a clip has
MEMORY, DEVICE, NONE = CACHES = ('memory', 'device', 'none')  #: Where decoded frames are kept
#: Keys of the card that a recipe may set; the run sets the others.
CARD_KEYS = ('licence', 'description', 'provenance', 'known_failures', 'score_threshold',
             'nms_threshold', 'vote_threshold', 'score_memory', 'threshold')


@dataclass(frozen=True)
class GroupConfig:
    """Learning rate of one part of the network."""

    lr: float
    milestones: tuple[int, ...] = ()  #: Epochs at whose start the rate is multiplied by `decay`
    decay: float = 0.1


@dataclass(frozen=True)
class StageConfig:
    """One stage of the training."""

    name: str
    epochs: int
    clips_per_epoch: int
    batch: int
    groups: dict[str, GroupConfig]
    variant: str = 'complete'
    #: Weights of earlier stages in the mean from which extractor and head start; `start` is the
    #: checkpoint given as start. Empty: the stage continues from the stage before.
    mean_of: dict[str, float] = field(default_factory=dict)
    #: Height and width of the pictures; anchors keep their size in pixels. Empty for those of the
    #: network.
    input_size: tuple[int, ...] = ()
    clip_length: int = 10  #: Frames per clip, without the extra one (section 4.2: 10)
    extra_frame: bool = True  #: Append the frame that the forecast loss and y_t need
    thinning: int = 25  #: r of section 4.2; 0 takes consecutive frames
    #: `cache: device`: distances between a clip's frames, one drawn for each clip. They replace
    #: `thinning`.
    strides: tuple[int, ...] = (1,)
    #: A forecast of motion: distances between frames that are read, one drawn for each pair;
    #: `clip_length` counts the reads.
    gaps: tuple[int, ...] = ()
    #: A forecast of motion: distances of the clip's last frame from the last read, one drawn for
    #: each clip.
    horizons: tuple[int, ...] = ()
    #: A forecast of motion: number of views of each video that are made once, with the frozen
    #: network's results in memory. 0 makes new views for every batch.
    keep: int = 0
    #: With `keep`: part of the clips that repeat one frame, with the noise of `augment`; [0, 1].
    pauses: float = 0.0
    plain_epochs: int = 2  #: Last epochs without thinning (section 4.2: two)
    still_fraction: float = 0.5  #: Fraction of clips made from stills, if there are both
    #: Epochs that train on the same clips, in a new order each: their features are computed once
    #: and kept in memory. Only where the extractor is frozen; 1 draws new clips in every epoch.
    reuse: int = 1
    #: Epoch from which L_dec is part of the loss; null for never (section 4.2: 25).
    scheduler_from: int | None = None
    #: First blocks of MobileNetV2 that are not trained even where `backbone` has a rate.
    frozen_blocks: int = 0
    #: BatchNorm statistics that do not change, besides those of frozen parts: `all`, `backbone` or
    #: `none`.
    freeze_bn: str = 'all'
    optimizer: str = 'sgd'  #: `sgd` (momentum 0.9) or `adamw`
    weight_decay: float = 5e-4
    warmup: int = 0  #: Iterations of linear warm-up
    #: Let every rate fall to zero along a cosine over the stage instead of at milestones.
    cosine: bool = False
    clip_norm: float = 0.0  #: Largest gradient norm; 0 for no limit
    ema: float = 0.0  #: Decay of the weights' exponential moving average; 0 for none
    loss: LossConfig = field(default_factory=LossConfig)
    #: Null for no augmentation: whole frames, stills without motion.
    augment: AugmentConfig | None = field(default_factory=AugmentConfig)

    @property
    def extractor_is_frozen(self) -> bool:
        """Whether no part of the extractor is trained."""
        return not {'backbone', 'projection'} & set(self.groups)


@dataclass(frozen=True)
class ValidationConfig:
    """The validation that chooses the best weights."""

    #: Annotated sequences of `kind: video` that are not training data.
    sources: tuple[SourceConfig, ...]
    #: Epochs between two measurements; the last epoch of a stage is always measured.
    every: int = 1
    #: Approximate number of frames: an equal number from the middle of each sequence.
    frames: int = 500


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run needs except the folder of the data."""

    name: str
    classes: tuple[str, ...]
    sources: tuple[SourceConfig, ...]
    stages: tuple[StageConfig, ...]
    preset: str = 'default'
    #: Keys of the network that differ from the preset.
    network: dict[str, Any] = field(default_factory=dict)
    cutouts: str = ''  #: Folder of cut-outs with alpha, one sub-folder a class; empty for none
    #: Draw a picture in proportion to (1 / pictures with its rarest class) ** balance; [0, 1].
    balance: float = 0.0
    #: `memory` decodes every frame once, at the start, and keeps it. `none` decodes the frames of
    #: each clip, for data that is larger than the memory. `device` keeps the frames in the memory
    #: of the device, such as a GPU, and draws clips there (`clips.drawn_clips`).
    cache: str = 'memory'
    cache_side: int = 384  #: `device`: largest long side in pixels; larger frames are shrunk
    #: Null for none: the weights of a stage's last iteration are its result.
    validation: ValidationConfig | None = None
    seed: int = 0
    workers: int = 1
    threads: int = 2
    device: str = 'auto'  #: One of `DEVICES`; `auto` is CUDA where there is one
    #: Input that the backbone's first weights were trained on: `imagenet`, normalised with its
    #: mean and deviation; `symmetric`, RGB from -1 to 1.
    backbone_range: str = 'imagenet'
    prune: bool = False  #: Drop channels of the backbone's first weights that are constant
    #: `none`, `bf16` (autocast), `fp16` (autocast with scaled gradients, only on CUDA), or `auto`:
    #: the fastest that the machine supports.
    amp: str = 'none'
    #: Refuse operations whose result depends on chance; slower on CUDA.
    deterministic: bool = False
    #: Keys of the checkpoint's card, some of `CARD_KEYS`.
    card: dict[str, Any] = field(default_factory=dict)

    def network_config(self, stage: StageConfig | None = None) -> NetworkConfig:
        """
        Return the network's configuration, or that of a stage.

        :raises ConfigError: if preset or overrides are wrong
        """
        base = preset(self.preset, len(self.classes)).to_dict()
        config = NetworkConfig.from_dict({**base, **self.network})
        if stage is None:
            return config
        if not stage.input_size:
            return replace(config, variant=stage.variant)
        # Anchors are measured in square roots of the picture's area.
        shrinkage = sqrt(prod(config.input_size) / prod(stage.input_size))
        return NetworkConfig.from_dict({
            **config.to_dict(), 'variant': stage.variant, 'input_size': list(stage.input_size),
            'anchor_scales': [round(shrinkage * scale, 5) for scale in config.anchor_scales]})

    def forecasts_motion(self, stage: StageConfig) -> bool:
        """Return whether a stage trains a forecast of motion."""
        return (self.network_config().forecast_mode == MOTION
                and stage.variant not in ('baseline', 'recurrent'))


def load_recipe(path: str | Path) -> Recipe:
    """
    Read a recipe.

    :raises RecipeError: if the file cannot be read, or a key is unknown, missing, of the wrong
        type or out of range
    """
    values = read_recipe(path)
    try:
        recipe = build_recipe(values)
        _check(recipe, recipe.network_config())
    except (RecipeError, ConfigError, DataError) as error:
        raise RecipeError(f'{path}: {error}') from None
    return recipe


def build_recipe(values: Any) -> Recipe:
    """Build a recipe from plain values without a check of their ranges; raises RecipeError."""
    try:
        return build(Recipe, values)
    except PlainValueError as error:
        raise RecipeError(str(error)) from None


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise RecipeError(text)


def _check(recipe: Recipe, network: NetworkConfig) -> None:
    _require(bool(recipe.stages), 'stages is empty')
    _require(bool(recipe.sources), 'sources is empty')
    for key, values in (('amp', AMP), ('device', DEVICES),
                        ('backbone_range', ('imagenet', 'symmetric'))):
        _require(getattr(recipe, key) in values,
                 f'{key} is {getattr(recipe, key)!r}, must be one of {values}')
    if recipe.validation is not None:
        for key in ('every', 'frames'):
            _require(getattr(recipe.validation, key) >= 1, f'validation.{key} must be at least 1')
        _require(bool(recipe.validation.sources), 'validation.sources is empty')
        _require(all(source.kind == 'video' for source in recipe.validation.sources),
                 'validation.sources: kind must be video')
    _require(recipe.cache in CACHES, f'cache is {recipe.cache!r}, must be {" or ".join(CACHES)}')
    for key, low, high in (('cache_side', 32, 4096), ('seed', 0, 2**63 - 1),
                           ('workers', 0, 1024), ('threads', 1, 1024)):
        _require(low <= getattr(recipe, key) <= high,
                 f'{key} is {getattr(recipe, key)}, must be from {low} to {high}')
    _require(0.0 <= recipe.balance <= 1.0, f'balance is {recipe.balance}, must be in [0, 1]')
    for key in recipe.card:
        _require(key in CARD_KEYS, f'unknown key card.{key}, must be one of {CARD_KEYS}')
    try:
        # An invalid card would otherwise be an error only after the first stage.
        build_card({'name': recipe.name, 'classes': list(recipe.classes),
                    'network': network.to_dict(), **recipe.card})
    except InputError as error:
        raise RecipeError(f'card: {error}') from None
    names = [stage.name for stage in recipe.stages]
    _require(len(set(names)) == len(names), 'stages has a name twice')
    _require('' not in names, 'stages: a name is empty')
    for number, stage in enumerate(recipe.stages):
        try:
            _check_start(recipe, stage, (START, *names[:number]))
            _check_stage(recipe, stage, network)
        except (RecipeError, ConfigError) as error:
            raise RecipeError(f'stage {stage.name}: {error}') from None


def _check_start(recipe: Recipe, stage: StageConfig, before: tuple[str, ...]) -> None:
    """Refuse a mean with an unknown stage, and an input size that no network has."""
    _require(stage.name != START, f'a stage must not be named {START}: mean_of uses this name')
    for name, weight in stage.mean_of.items():
        _require(name in before, f'mean_of has {name!r}, must be one of {", ".join(before)}')
        _require(0.0 < weight <= 1000.0, f'mean_of.{name} is {weight}, must be in (0, 1000]')
    _require(len(stage.input_size) in (0, 2),
             f'input_size is {list(stage.input_size)}, must be a height and a width')
    recipe.network_config(stage)


def _check_stage(recipe: Recipe, stage: StageConfig, network: NetworkConfig) -> None:
    for key in ('clips_per_epoch', 'batch', 'clip_length', 'reuse'):
        _require(getattr(stage, key) >= 1, f'{key} must be at least 1')
    _require(stage.clips_per_epoch % stage.batch == 0,
             'clips_per_epoch must be a multiple of batch')
    for name in stage.groups:
        _require(name in GROUPS, f'unknown group {name!r}, must be one of {GROUPS}')
    for key, allowed in (('variant', VARIANTS), ('optimizer', ('sgd', 'adamw')),
                         ('freeze_bn', ('all', 'backbone', 'none'))):
        _require(getattr(stage, key) in allowed,
                 f'{key} is {getattr(stage, key)!r}, must be one of {allowed}')
    missing = {'baseline': ('encoder', 'scheduler'), 'recurrent': ('scheduler',)}
    parts = [name for name in GROUPS if name not in missing.get(stage.variant, ())]
    _require(any(name in stage.groups for name in parts),
             f'groups must have one of {", ".join(parts)}: the parts of the variant '
             f'{stage.variant}')
    _require(stage.reuse == 1 or stage.extractor_is_frozen,
             f'reuse is {stage.reuse}, but features can be kept only where the extractor is '
             'frozen; set reuse to 1, or give neither backbone nor projection a rate')
    if stage.scheduler_from is not None:
        _require(stage.extra_frame, 'the scheduler needs extra_frame')
        _require(stage.clip_length > first_decision(network),
                 f'clip_length is {stage.clip_length}, must be at least '
                 f'{1 + first_decision(network)} for a scheduler with the reference '
                 f'{network.scheduler_reference}')
    _require(set(stage.groups) != {'scheduler'} or stage.scheduler_from == 0,
             'trains the scheduler alone, so scheduler_from must be 0')
    for key, least in (('strides', 1), ('gaps', 0), ('horizons', 0)):
        values = getattr(stage, key)
        _require(len(values) >= least and all(value >= 1 for value in values),
                 f'{key} is {list(values)}, must be a list of integers of at least 1')
    motion = recipe.forecasts_motion(stage)
    if motion:
        _check_motion(stage, recipe.cache)
    _require(not stage.keep or (
        motion and stage.extractor_is_frozen and 'head' not in stage.groups),
        'keep is for a forecast of motion whose extractor and head are not trained')
    _check_numbers(stage, first_blocks(network.levels))


def _check_motion(stage: StageConfig, cache: str) -> None:
    """Refuse settings that a stage for a forecast of motion cannot have."""
    _require(bool(stage.gaps and stage.horizons and stage.clip_length > 1 and stage.extra_frame
                  and cache == DEVICE),
             'a forecast of motion is trained with gaps, horizons, extra_frame, a clip_length of '
             'at least 2, and cache: device')
    others = sorted(set(stage.groups) - {'encoder', 'scheduler'})
    _require(not others, f'groups has {", ".join(others)}; a forecast of motion trains encoder '
             'and scheduler alone, the others in a stage of single frames')
    _require(stage.reuse == 1, f'reuse is {stage.reuse}, must be 1 for a forecast of motion; keep '
             'stores its features')
    _require(not stage.pauses or stage.clip_length < PAUSE,
             f'clip_length is {stage.clip_length}, must be below {PAUSE} with pauses')


def _check_numbers(stage: StageConfig, blocks: int) -> None:
    """Refuse numbers out of their ranges, and NaN."""
    for key, high in (('epochs', 1_000_000), ('thinning', 1_000_000), ('plain_epochs', 1_000_000),
                      ('still_fraction', 1.0), ('pauses', 1.0), ('keep', 100),
                      ('frozen_blocks', blocks), ('weight_decay', 1.0),
                      ('warmup', 1_000_000_000), ('clip_norm', 1e9)):
        value = getattr(stage, key)
        _require(0 <= value <= high, f'{key} is {value}, must be in [0, {high:g}]')
    _require(0.0 <= stage.ema < 1.0, 'ema must be in [0, 1)')
    for name, group in stage.groups.items():
        for key in ('lr', 'decay'):
            value = getattr(group, key)
            _require(0.0 <= value <= 1000.0,
                     f'groups.{name}.{key} is {value}, must be in [0, 1000]')
