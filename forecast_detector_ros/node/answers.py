# SPDX-License-Identifier: Apache-2.0
"""Find out which camera a detector's answers belong to."""
from __future__ import annotations

from collections import defaultdict, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_MOST = 256
"""Frame ids, and cameras of each, that are remembered."""

Key = tuple[int, str]
"""Stamp (nanoseconds) and frame_id of an image."""


@dataclass
class _Open:
    """Answers that carry the same header, each kind in the order in which it came."""

    detections: list[Any] = field(default_factory=list)
    decisions: list[tuple[str, Any]] = field(default_factory=list)


class Answers:
    """
    Pairs detections with decisions and hands both to the camera that the decision names.

    Detections carry the image's header and no camera; a decision names the camera too. Both are
    published in the same order, so where several cameras have the same stamp and frame_id the
    first detections belong to the first decision, provided that none is missing.

    Parameters
    ----------
    sink:
        Called with camera, stamp, detections and decision; one of the last two may be None.

    """

    def __init__(self, sink: Callable[[str, int, Any, Any], None]) -> None:
        """Know no camera yet."""
        self._sink = sink
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        self._cameras: defaultdict[str, set[str]] = defaultdict(set)
        self.ambiguous = 0
        """Detections that could belong to several cameras, because an answer was lost."""

    def add_detections(self, key: Key, detections: Any) -> None:
        """Take the detections with this header."""
        self._open.setdefault(key, _Open()).detections.append(detections)
        self._settle(key)

    def add_decision(self, key: Key, camera: str, decision: Any) -> None:
        """Take the decision with this header, on an image of `camera`."""
        if len(self._cameras) > _MOST:
            self._cameras.clear()
        if len(self._cameras[key[1]]) < _MOST:
            self._cameras[key[1]].add(camera)
        self._open.setdefault(key, _Open()).decisions.append((camera, decision))
        self._settle(key)

    def flush(self) -> None:
        """Hand on what still waits."""
        while self._open:
            self._close(next(iter(self._open)))

    def _settle(self, key: Key) -> None:
        waiting, cameras = self._open[key], self._cameras[key[1]]
        complete = len(waiting.detections) == len(waiting.decisions) >= max(1, len(cameras))
        if complete:
            # A camera's answers come in order: what was opened before this is complete, too, or
            # has lost one. Of several cameras one may be late.
            older = [old for old in self._open if old[1] == key[1]]
            for old in older[:older.index(key)]:
                if len(cameras) == 1 or (
                        len(self._open[old].detections) == len(self._open[old].decisions)):
                    self._close(old)
            self._close(key)
        # Cameras that share a frame_id need not be in step, nor their answers in order.
        while len(self._open) > 2 * max(1, len(cameras)):
            self._close(next(iter(self._open)))

    def _close(self, key: Key) -> None:
        waiting = self._open.pop(key)
        count = len(waiting.decisions)
        if len(waiting.detections) == count:
            for detections, (camera, decision) in zip(waiting.detections, waiting.decisions):
                self._sink(camera, key[0], detections, decision)
            return
        for camera, decision in waiting.decisions:
            self._sink(camera, key[0], None, decision)
        cameras = self._cameras[key[1]]
        if len(cameras) == 1:
            (camera,) = cameras
            for detections in waiting.detections[:1]:
                self._sink(camera, key[0], detections, None)
        else:
            self.ambiguous += len(waiting.detections)
