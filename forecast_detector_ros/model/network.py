# SPDX-License-Identifier: Apache-2.0
"""
The detector network: extractor, encoders, scheduler and head (paper, Fig. 2).

States are immutable: each step takes a state and returns the next one.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn, Tensor

from .comparison import VIEW
from .config import ConfigError, EXPECTED, IMAGENET_MEAN, IMAGENET_STD, NetworkConfig
from .encoder import Encoder, LSTMState
from .extractor import expansion_channels, Extractor, feature_sizes
from .motion_forecast import Keys, MotionEncoder, MotionForecast, MotionScheduler, MotionState
from .scheduler import Scheduler
from .ssdlite import anchors_per_cell, HeadOutput, make_anchors, motion_units, SSDLiteHead


class NetworkState(NamedTuple):
    """The state of a stream; each field has one entry per level."""

    forecast: tuple[Tensor, ...]  #: Encoder 1's forecast of the next `feature`, ``(B, C, h, w)``
    encoder1: tuple[LSTMState, ...]
    encoder2: tuple[LSTMState, ...]
    #: Earlier forecast of the deepest `feature` of the last read frame, one map; empty if the
    #: scheduler has another reference.
    expected: tuple[Tensor, ...] = ()

    #: State of a network that forecasts motion; the other fields are empty then.
    motion: MotionState | tuple[()] = ()

    #: State of the variant `recurrent`; its `forecast` is the last input of the head.
    recurrent: tuple[LSTMState, ...] = ()


class Maps(NamedTuple):
    """The maps of one step, one tensor per level; () for absent maps."""

    feature: tuple[Tensor, ...]
    forecast: tuple[Tensor, ...]
    temporal: tuple[Tensor, ...]
    fused: tuple[Tensor, ...]
    expected: tuple[Tensor, ...] = ()  #: As in the new state


class StepOutput(NamedTuple):
    """Result of one step."""

    head: HeadOutput
    decision: Tensor  #: ``(B, 2)`` scheduler logits for the next frame
    state: NetworkState


class ForecastDetector(nn.Module):
    """
    Video object detector that forecasts feature maps or the motion of boxes.

    `read_step` and `forecast_step` are the two steps of inference; `extract`, `encode`,
    `schedule` and `head` are their parts, for training.
    """

    anchors: Tensor
    anchor_strides: Tensor  #: ``(A,)``: pixels between neighbouring cells of each anchor's map
    mean: Tensor
    std: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.extractor = Extractor(config.width, config.levels, config.feature_channels,
                                   config.tail, config.expansion_channels)
        self.feature_sizes = feature_sizes(config.input_size, config.levels)
        pairs = tuple(zip(config.feature_channels, config.lstm_channels))
        with_maps = config.has_encoders and not config.forecasts_motion
        with_forecast = with_maps and config.variant != 'persistence'
        self.encoder1 = nn.ModuleList(
            Encoder(channels, hidden, config.forecast_mode)
            for channels, hidden in (pairs if with_forecast else ()))
        self.encoder2 = nn.ModuleList(
            Encoder(channels, hidden, config.forecast_mode)
            for channels, hidden in (pairs if with_maps else ()))
        # The baseline of section 3 is Liu & Zhu's detector, whose LSTM reads the feature.
        self.recurrent = nn.ModuleList(
            Encoder(channels, hidden, 'direct' if config.forecast_mode == 'direct' else 'residual',
                    attention=False)
            for channels, hidden in (pairs if config.variant == 'recurrent' else ()))
        self.scheduler = Scheduler(self.feature_sizes[-1], hidden=config.scheduler_channels,
                                   norm=config.scheduler_norm) if with_maps else None
        self.remembers_expected = with_maps and config.scheduler_reference == EXPECTED
        self.head = SSDLiteHead(config.feature_channels, config.classes, config.extra_channels,
                                config.upsample_channels, config.neck_channels,
                                config.aspect_ratios)
        anchors = make_anchors(config.input_size, self.head.map_sizes(self.feature_sizes),
                               config.anchor_scales, config.anchor_spacing,
                               config.aspect_ratios)
        self.register_buffer('anchors', anchors, persistent=False)
        self.register_buffer('anchor_strides', self._anchor_strides(), persistent=False)
        self.motion = self._make_motion() if config.forecasts_motion else None
        for name, value in (('mean', IMAGENET_MEAN), ('std', IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(value).mul(255.0).view(1, 3, 1, 1),
                                 persistent=False)

    def _make_motion(self) -> MotionForecast:
        config = self.config
        return MotionForecast(
            MotionEncoder(config.feature_channels, self.head.map_sizes(self.feature_sizes),
                          config.motion_channels, config.motion_from_boxes),
            MotionScheduler(config.scheduler_channels),
            motion_units(self.anchors, self.anchor_strides),
            anchors_per_cell(config.aspect_ratios), config.variant == 'persistence')

    def _anchor_strides(self) -> Tensor:
        height, width = self.config.input_size
        per_cell = anchors_per_cell(self.config.aspect_ratios)
        return torch.cat([
            torch.full((rows * columns * per_cell,), max(height / rows, width / columns))
            for rows, columns in self.head.map_sizes(self.feature_sizes)])

    def normalise(self, image: Tensor) -> Tensor:
        """
        Normalise 8-bit RGB for the extractor.

        :param image: ``(B, 3, H, W)`` uint8 or float in [0, 255], RGB
        :returns: same shape, the network's float type, ImageNet-normalised
        """
        return (image.to(self.mean.dtype) - self.mean) / self.std

    def normalise_bgr(self, image: Tensor) -> Tensor:
        """Normalise ``(B, H, W, 3)`` uint8 BGR, the layout of OpenCV, for the extractor."""
        return self.normalise(image.flip(3).permute(0, 3, 1, 2))

    def extract(self, image: Tensor) -> tuple[Tensor, ...]:
        """Extract `feature` from normalised ``(B, 3, H, W)`` images: one map per level."""
        return self.extractor(image)

    def initial_state(self, batch: int = 1) -> NetworkState:
        """
        Return the zero state before the first frame, on the network's device.

        The first frame must be read, because this state has no forecast.
        """
        if self.motion is not None:
            return NetworkState((), (), (), motion=self._initial_motion(batch))
        forecast, encoder1, encoder2 = [], [], []
        for size, channels, hidden in zip(self.feature_sizes, self.config.feature_channels,
                                          self.config.lstm_channels):
            forecast.append(self.mean.new_zeros((batch, channels, *size)))
            zeros = self.mean.new_zeros((batch, hidden, *size))
            encoder1.append(LSTMState(zeros, zeros))
            encoder2.append(LSTMState(zeros, zeros))
        expected = (torch.zeros_like(forecast[-1]),) if self.remembers_expected else ()
        if self.recurrent:
            return NetworkState(tuple(forecast), (), (), recurrent=tuple(encoder1))
        return NetworkState(tuple(forecast), tuple(encoder1), tuple(encoder2), expected)

    def _initial_motion(self, batch: int) -> MotionState:
        assert self.motion is not None
        encoder = self.motion.encoder

        def zeros(*shape: int) -> Tensor:
            return self.mean.new_zeros((batch, *shape))
        memory = zeros(self.config.motion_channels, *self.feature_sizes[1])
        total = len(self.anchors)
        cells = total // self.motion.per_cell
        return MotionState(
            Keys(tuple(zeros(channels, *size) for channels, size in zip(
                encoder.key_channels, self.feature_sizes)),
                zeros(cells, VIEW) if encoder.boxes else ()),
            LSTMState(memory, memory), zeros(total, 1 + self.config.classes), zeros(total, 4),
            zeros(cells, encoder.outputs),
            zeros(self.motion.scheduler.size), zeros(3))

    def encode(self, feature: tuple[Tensor, ...], state: NetworkState,
               read: bool | Tensor = True) -> tuple[Maps, NetworkState]:
        """
        Run both encoders on the features of one frame.

        :param feature: one ``(B, C, h, w)`` map per level
        :param state: state after the previous frame
        :param read: whether `feature` comes from an image; a ``(B,)`` bool tensor if this differs
            in the batch. With `state_update: hold`, LSTMs keep their states where it does not.
        :returns: the maps of this frame, and the state for the next. `forecast`, `temporal` and
            `fused` are `feature` in the variant `baseline`; in `recurrent` they are the output of
            the LSTMs, or `feature` for a frame that is not read.
        """
        if self.recurrent:
            return self._remember(feature, state, read)
        if not self.config.has_encoders:
            return Maps(feature, feature, feature, feature), state._replace(forecast=feature)
        if self.encoder1:
            forecast, encoder1 = _encode(self.encoder1, feature, state.encoder1)
        else:
            forecast, encoder1 = feature, state.encoder1
        temporal, encoder2 = _encode(self.encoder2, forecast, state.encoder2)
        if self.config.variant == 'without_combination':
            fused = temporal
        else:
            # Section 3.1: "element-wisely averaged".
            fused = tuple((f + t) * 0.5 for f, t in zip(feature, temporal))
        expected = self._expected(state, read)
        if self.config.state_update == 'hold':
            encoder1 = _keep_unless(read, encoder1, state.encoder1)
            encoder2 = _keep_unless(read, encoder2, state.encoder2)
        return (Maps(feature, forecast, temporal, fused, expected),
                NetworkState(forecast, encoder1, encoder2, expected))

    def _remember(self, feature: tuple[Tensor, ...], state: NetworkState, read: bool | Tensor
                  ) -> tuple[Maps, NetworkState]:
        """Run the LSTMs of the variant `recurrent`, which repeats its last output."""
        if read is False:
            return Maps(feature, feature, feature, feature), state
        seen, after = _encode(self.recurrent, feature, state.recurrent)
        if isinstance(read, Tensor):
            mask = read.view(-1, 1, 1, 1)
            seen = tuple(torch.where(mask, new, old.to(new.dtype))
                         for new, old in zip(seen, feature))
        return (Maps(feature, seen, seen, seen), state._replace(
            forecast=seen, recurrent=_keep_unless(read, after, state.recurrent)))

    def _expected(self, state: NetworkState, read: bool | Tensor) -> tuple[Tensor, ...]:
        if not self.remembers_expected or read is False:
            return state.expected
        if read is True:
            return state.forecast[-1:]
        # Only a read frame brings a new reference.
        new, old = state.forecast[-1], state.expected[-1]
        return (torch.where(read.view(-1, 1, 1, 1), new, old.to(new.dtype)),)

    def schedule(self, maps: Maps) -> Tensor:
        """
        Score *read* and *forecast* for the next frame from the deepest level's maps.

        :returns: ``(B, 2)`` logits; zeros, which mean 0.5 each, without a scheduler
        """
        if self.scheduler is None:
            return maps.feature[-1].new_zeros((maps.feature[-1].shape[0], 2))
        reference = getattr(maps, self.config.scheduler_reference)
        return self.scheduler(maps.forecast[-1], reference[-1])

    def _step(self, feature: tuple[Tensor, ...], state: NetworkState, read: bool) -> StepOutput:
        maps, state = self.encode(feature, state, read)
        return StepOutput(self.head(maps.fused), self.schedule(maps), state)

    def read_step(self, image: Tensor, state: NetworkState, elapsed: Tensor | None = None
                  ) -> StepOutput:
        """
        Process one read frame.

        :param image: ``(B, H, W, 3)`` uint8 BGR of the configured input size
        :param state: state after the previous frame, or `initial_state`
        :param elapsed: ``(B, 1)`` float: time since the previous frame, in any unit; None for 1.
            Only used for a forecast of motion.
        :returns: raw head output, the scheduler's logits for the next frame, the next state
        """
        return self.read_features(self.extract(self.normalise_bgr(image)), state, elapsed)

    def read_features(self, feature: tuple[Tensor, ...], state: NetworkState,
                      elapsed: Tensor | None = None) -> StepOutput:
        """Process one read frame from the result of `extract`."""
        if self.motion is None or not isinstance(state.motion, MotionState):
            return self._step(feature, state, True)
        head = self.head(feature)
        decision, motion = self.motion.read(feature, head.logits, head.offsets, state.motion,
                                            self._elapsed(elapsed, len(head.logits)))
        return StepOutput(head, decision, state._replace(motion=motion))

    def _elapsed(self, elapsed: Tensor | None, batch: int) -> Tensor:
        return self.mean.new_ones((batch, 1)) if elapsed is None else elapsed

    def forecast_step(self, state: NetworkState, elapsed: Tensor | None = None) -> StepOutput:
        """
        Process one forecast frame, with arguments as in `read_step`.

        The forecast replaces `feature`, or the boxes of the last read move.
        """
        if self.motion is not None and isinstance(state.motion, MotionState):
            before = state.motion
            offsets, decision, after = self.motion.forecast(
                before, self._elapsed(elapsed, len(before.logits)))
            return StepOutput(HeadOutput(before.logits, offsets), decision,
                              state._replace(motion=after))
        return self._step(state.forecast, state, False)

    def drop_constant_channels(self) -> None:
        """Drop constant channels of the backbone; see `Extractor.drop_constant`."""
        self.extractor.drop_constant()
        left = expansion_channels(self.state_dict())
        self.config = replace(self.config, expansion_channels=left)

    def with_variant(self, variant: str) -> 'ForecastDetector':
        """
        Return a network of another variant with a copy of the weights.

        :raises ConfigError: if the variant is unknown or needs a module that this network lacks
        """
        other = ForecastDetector(replace(self.config, variant=variant))
        own = self.state_dict()
        missing = [key for key in other.state_dict() if key not in own]
        if missing:
            raise ConfigError(
                f'variant {variant!r} needs {missing[0].split(".")[0]}, which the variant '
                f'{self.config.variant!r} does not have')
        other.load_state_dict({key: own[key] for key in other.state_dict()})
        return other.train(self.training).to(self.mean)


def _keep_unless(read: bool | Tensor, new: tuple[LSTMState, ...], old: tuple[LSTMState, ...]
                 ) -> tuple[LSTMState, ...]:
    if isinstance(read, bool):
        return new if read else old
    mask = read.view(-1, 1, 1, 1)
    return tuple(LSTMState(*(torch.where(mask, after, before.to(after.dtype))
                             for after, before in zip(after_state, before_state)))
                 for after_state, before_state in zip(new, old))


def _encode(encoders: nn.ModuleList, maps: tuple[Tensor, ...], states: tuple[LSTMState, ...]
            ) -> tuple[tuple[Tensor, ...], tuple[LSTMState, ...]]:
    results = [encoder(x, state) for encoder, x, state in zip(encoders, maps, states)]
    return tuple(x for x, _ in results), tuple(state for _, state in results)
