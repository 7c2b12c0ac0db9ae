# SPDX-License-Identifier: Apache-2.0
"""
Run the detector over the images of a bag or video as the node does, without middleware.

The node uses the same `step_stamped` and `MessageBuilder`, so the same images give the same boxes
and decisions.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from math import nan
from pathlib import Path
import shutil
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from .arrivals import Arrival, EVERY_FRAME, GivenLatency, play, REAL_TIME
from .result_files import (
    BAG_NAME,
    CameraVideo,
    COCO_NAME,
    CocoList,
    FrameList,
    FRAMES_NAME,
    FrameTimes,
    ResultBag,
)
from .truth import Annotated, CameraTruth, FrameKey, load_annotated_camera, ORDER, recorded_truth
from ..detector.backends.registry import AUTO
from ..detector.checkpoint import Card, default_checkpoint
from ..detector.detector import check_ahead, Detector, look_ahead, step_stamped
from ..detector.policy import FORECAST
from ..detector.settings import DetectorSettings
from ..detector.stream import MAX_GAP_S, StreamState
from ..evaluation.runs import COLLECT_SCORE, Latencies
from ..files import write_json
from ..images.bag_images import ImageBag
from ..images.frame import FrameError, SourceError
from ..images.image_messages import MAX_IMAGE_PIXELS
from ..images.video_images import open_images, VideoImages
from ..jobs.engine import Progress, StopFlag, StoppedError
from ..jobs.locations import fetched, kept, Location, pack
from ..metrics.tables import DetectionTable, save_tables
from ..recording.output_files import VideoError, vision_typestore
from ..recording.recorded_frame import DROPPED, RecordedFrame, summarise_frames

SUMMARY_NAME = 'summary.json'
TABLES_NAME = 'tables.npz'

COMPRESSED = '/compressed'


@dataclass(frozen=True)
class ReplayOptions:
    """Options of a replay, the same for all bags."""

    checkpoint: Location | None = None  #: None: the default checkpoint
    device: str = 'auto'
    precision: str = AUTO
    threads: int = 1
    backend: str = AUTO
    #: Fields of `DetectorSettings` that replace the recommendations of the card.
    changes: dict[str, Any] = field(default_factory=dict)
    topics: tuple[str, ...] = ()  #: Image topics; empty: all
    mode: str = EVERY_FRAME
    latency: GivenLatency | Latencies | None = None  #: None: measured
    max_gap_s: float = MAX_GAP_S
    #: Whether to write detections ahead of time, as the node does with publish_ahead.
    ahead: bool = False
    video: bool = False
    annotations: Location | None = None  #: COCO-video JSON
    match: str = ORDER
    min_score: float = 0.4
    truth_topic: str | None = None  #: Topic of annotations as Detection2DArray in each bag
    max_image_pixels: int = MAX_IMAGE_PIXELS  #: Larger images are refused

    def settings(self, card: Card) -> DetectorSettings:
        """Return the settings for a checkpoint; raises SettingsError."""
        return replace(card.settings(), **self.changes)

    def load(self) -> Detector:
        """Load the detector; raises RuntimeConfigError or SettingsError."""
        path = default_checkpoint() if self.checkpoint is None else kept(self.checkpoint)
        detector = Detector.load(path, self.device, self.precision, self.threads,
                                 backend=self.backend)
        detector.check_settings(self.settings(detector.card))
        if self.ahead:
            check_ahead(detector)
        return detector

    @property
    def has_truth(self) -> bool:
        """Return whether there are annotations."""
        return self.annotations is not None or self.truth_topic is not None


@dataclass(frozen=True)
class BagJob:
    """One bag or video file to replay."""

    path: Location
    name: str  #: Unique name of its result
    folder: Path  #: Folder of its result; exists only if a lost process left it
    #: Whether the files of the result are returned, because this may be another machine.
    send: bool = False


def prepare_replay(options: ReplayOptions, detector: Detector | None = None
                   ) -> Callable[[BagJob, Progress, StopFlag], ReplayedBag]:
    """Load the detector if it is not given, warm it up, and return a function for one bag."""
    detector = detector or options.load()
    detector.warm_up()
    return partial(_replay, detector, options)


@dataclass(frozen=True)
class ReplayedBag:
    """The result of a bag."""

    summary: dict[str, Any]  #: Content of its `SUMMARY_NAME`
    files: bytes | None = None  #: Its packed folder if `BagJob.send` is set


def _replay(detector: Detector, options: ReplayOptions, job: BagJob, progress: Progress,
            interrupt: StopFlag) -> ReplayedBag:
    if not job.send:
        shutil.rmtree(job.folder, ignore_errors=True)
        return ReplayedBag(replay_bag(detector, options, job, progress, interrupt))
    with TemporaryDirectory(prefix='forecast_detector_') as scratch:
        here = replace(job, folder=Path(scratch) / 'bag')
        summary = replay_bag(detector, options, here, progress, interrupt)
        return ReplayedBag(summary, pack(here.folder))


def replay_bag(detector: Detector, options: ReplayOptions, job: BagJob, progress: Progress,
               interrupt: StopFlag) -> dict[str, Any]:
    """
    Replay one bag into a folder, which is created only for a complete result.

    If `interrupt` is set, the result ends at that image, and the summary notes it.

    :returns: the bag's summary, the content of its `SUMMARY_NAME`
    :raises SourceError: if the bag or its annotations cannot be used
    :raises StoppedError: if `interrupt` is set before the first image
    :raises EvaluationError: if a needed latency was not recorded
    :raises BagError, VideoError: if the results cannot be written
    """
    job.folder.mkdir(parents=True)
    try:
        with fetched(job.path) as path, closing(
                open_images(path, vision_typestore())) as bag:
            replay = _Replay(bag, detector, options, job, progress, interrupt)
            return replay.run()
    except BaseException:
        shutil.rmtree(job.folder, ignore_errors=True)
        raise


@dataclass
class _Camera:
    topic: str
    name: str
    video: str
    state: StreamState = field(default_factory=StreamState)
    keys: list[FrameKey] = field(default_factory=list)
    records: list[RecordedFrame] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    dropped: int = 0
    shown: list[DetectionTable] = field(default_factory=list)
    collected: list[DetectionTable] = field(default_factory=list)
    annotated_video: CameraVideo | None = None
    annotated: Annotated | None = None
    #: Quantile of the latency of each image, [0, 1).
    draws: np.ndarray = field(default_factory=lambda: np.zeros(0))


class _Replay:
    def __init__(self, bag: ImageBag | VideoImages, detector: Detector,
                 options: ReplayOptions, job: BagJob, progress: Progress,
                 interrupt: StopFlag) -> None:
        self._bag, self._detector, self._options, self._job = bag, detector, options, job
        self._progress, self._interrupt = progress, interrupt
        self._settings = options.settings(detector.card)
        self._low = replace(self._settings, score_threshold=min(
            COLLECT_SCORE, self._settings.score_threshold))
        names = _topics(bag, options.topics)
        self._total = sum(bag.topics[name].count for name in names)
        self._done = 0
        self._cameras = {name: _Camera(
            name, name.removesuffix(COMPRESSED),
            job.name if len(names) == 1 else f'{job.name}{name}') for name in names}
        if options.annotations is not None:
            for camera in self._cameras.values():
                camera.annotated = load_annotated_camera(
                    kept(options.annotations), camera.video, len(names) == 1, options.match,
                    detector.labels, options.min_score)
        self._results = ResultBag(job.folder / BAG_NAME, detector.labels, options.ahead)
        self._frames = FrameList(job.folder / FRAMES_NAME)
        self._coco = CocoList(job.folder / COCO_NAME, detector.labels)
        if options.video:
            files: set[Path] = set()
            for camera in self._cameras.values():
                suffix = '' if len(names) == 1 else camera.topic.replace('/', '_')
                file = job.folder / f'annotated{suffix}.mp4'
                while file in files:  # The topics /a/b and /a_b give the same name.
                    file = file.with_stem(f'{file.stem}_')
                files.add(file)
                camera.annotated_video = CameraVideo(file)

    def run(self) -> dict[str, Any]:
        # Closed also after an error, because rosbags' writer would keep its file open.
        with closing(self._results):
            play(self._arrivals(), self._options.mode, self._step, self._drop)
        if not any(camera.keys for camera in self._cameras.values()):
            if self._interrupt.is_set:
                raise StoppedError
            raise SourceError(self._bag.losses[0] if self._bag.losses
                              else f'{self._job.path}: no image was read')
        self._frames.close()
        self._coco.close()
        for camera in self._cameras.values():
            self._film(camera, CameraVideo.close)
        truths = self._truths() if self._options.has_truth else {}
        save_tables(self._job.folder / TABLES_NAME, {
            topic: self._tables(camera, truths.get(topic))
            for topic, camera in self._cameras.items()})
        summary = {
            'name': self._job.name, 'path': str(self._job.path),
            'interrupted': self._interrupt.is_set, 'losses': self._bag.losses,
            'cameras': {topic: self._camera_summary(camera, truths.get(topic))
                        for topic, camera in self._cameras.items()}}
        write_json(self._job.folder / SUMMARY_NAME, summary)
        return summary

    def _arrivals(self) -> Iterator[Arrival]:
        for image in self._bag.images(list(self._cameras)):
            if self._interrupt.is_set:
                return
            camera = self._cameras[image.topic]
            arrival = Arrival(image, len(camera.keys))
            camera.keys.append(FrameKey.of(image, arrival.number))
            self._done += 1
            self._progress(self._done, self._total)
            yield arrival

    def _step(self, arrival: Arrival, start_ns: int) -> float:
        image, camera = arrival.image, self._cameras[arrival.image.topic]
        self._see(camera, arrival)
        before = camera.state
        # Costs of decisions in a time budget; None if they are measured.
        cost = (None if self._options.latency is None
                else partial(self._taken_ms, camera, arrival.number))
        start = perf_counter()
        try:
            frame = image.frame(self._options.max_image_pixels)
            result, camera.state = step_stamped(
                self._detector, frame, image.header_stamp_ns, before, self._settings,
                self._options.max_gap_s, cost)
        except FrameError as error:
            camera.refusals.append(f'image {arrival.number}: {error}')
            return 0.0
        latency_ms = (perf_counter() - start) * 1e3
        if self._options.latency is not None:
            latency_ms = self._taken_ms(camera, arrival.number, result.decision.kind)
            # Measured times would differ from run to run.
            result = replace(result, preprocess_ms=nan, inference_ms=nan)
        done_ns, age_ms = image.stamp_ns, nan
        if self._options.mode == REAL_TIME:
            done_ns = start_ns + round(latency_ms * 1e6)
            age_ms = (done_ns - image.header_stamp_ns) * 1e-6
        record, boxes = self._results.add(arrival, camera.name, result, FrameTimes(
            done_ns, latency_ms, age_ms, camera.dropped))
        self._keep(camera, arrival, record, boxes)
        size = camera.state.frame_size
        assert size is not None
        self._coco.add(arrival, camera.video, size, record, boxes)
        camera.shown.append(DetectionTable.of_frame(arrival.number, result.detections))
        if self._options.has_truth:
            low, _ = step_stamped(
                self._detector, image.frame(self._options.max_image_pixels),
                image.header_stamp_ns, before, self._low, self._options.max_gap_s)
            camera.collected.append(DetectionTable.of_frame(arrival.number, low.detections))
        return latency_ms + self._look_ahead(camera, arrival, done_ns)

    def _see(self, camera: _Camera, arrival: Arrival) -> None:
        camera.state = camera.state.arrived(arrival.image.header_stamp_ns,
                                            max_gap_s=self._options.max_gap_s)

    def _look_ahead(self, camera: _Camera, arrival: Arrival, done_ns: int) -> float:
        """Write the detections one period after an image; return the duration, milliseconds."""
        period_ns = camera.state.period.known_ns
        if not self._options.ahead or period_ns is None:
            return 0.0
        start = perf_counter()
        found = look_ahead(self._detector, camera.state, self._settings, period_ns / 1e9)
        took = (perf_counter() - start) * 1e3
        if self._options.latency is not None:
            took = self._taken_ms(camera, arrival.number, FORECAST)
        if self._options.mode == REAL_TIME:
            done_ns += round(took * 1e6)
        self._results.add_ahead(arrival.image.header_stamp_ns + period_ns, arrival.image.frame_id,
                                found.detections, done_ns)
        return took

    def _taken_ms(self, camera: _Camera, number: int, kind: str) -> float:
        """Return the given or drawn duration of a decision, milliseconds."""
        latency = self._options.latency
        assert latency is not None
        if not isinstance(latency, Latencies):
            return latency.at(kind, 0.0)
        if number >= len(camera.draws):
            # A longer sequence starts with the same numbers, which depend on seed and name only.
            camera.draws = latency.draws(camera.video, max(2 * number, 256))
        return latency.at(kind, float(camera.draws[number]))

    def _drop(self, arrival: Arrival) -> None:
        camera = self._cameras[arrival.image.topic]
        camera.dropped += 1
        self._see(camera, arrival)
        self._keep(camera, arrival, RecordedFrame(arrival.image.header_stamp_ns, DROPPED),
                   np.zeros((0, 4), np.float32))

    def _keep(self, camera: _Camera, arrival: Arrival, record: RecordedFrame, boxes: np.ndarray
              ) -> None:
        camera.records.append(record)
        self._frames.add(arrival, record)
        if camera.annotated_video is not None:
            try:
                frame = arrival.image.frame(self._options.max_image_pixels)
            except FrameError:
                return
            self._film(camera, lambda video: video.add(frame, record, boxes))

    def _film(self, camera: _Camera, work: Callable[[CameraVideo], None]) -> None:
        """Call `work` with a camera's video; an error ends only this video."""
        if camera.annotated_video is not None:
            try:
                work(camera.annotated_video)
            except VideoError as error:
                camera.annotated_video = None
                self._bag.losses.append(str(error))

    def _truths(self) -> dict[str, CameraTruth]:
        options, labels = self._options, self._detector.labels
        found = {}
        for topic, camera in self._cameras.items():
            if camera.annotated is not None:
                found[topic] = camera.annotated.truth(len(labels), camera.keys)
            else:
                assert options.truth_topic is not None
                found[topic] = recorded_truth(self._bag, options.truth_topic, labels,
                                              camera.keys, len(self._cameras) == 1)
        return found

    def _tables(self, camera: _Camera, truth: CameraTruth | None) -> dict[str, Any]:
        tables: dict[str, Any] = {'shown': DetectionTable.join(camera.shown)}
        if truth is not None:
            tables['collected'] = DetectionTable.join(camera.collected)
            tables['truth'] = truth.table
            tables['annotated'] = truth.frames
        return tables

    def _camera_summary(self, camera: _Camera, truth: CameraTruth | None) -> dict[str, Any]:
        figures = {'images': len(camera.keys), 'refused': len(camera.refusals),
                   'refusals': camera.refusals[:5],
                   **summarise_frames(camera.records, len(camera.records))}
        if truth is not None:
            figures['annotated_frames'] = len(truth.frames)
            figures['annotations_without_image'] = truth.unmatched
            # After an interrupt, fewer images than annotations are expected.
            figures['annotations_doubt'] = '' if self._interrupt.is_set else truth.doubt
        return figures


def _topics(bag: ImageBag | VideoImages, wanted: Sequence[str]) -> list[str]:
    if wanted:
        return list(dict.fromkeys(bag.choose(topic) for topic in wanted))
    found = [name for name, topic in bag.topics.items() if topic.count]
    # With one topic or none, `choose` returns it or raises the right error.
    return found if len(found) > 1 else [bag.choose()]
