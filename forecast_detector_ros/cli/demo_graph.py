# SPDX-License-Identifier: Apache-2.0
"""The demo's three processes on a ROS graph of their own: camera, detector, recorder."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
import os
from pathlib import Path
import queue
import signal
import sys
import threading
import time

from .graph_processes import Child, ChildError, end_all, profile_environment
from ..recording.frame_record import RecordedFrame

# From starting the processes to the first frame: importing torch and warming up take a while
# on a slow disk.
START_S = 180.0
# Between two frames of a running camera, and from the camera's end to the recorder's.
SILENCE_S = 60.0
FINISH_S = 60.0
POLL_S = 0.1

# The lower domains are those people use; above 101 the ports collide with ephemeral ones.
FIRST_DOMAIN = 52
DOMAINS = 50

NODES = 'forecast_detector_ros.node'


@dataclass(frozen=True)
class DemoOptions:
    """The settings of a demo."""

    video: str  #: Video file, folder of images or V4L2 device
    rate: float = 0.0  #: Frames per second; 0 is the video's own
    transport: str = 'raw'  #: `raw` or `compressed`
    #: Parameters of the detector, name -> value as in `-p name:=value`.
    detector: Mapping[str, str] = field(default_factory=dict)
    domain: int | None = None  #: ROS_DOMAIN_ID; None chooses one that is unlikely to be in use


def environment(options: DemoOptions, folder: Path) -> dict[str, str]:
    """Return the variables of the processes: an own graph, local, with large shared memory."""
    domain = options.domain
    if domain is None:
        domain = FIRST_DOMAIN + os.getpid() % DOMAINS
    variables = dict(os.environ)
    variables.update({
        'ROS_DOMAIN_ID': str(domain),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'ROS_LOG_DIR': str(folder / 'logs' / 'ros'),
        'PYTHONUNBUFFERED': '1',
        **profile_environment(),
    })
    if os.environ.get('ROS_DISTRO') == 'humble':
        variables['ROS_LOCALHOST_ONLY'] = '1'  # its name for ROS_AUTOMATIC_DISCOVERY_RANGE
    return variables


class DemoGraph:
    """The running processes; a context manager that leaves none of them behind."""

    def __init__(self, options: DemoOptions, folder: Path) -> None:
        """Prepare a run whose recording and logs go to `folder`, which exists."""
        self._options = options
        self._folder = folder
        self.report = folder / 'logs' / 'camera.json'
        self._records: queue.SimpleQueue[RecordedFrame | None] = queue.SimpleQueue()
        self._children: list[Child] = []

    def __enter__(self) -> DemoGraph:
        """Start the three processes."""
        logs = self._folder / 'logs'
        logs.mkdir()
        variables = environment(self._options, self._folder)
        transport = self._options.transport
        parameters = {
            'recorder': {
                'output': str(self._folder), 'image_transport': transport,
                'rate': repr(self._options.rate), 'frame_log': "'-'", 'stop_with_camera': 'true'},
            'detector': {
                'autostart': 'true', 'image_transport': transport, **self._options.detector},
            'camera': {
                'source': f"'{self._options.video}'", 'rate': repr(self._options.rate),
                'image_transport': transport, 'wait_for_subscribers': '2',
                'report': str(self.report)},
        }
        try:
            for name, values in parameters.items():
                command = [sys.executable, '-m', f'{NODES}.{name}_node', '--ros-args']
                for key, value in values.items():
                    command += ['-p', f'{key}:={value}']
                self._children.append(Child(name, command, logs / f'{name}.log', variables,
                                            piped=name == 'recorder'))
        except BaseException:
            end_all(self._children)
            raise
        self._recorder, self._detector, self._camera = self._children
        threading.Thread(target=self._read_records, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        """End what still runs: the camera first, the detector last."""
        # A second Ctrl-C must not cut this short; each of them is killed in the end.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            end_all([self._camera, self._recorder, self._detector])
        finally:
            signal.signal(signal.SIGINT, before)

    def frames(self) -> Iterator[RecordedFrame]:
        """
        Yield the frames as they are recorded, until the recorder has finished.

        Raises ChildError when a process dies, or nothing comes for too long.
        """
        deadline = time.monotonic() + START_S
        what = f'no frame was recorded within {START_S:.0f} s of the start'
        ending = False
        while True:
            try:
                record = self._records.get(timeout=POLL_S)
            except queue.Empty:
                self._check()
                if not ending and self._camera.exit_code == 0:
                    ending = True
                    deadline = time.monotonic() + FINISH_S
                    what = (f'the recorder did not finish within {FINISH_S:.0f} s of the '
                            "camera's end")
                if time.monotonic() > deadline:
                    raise ChildError(f'{what}; the detector: '
                                     f'{self._detector.last_words()}') from None
                continue
            if record is None:
                break
            yield record
            if not ending:
                deadline = time.monotonic() + SILENCE_S
                what = f'no frame was recorded for {SILENCE_S:.0f} s'
        if not self._recorder.wait(FINISH_S):
            raise ChildError('the recorder does not end')
        self._check()

    def _check(self) -> None:
        # The camera first: when it cannot read the video, the others have done nothing wrong.
        self._camera.check(may_end=True)
        self._detector.check()
        self._recorder.check(may_end=self._camera.exit_code is not None)

    def _read_records(self) -> None:
        for line in self._recorder.output:
            self._records.put(RecordedFrame.from_line(line.decode()))
        self._records.put(None)
