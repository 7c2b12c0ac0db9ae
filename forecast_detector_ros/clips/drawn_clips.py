# SPDX-License-Identifier: Apache-2.0
"""
Clips drawn from a `PictureBank` on its device: views, mosaics, colours and camera motion.

The bank has all pictures of a training, decoded once into one tensor. A clip depends only on the
arguments of `ClipDrawer.draw`. A GPU draws some thousands of pictures per second; processes that
decode and warp make some hundreds.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from .augment import add_noise_to, AugmentConfig, FILL, FRAMES, MOSAIC_CENTRE
from .dataset import ClipBatch
from ..annotations.records import FrameReader, UNKNOWN_TRACK, VideoRecord

_LUMA = np.array((0.299, 0.587, 0.114), np.float32)
# RGB to YIQ (ITU-R BT.601, FCC 1953): a rotation of I and Q changes the hue.
_TO_YIQ = np.array(((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213),
                    (0.2115, -0.5227, 0.3112)))
_FROM_YIQ = np.linalg.inv(_TO_YIQ)

_LONGEST_MOTION = 24  #: Frames after which a drawn camera motion turns back
_STRETCH = 0.2  #: A view's aspect ratio changes by a factor of up to e to this power


@dataclass(frozen=True)
class PictureBank:
    """N pictures on squares of S x S pixels, with their targets; boxes are padded to K each."""

    #: ``(N, 3, S, S)`` uint8 RGB, each picture in the upper left corner, `FILL` around it.
    pixels: Tensor
    sizes: Tensor  #: ``(N, 2)`` float32: height and width
    boxes: Tensor  #: ``(N, K, 4)`` float32, xyxy in pixels of the square
    labels: Tensor  #: ``(N, K)`` int64; -1 where there is no box
    scores: Tensor  #: ``(N, K)`` float32, 0 to 1
    tracks: Tensor  #: ``(N, K)`` int64; `UNKNOWN_TRACK` for objects without a track
    ignore: Tensor  #: ``(N, R, 4)`` float32, xyxy
    #: ``(V,)``: index of each video's first picture; a still is a video of one frame.
    first: np.ndarray
    lengths: np.ndarray  #: ``(V,)``: number of its frames

    def to(self, device: torch.device | str) -> 'PictureBank':
        """Move all tensors to a device."""
        return replace(self, **{
            field.name: getattr(self, field.name).to(device) for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)})


def load_bank(records: Sequence[VideoRecord], reader: FrameReader, side: int = 384
              ) -> PictureBank:
    """
    Decode every frame of videos and stills.

    :param reader: decodes the frames, or has preloaded them
    :param side: S in pixels: pictures whose long side is larger are shrunk to it
    :raises DataError: if a picture cannot be read
    """
    frames = [frame for record in records for frame in record.frames]
    pixels = torch.empty((len(frames), 3, side, side), dtype=torch.uint8)
    sizes = np.zeros((len(frames), 2), np.float32)
    scales = np.zeros((len(frames), 2), np.float32)

    def place(index: int) -> None:
        frame = frames[index]
        image = reader.read(frame)
        height, width = image.shape[:2]
        shrink = min(1.0, side / max(height, width))
        if shrink < 1.0:
            size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        square = np.empty((side, side, 3), np.uint8)
        square[:] = FILL
        square[:image.shape[0], :image.shape[1]] = image
        pixels[index] = torch.from_numpy(square).permute(2, 0, 1)
        sizes[index] = image.shape[:2]
        scales[index] = image.shape[1] / width, image.shape[0] / height

    with ThreadPoolExecutor() as pool:
        list(pool.map(place, range(len(frames))))

    def padded(name: str, fill: int = 0) -> Tensor:
        return pad_sequence([torch.from_numpy(getattr(frame, name)) for frame in frames],
                            batch_first=True, padding_value=fill)
    labels, tracks = padded('labels', -1), padded('tracks', UNKNOWN_TRACK)
    # Every box of a still is its own object, which the synthetic camera motion moves.
    still = [len(record.frames) == 1 for record in records for _ in record.frames]
    tracks[still] = torch.where(labels[still] >= 0, torch.arange(labels.shape[1]), UNKNOWN_TRACK)
    scale = torch.from_numpy(np.tile(scales, 2))[:, None]
    lengths = np.array([len(record.frames) for record in records])
    return PictureBank(pixels, torch.from_numpy(sizes), padded('boxes') * scale, labels,
                       padded('scores'), tracks, padded('ignore') * scale,
                       np.cumsum(lengths) - lengths, lengths)


class DrawnClips(NamedTuple):
    """B clips of T frames on the bank's device, boxes padded to K and R a frame."""

    images: Tensor  #: ``(B, T, 3, H, W)`` uint8 RGB
    boxes: Tensor  #: ``(B, T, K, 4)`` float32, xyxy in pixels of `images`
    labels: Tensor  #: ``(B, T, K)`` int64; -1 where there is no box
    scores: Tensor  #: ``(B, T, K)`` float32, 0 to 1
    #: ``(B, T, K)`` int64: the same number for the same object; `UNKNOWN_TRACK` otherwise.
    tracks: Tensor
    ignore: Tensor  #: ``(B, T, R, 4)`` float32, xyxy
    times: Tensor  #: ``(B, T)`` float32: frames of the video since the first one

    def packed(self) -> ClipBatch:
        """Return the clips in the form that `dataset` gives."""
        seen = self.labels >= 0
        hidden = (self.ignore[..., 2:] > self.ignore[..., :2]).all(-1)
        return ClipBatch(self.images, seen.sum(-1).cpu(), hidden.sum(-1).cpu(), self.boxes[seen],
                         self.labels[seen], self.scores[seen], self.ignore[hidden],
                         self.tracks[seen], self.times)


@dataclass
class _Views:
    """The view of each of P picks of T frames: its part of a picture and its place; NumPy."""

    frames: np.ndarray  #: ``(P, T)`` index of the picture
    tiles: np.ndarray  #: ``(P, 4)`` xyxy, pixels of the output
    #: ``(P, 2)``: how much larger (x, y) than when the whole picture fills the output.
    zoom: np.ndarray
    place: np.ndarray  #: ``(P, 2)``: the view's place between the borders, 0 to 1
    flip: np.ndarray  #: ``(P,)`` bool
    #: ``(P, T, 3)``: the view's shift, in its own sides, and the log of its growth.
    motion: np.ndarray


class ClipDrawer:
    """
    Draws batches of augmented clips.

    :param bank: the pictures; its videos first, then its stills
    :param videos: how many of the bank's entries are videos
    :param weights: ``(V,)``: how often each entry is drawn; only ratios count
    :param size: (height, width) of the drawn pictures
    :param config: settings; those of cut-outs and rotation, `crop_max_aspect` and
        `mosaic_min_side` have no effect. None for whole frames.
    :param strides: distances between a clip's frames in the video, one drawn for each clip
    """

    def __init__(self, bank: PictureBank, videos: int, weights: np.ndarray,
                 size: tuple[int, int], config: AugmentConfig | None,
                 strides: tuple[int, ...] = (1,)) -> None:
        self._bank, self._videos = bank, videos
        self._bounds = np.cumsum(weights / weights.sum())
        self._size, self._strides = size, strides
        self._config = config or AugmentConfig(
            flip_probability=0.0, zoom_out_probability=0.0, crop_probability=0.0,
            photometric_probability=0.0, still_motion_probability=0.0)
        self._device = bank.pixels.device
        # Only GPUs have bilinear sampling in half precision.
        self._type = torch.float16 if self._device.type == 'cuda' else torch.float32
        self._grey = torch.tensor(FILL, dtype=self._type, device=self._device).view(1, 3, 1, 1)

    def draw_video(self, seed: tuple[int, ...], video: int) -> DrawnClips:
        """Draw all frames of a video as one clip, from one view."""
        return self._draw_one(seed, video, np.arange(self._bank.lengths[video])[None])

    def draw_pause(self, seed: tuple[int, ...], video: int, frames: int) -> DrawnClips:
        """Draw one frame of a video `frames` times, from one view, each time with new noise."""
        return self._draw_one(seed, video, np.zeros((1, frames), np.int64))

    def _draw_one(self, seed: tuple[int, ...], video: int, times: np.ndarray) -> DrawnClips:
        rng = np.random.default_rng(seed)
        views = self._views(rng, times, None, np.array([video]))
        moved = torch.from_numpy(times.astype(np.float32)).to(self._device)
        return DrawnClips._make((*self._render(rng, views, 1), moved))

    def draw(self, seed: tuple[int, ...], clips: int, steps: np.ndarray) -> DrawnClips:
        """
        Draw a batch.

        :param seed: seed of all draws
        :param clips: B
        :param steps: ``(B, T)`` or ``(1, T)``: frame numbers of each clip, from 0, before the
            stride. A still repeats its picture.
        """
        rng = np.random.default_rng(seed)
        steps = np.broadcast_to(steps, (clips, steps.shape[1]))
        mosaic = rng.random(clips) < self._config.mosaic_probability
        singles, fours = np.flatnonzero(~mosaic), np.flatnonzero(mosaic)
        stride = rng.choice(self._strides, clips)
        times = (steps - steps.min(1, keepdims=True)) * stride[:, None]
        parts = []
        if len(singles):
            views = self._views(rng, times[singles], None)
            parts.append(self._render(rng, views, 1))
        if len(fours):
            views = self._views(rng, np.repeat(times[fours], 4, 0), self._tiles(rng, len(fours)))
            parts.append(self._render(rng, views, 4))
        order = torch.from_numpy(np.argsort(np.concatenate((singles, fours)))).to(self._device)
        images, boxes, labels, scores, tracks, ignore = (
            join([part[field] for part in parts], fill, 2)[order]
            for field, fill in enumerate((0, 0, -1, 0, UNKNOWN_TRACK, 0)))
        moved = torch.from_numpy(times.astype(np.float32)).to(self._device)
        return DrawnClips(images, boxes, labels, scores, tracks, ignore, moved)

    def _tiles(self, rng: np.random.Generator, count: int) -> np.ndarray:
        height, width = self._size
        x = np.round(rng.uniform(*MOSAIC_CENTRE, count) * width)
        y = np.round(rng.uniform(*MOSAIC_CENTRE, count) * height)
        zero, right, bottom = np.zeros(count), np.full(count, width), np.full(count, height)
        corners = ((zero, zero, x, y), (x, zero, right, y), (zero, y, x, bottom),
                   (x, y, right, bottom))
        return np.stack([np.stack(corner, 1) for corner in corners], 1).reshape(-1, 4)

    def _views(self, rng: np.random.Generator, times: np.ndarray, tiles: np.ndarray | None,
               entry: np.ndarray | None = None) -> _Views:
        config, count = self._config, len(times)
        height, width = self._size
        if entry is None:
            entry = np.minimum(np.searchsorted(self._bounds, rng.random(count), side='right'),
                               len(self._bounds) - 1)
        first, length = self._bank.first[entry], self._bank.lengths[entry]
        span = times.max(1)
        # A clip that is longer than its video shows the video's last frame again.
        start = np.floor(rng.random(count) * np.maximum(length - span, 1)).astype(np.int64)
        frames = first[:, None] + np.minimum(start[:, None] + times, (length - 1)[:, None])
        still = entry >= self._videos
        chance = rng.random(count)
        amount = rng.random(count)
        if tiles is None:
            tiles = np.tile(np.array((0, 0, width, height), np.float64), (count, 1))
            crop = chance < config.crop_probability
            out = (chance >= config.crop_probability) & (
                rng.random(count) < config.zoom_out_probability)
            zoom = np.where(crop, config.crop_min_side ** -amount,
                            np.where(out, config.zoom_out_max ** -amount, 1.0))
            changed = crop | out
        else:
            zoom = 0.4 * 2.5 ** amount
            changed = np.ones(count, bool)
        stretch = np.exp(rng.uniform(-_STRETCH, _STRETCH, count)) ** changed
        zoom = np.stack((zoom * stretch, zoom / stretch), 1)
        moves = rng.random(count) < np.where(
            still, config.still_motion_probability, config.video_motion_probability)
        speed = rng.normal(size=(count, 3)) * moves[:, None] * np.array(
            (config.motion_pan, config.motion_pan, config.motion_zoom)) * 0.7
        # The motion turns back regularly, so that a long video stays in view.
        folded = _LONGEST_MOTION - np.abs(times % (2 * _LONGEST_MOTION) - _LONGEST_MOTION)
        return _Views(frames, tiles, zoom, rng.random((count, 2)),
                      rng.random(count) < config.flip_probability,
                      speed[:, None] * folded[..., None])

    def _affine(self, views: _Views) -> tuple[np.ndarray, np.ndarray]:
        """Return (scale, shift), ``(P, T, 2)`` each: picture = scale * output + shift, pixels."""
        sizes = self._bank.sizes.cpu().numpy()[views.frames][..., ::-1]  # (P, T, 2): width, height
        output = np.array(self._size[::-1], np.float64)
        tile = views.tiles[:, 2:] - views.tiles[:, :2]
        part = tile / output / views.zoom
        corner = views.place * (1.0 - part)
        growth = np.exp(views.motion[..., 2:])
        grown = part[:, None] * growth
        corner = (corner[:, None] + views.motion[..., :2] * part[:, None]
                  + 0.5 * (part[:, None] - grown))
        scale = grown * sizes / tile[:, None]
        shift = corner * sizes - scale * views.tiles[:, None, :2]
        flip = views.flip[:, None]
        # Mirrored about the tile's middle: x becomes x0 + x1 - x.
        ends = (views.tiles[:, 0] + views.tiles[:, 2])[:, None]
        shift[..., 0] = np.where(flip, shift[..., 0] + scale[..., 0] * ends, shift[..., 0])
        scale[..., 0] = np.where(flip, -scale[..., 0], scale[..., 0])
        return scale, shift

    def _render(self, rng: np.random.Generator, views: _Views, tiles: int) -> list[Tensor]:
        """Draw pictures and boxes of P picks as P / tiles clips."""
        picks, frames = views.frames.shape
        scale, shift = self._affine(views)
        device, (height, width) = self._device, self._size
        index = torch.from_numpy(views.frames).to(device)
        place = torch.from_numpy(views.tiles.astype(np.float32)).to(device)
        side = self._bank.pixels.shape[-1]
        theta = torch.zeros((picks * frames, 2, 3), device=device)
        scales = torch.from_numpy(scale.astype(np.float32)).to(device)
        shifts = torch.from_numpy(shift.astype(np.float32)).to(device)
        output = torch.tensor((width, height), dtype=torch.float32, device=device)
        theta[:, (0, 1), (0, 1)] = (scales * output / side).flatten(0, 1)
        theta[:, :, 2] = ((scales * output + 2 * shifts) / side - 1.0).flatten(0, 1)
        colour, offset = self._colours(rng, picks)
        clips = picks // tiles
        images = torch.empty((clips, frames, 3, height, width), dtype=torch.uint8, device=device)
        rows = torch.arange(height, device=device).view(1, 1, 1, -1, 1) + 0.5
        columns = torch.arange(width, device=device).view(1, 1, 1, 1, -1) + 0.5
        for tile in range(tiles):
            own = slice(tile, None, tiles)
            drawn = self._sample(index[own], theta.view(picks, frames, 2, 3)[own],
                                 colour[own], offset[own])
            if tiles == 1:
                images = drawn
                break
            corner = place[own].view(clips, 4, 1, 1, 1, 1)
            inside = ((columns >= corner[:, 0]) & (columns < corner[:, 2])
                      & (rows >= corner[:, 1]) & (rows < corner[:, 3]))
            images = torch.where(inside, drawn, images)
        add_noise_to(images, rng, self._config)
        boxes, labels, scores, tracks, ignore = self._boxes(index, scales, shifts, place)

        def together(x: Tensor) -> Tensor:
            # (clips * tiles, T, K, ...) to (clips, T, tiles * K, ...)
            x = x.view(clips, tiles, *x.shape[1:]).transpose(1, 2)
            return x.reshape(clips, frames, -1, *x.shape[4:])
        # Tracks of different tiles are different objects.
        number = torch.arange(picks, device=device).view(-1, 1, 1) % tiles
        tracks = torch.where(tracks == UNKNOWN_TRACK, tracks, tracks * tiles + number)
        return [images, *map(together, (boxes, labels, scores, tracks, ignore))]

    def _sample(self, index: Tensor, theta: Tensor, colour: Tensor, offset: Tensor) -> Tensor:
        mixed = []
        for some, places in zip(index.split(FRAMES, 1), theta.split(FRAMES, 1)):
            source = self._bank.pixels[some.flatten()].to(self._type) - self._grey
            grid = functional.affine_grid(places.flatten(0, 1), [some.numel(), 3, *self._size],
                                          align_corners=False).to(self._type)
            drawn = functional.grid_sample(source, grid, align_corners=False) + self._grey
            # One colour for all frames of a clip.
            drawn = torch.einsum('bij,btjp->btip', colour.to(self._type),
                                 drawn.view(*some.shape, 3, -1))
            drawn = drawn + offset.to(self._type).view(-1, 1, 3, 1)
            mixed.append(drawn.clamp_(0, 255).round_().to(torch.uint8))
        return torch.cat(mixed, 1).view(*index.shape, 3, *self._size)

    def _colours(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Draw brightness, contrast, saturation and hue: a 3x3 matrix and an offset each."""
        config = self._config

        def drawn(amount: float) -> np.ndarray:
            return (rng.uniform(-amount, amount, count)
                    * (rng.random(count) < config.photometric_probability))
        brightness, contrast = drawn(config.brightness), 1 + drawn(config.contrast)
        saturation, hue = 1 + drawn(config.saturation), np.radians(drawn(config.hue))
        turn = np.zeros((count, 3, 3))
        turn[:, 0, 0] = 1.0
        turn[:, 1, 1] = turn[:, 2, 2] = np.cos(hue)
        turn[:, 1, 2], turn[:, 2, 1] = -np.sin(hue), np.sin(hue)
        grey = np.ones((3, 1)) * _LUMA
        mix = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * grey
        matrix = contrast[:, None, None] * (_FROM_YIQ @ turn @ _TO_YIQ @ mix)
        offset = np.repeat((brightness + 127.5 * (1 - contrast))[:, None], 3, 1)
        return (torch.from_numpy(matrix.astype(np.float32)).to(self._device),
                torch.from_numpy(offset.astype(np.float32)).to(self._device))

    def _boxes(self, index: Tensor, scale: Tensor, shift: Tensor, tiles: Tensor
               ) -> tuple[Tensor, ...]:
        bank, config = self._bank, self._config

        def shown(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            corners = ((boxes.unflatten(-1, (2, 2)) - shift[:, :, None, None])
                       / scale[:, :, None, None])
            low, high = corners.amin(-2), corners.amax(-2)
            area = (high - low).clamp(min=1e-6).prod(-1)
            low = torch.maximum(low, tiles[:, None, None, :2])
            high = torch.minimum(high, tiles[:, None, None, 2:])
            seen = (high - low).clamp(min=0)
            return (torch.cat((low, high), -1), seen.prod(-1) / area,
                    seen.amin(-1) >= config.min_side)
        boxes, visible, wide = shown(bank.boxes[index])
        labels = bank.labels[index]
        seen = (labels >= 0) & (visible > 0)
        kept = seen & wide & (visible >= config.min_visible)
        hidden = seen & ~kept
        regions, part, _ = shown(bank.ignore[index])
        zero = torch.zeros((), device=boxes.device)
        ignore = torch.cat((torch.where(hidden[..., None], boxes, zero),
                            torch.where((part > 0)[..., None], regions, zero)), 2)
        return (torch.where(kept[..., None], boxes, zero), torch.where(kept, labels, -1),
                torch.where(kept, bank.scores[index], zero),
                torch.where(kept, bank.tracks[index], UNKNOWN_TRACK), ignore)


def join(parts: Sequence[Tensor], fill: int, dim: int) -> Tensor:
    """Join tensors along their first dimension; `dim` is padded to the longest."""
    most = max(part.shape[dim] for part in parts)
    return torch.cat([
        part if part.shape[dim] == most else functional.pad(
            part, (*(0, 0) * (part.dim() - dim - 1), 0, most - part.shape[dim]), value=fill)
        for part in parts])
