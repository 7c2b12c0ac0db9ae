# SPDX-License-Identifier: Apache-2.0
"""Bring images, detections and decisions of the same stamp together, in the images' order."""
from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

ImageT = TypeVar('ImageT')
DetectionsT = TypeVar('DetectionsT')
DecisionT = TypeVar('DecisionT')


@dataclass(frozen=True)
class JoinedFrame(Generic[ImageT, DetectionsT, DecisionT]):
    """An image with what the detector said about it; None where it said nothing."""

    stamp: int
    """Nanoseconds, from the image's header."""
    image: ImageT
    detections: DetectionsT | None
    decision: DecisionT | None


class FrameJoin(Generic[ImageT, DetectionsT, DecisionT]):
    """
    Keeps images until the detector's answers to them are settled.

        A frame is settled when both answers have come, or answers to a later frame: then it was
        dropped. It is also settled when more than `frame_limit` frames or `byte_limit` bytes of
        images wait. Stamps are nanoseconds. When the images' stamps step back (a loop, a restarted
        clock), everything that waits is settled first.
    """

    def __init__(self, frame_limit: int = 250, byte_limit: int = 256 * 2**20) -> None:
        """Hold at most `frame_limit` images of together at most `byte_limit` bytes."""
        self._frame_limit = frame_limit
        self._byte_limit = byte_limit
        self._images: deque[tuple[int, ImageT, int]] = deque()
        self._detections: dict[int, DetectionsT] = {}
        self._decisions: dict[int, DecisionT] = {}
        self._newest = {'detections': -1, 'decision': -1}
        self._bytes = 0
        self._last_image = -1
        self._released: deque[JoinedFrame[ImageT, DetectionsT, DecisionT]] = deque()
        self.given_up = 0
        """Frames that were released unanswered because too many were waiting."""
        self.without_image = 0
        """Answers whose image never came, or came too late."""

    def __len__(self) -> int:
        """Return the number of images that wait."""
        return len(self._images)

    def add_image(self, stamp: int, image: ImageT, size: int = 0) -> None:
        """Take an image of `size` bytes."""
        if stamp <= self._last_image:
            self._release_all()
            self._newest = {'detections': -1, 'decision': -1}
        self._last_image = stamp
        self._images.append((stamp, image, size))
        self._bytes += size
        while len(self._images) > self._frame_limit or (
                self._bytes > self._byte_limit and len(self._images) > 1):
            self._release()
            self.given_up += 1

    def add_detections(self, stamp: int, detections: DetectionsT) -> None:
        """Take the detections of the image with this stamp."""
        self._add(self._detections, 'detections', stamp, detections)

    def add_decision(self, stamp: int, decision: DecisionT) -> None:
        """Take the decision on the image with this stamp."""
        self._add(self._decisions, 'decision', stamp, decision)

    def settled(self) -> Iterator[JoinedFrame[ImageT, DetectionsT, DecisionT]]:
        """Yield, in order, the frames nothing more is expected of."""
        while True:
            while self._released:
                yield self._released.popleft()
            if not self._images or not self._is_settled(self._images[0][0]):
                return
            self._release()

    def flush(self) -> Iterator[JoinedFrame[ImageT, DetectionsT, DecisionT]]:
        """Yield, in order, every frame that waits, answered or not."""
        self._release_all()
        while self._released:
            yield self._released.popleft()

    def _add(self, answers: dict[int, Any], kind: str, stamp: int, answer: Any) -> None:
        self._newest[kind] = max(self._newest[kind], stamp)
        answers[stamp] = answer
        if len(answers) > self._frame_limit:
            del answers[next(iter(answers))]
            self.without_image += kind == 'decision'

    def _is_settled(self, stamp: int) -> bool:
        return (stamp in self._detections or self._newest['detections'] > stamp) and (
            stamp in self._decisions or self._newest['decision'] > stamp)

    def _release(self) -> None:
        stamp, image, size = self._images.popleft()
        self._bytes -= size
        self._released.append(JoinedFrame(stamp, image, self._detections.pop(stamp, None),
                                          self._decisions.pop(stamp, None)))
        self._forget_before(stamp)

    def _release_all(self) -> None:
        while self._images:
            self._release()

    def _forget_before(self, stamp: int) -> None:
        """Drop answers older than a released frame: their images will not come any more."""
        for answers in (self._detections, self._decisions):
            for old in [key for key in answers if key < stamp]:
                del answers[old]
                self.without_image += answers is self._decisions
