# SPDX-License-Identifier: Apache-2.0
"""Result files of one bag: a bag of detections and decisions, COCO JSON, videos."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
import json
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from .arrivals import Arrival
from ..detector.detector import StepResult
from ..detector.processing import Detections
from ..files import write_atomically, write_json
from ..images.frame import as_bgr, Frame, FrameError
from ..recording.drawing import annotate, status_text
from ..recording.output_files import (
    bag_qos,
    BagFile,
    DECISION,
    DETECTIONS,
    measured_rate,
    RATE_FRAMES,
    VideoWriter,
    vision_typestore,
)
from ..recording.recorded_frame import DROPPED, RecordedFrame
from ..recording.result_messages import (
    decision_values,
    LAST_SECOND,
    MessageBuilder,
    read_decision,
    read_detections,
    read_ids,
)

BAG_NAME = 'bag'
COCO_NAME = 'detections.json'
FRAMES_NAME = 'frames.jsonl'

NODE_NAME = 'forecast_detector'  #: Name of the node, with which the names of its decisions begin

# QoS of the node: history keep last, volatile; reliable and best effort.
_QOS = {DETECTIONS: (1, 10, 1, 2), DECISION: (1, 10, 2, 2)}


@dataclass(frozen=True)
class FrameTimes:
    """Times of a processed frame; NaN where they have no meaning."""

    done_ns: int  #: Time of its detections, nanoseconds of the bag's time
    latency_ms: float
    image_age_ms: float = nan
    dropped_frames: int = 0  #: Images of this camera dropped so far


class ResultBag:
    """Bag with the results, in the topics of the node."""

    def __init__(self, path: Path, labels: Sequence[str], ahead: bool = False) -> None:
        """
        Open the bag; raises BagError.

        `labels` are the names of the classes. `ahead` adds the topic ``/detections_ahead``.
        """
        self._bag = BagFile(path)
        self._labels = labels
        self._store: Any = vision_typestore()
        self._messages = MessageBuilder(self._store.types.__getitem__)
        for topic, kind in (('/detections', DETECTIONS), ('/decision', DECISION),
                            *((('/detections_ahead', DETECTIONS),) if ahead else ())):
            self._bag.connect(topic, kind, self._store, bag_qos(*_QOS[kind]))

    def add(self, arrival: Arrival, camera: str, result: StepResult, times: FrameTimes
            ) -> tuple[RecordedFrame, np.ndarray]:
        """
        Write detections and decision of an image with its header.

        Returns the record of the frame and its boxes, ``(N, 4)`` float32, xyxy in pixels, both
        read from the messages.
        """
        image = arrival.image
        header = self._header(image.header_stamp_ns, image.frame_id)
        detections = self._messages.detections(header, result.detections, self._labels)
        decision = self._messages.decision(
            header, f'{NODE_NAME}: {camera}', image.topic, result.decision,
            decision_values(result, times.latency_ms, times.image_age_ms, times.dropped_frames))
        self._write('/detections', DETECTIONS, detections, times.done_ns)
        self._write('/decision', DECISION, decision, times.done_ns)
        boxes, labels, scores = read_detections(detections)
        record = RecordedFrame(image.header_stamp_ns, DROPPED, labels=tuple(labels),
                               scores=tuple(scores), ids=read_ids(detections))
        return replace(record, **read_decision(decision)), boxes

    def add_ahead(self, stamp_ns: int, frame_id: str, found: Detections, done_ns: int) -> None:
        """Write detections expected at `stamp_ns` and ready at `done_ns`, times of the bag."""
        if stamp_ns // 10**9 > LAST_SECOND:
            return
        self._write('/detections_ahead', DETECTIONS, self._messages.detections(
            self._header(stamp_ns, frame_id), found, self._labels), done_ns)

    def close(self) -> None:
        """Finish and rename the bag; raises BagError."""
        self._bag.close()

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        types = self._store.types
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        return types['std_msgs/msg/Header'](
            stamp=types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds),
            frame_id=frame_id)

    def _write(self, topic: str, kind: str, message: Any, time_ns: int) -> None:
        self._bag.write(topic, self._store.serialize_cdr(message, kind), time_ns)


class FrameList:
    """A line of JSON for each image of the bag, processed or not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []

    def add(self, arrival: Arrival, record: RecordedFrame) -> None:
        """Add an image."""
        self._lines.append(json.dumps(
            {'topic': arrival.image.topic, 'frame_index': arrival.number, **asdict(record)},
            allow_nan=False))

    def close(self) -> None:
        """Write the file."""
        write_atomically(self._path, ''.join(f'{line}\n' for line in self._lines).encode())


class CocoList:
    """Detections in COCO's format: the processed images, and boxes with scores."""

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        """Plan the file, which `close` writes; `labels` are the names of the classes."""
        self._path = path
        self._ids = {name: number for number, name in enumerate(labels, 1)}
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, arrival: Arrival, video: str, size: tuple[int, int], record: RecordedFrame,
            boxes: np.ndarray) -> None:
        """Add an image of (height, width) and its boxes, ``(N, 4)`` xyxy in pixels."""
        image = len(self._images) + 1
        self._images.append({
            'id': image, 'file_name': f'{video}/{arrival.number:06d}', 'video': video,
            'frame_index': arrival.number, 'width': size[1], 'height': size[0],
            'stamp_ns': arrival.image.header_stamp_ns, 'frame_id': arrival.image.frame_id})
        for (x0, y0, x1, y1), label, score, number in zip(
                boxes.tolist(), record.labels, record.scores, record.ids, strict=True):
            self._annotations.append({
                'id': len(self._annotations) + 1, 'image_id': image, 'track_id': int(number),
                'category_id': self._ids[label], 'bbox': [x0, y0, x1 - x0, y1 - y0],
                'area': (x1 - x0) * (y1 - y0), 'iscrowd': 0, 'score': score})

    def close(self) -> None:
        """Write the file."""
        write_json(self._path, {
            'categories': [{'id': number, 'name': name} for name, number in self._ids.items()],
            'images': self._images, 'annotations': self._annotations})


def merge_coco(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge COCO documents with equal categories."""
    merged: dict[str, Any] = {'categories': documents[0]['categories'] if documents else [],
                              'images': [], 'annotations': []}
    for document in documents:
        images, boxes = len(merged['images']), len(merged['annotations'])
        merged['images'] += [{**item, 'id': item['id'] + images} for item in document['images']]
        merged['annotations'] += [
            {**item, 'id': item['id'] + boxes, 'image_id': item['image_id'] + images}
            for item in document['annotations']]
    return merged


class CameraVideo:
    """An annotated video of one camera at the rate of its stamps."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: list[tuple[int, np.ndarray]] = []
        self._writer: VideoWriter | None = None
        self._number = 0

    def add(self, frame: Frame, record: RecordedFrame, boxes: np.ndarray) -> None:
        """Draw and append a frame, unless it cannot be decoded; raises VideoError."""
        self._number += 1
        try:
            pixels = frame.load()
        except FrameError:
            return
        picture = (np.array(pixels.array, order='C') if pixels.order == 'bgr'
                   else as_bgr(pixels.array, pixels.order))
        annotate(picture, boxes, record, status_text(record, self._number))
        if self._writer is not None:
            self._writer.write(picture)
            return
        self._first.append((record.stamp_ns, picture))
        if len(self._first) == RATE_FRAMES:
            self._open()

    def close(self) -> None:
        """Finish the file; without a picture there is no file. Raises VideoError."""
        if self._writer is None:
            self._open()
        assert self._writer is not None
        self._writer.close()

    def _open(self) -> None:
        self._writer = VideoWriter(self._path, measured_rate([stamp for stamp, _ in self._first]))
        for _, picture in self._first:
            self._writer.write(picture)
        self._first.clear()
