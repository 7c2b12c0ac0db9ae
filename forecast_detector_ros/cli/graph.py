# SPDX-License-Identifier: Apache-2.0
"""Processes of a ROS graph, which never outlive their parent, and the graph of the demo."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
import os
from pathlib import Path
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import IO

from ..files import find_share
from ..recording.recorded_frame import RecordedFrame

LOG_LINES = 15

#: In a process with native threads, Python code may crash after a fork. So a small program asks
#: for the signal (PR_SET_PDEATHSIG is 1), and then becomes the child. A shell's background job
#: ignores SIGINT, and Python ignores more signals; the child gets the defaults.
_BECOME = (
    'import ctypes, os, signal, sys\n'
    'for name in ("SIGINT", "SIGPIPE", "SIGXFSZ"):\n'
    '    signal.signal(getattr(signal, name), signal.SIG_DFL)\n'
    'ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n'
    'os.execvp(sys.argv[1], sys.argv[1:])\n')
_START = (sys.executable, '-I', '-S', '-c', _BECOME)  #: Starts faster without site packages


class ChildError(RuntimeError):
    """A child ended or failed unexpectedly; the message names it and quotes the end of its log."""


class Child:
    """A program with its own log file."""

    def __init__(self, name: str, command: Sequence[str], log: Path,
                 environment: Mapping[str, str], piped: bool = False) -> None:
        """
        Start `command`; its standard error, and its output unless `piped`, go to `log`.

        It gets its own process group, so that Ctrl-C in the terminal reaches only the parent,
        which then ends the children in order. If the parent is killed, the kernel sends the
        child a SIGTERM. Must be called from the main thread.
        """
        self.name = name
        self.log = log
        with log.open('wb') as sink:
            self._process = subprocess.Popen(
                [*_START, *command], env=dict(environment), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else sink, stderr=sink,
                start_new_session=True)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def processor_s(self) -> float:
        """Return the processor time used so far, in seconds; 0 after the end."""
        try:
            # Fields 14 and 15 of proc(5); the name before them may contain blanks.
            fields = Path(f'/proc/{self.pid}/stat').read_text().rpartition(')')[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    @property
    def output(self) -> IO[bytes]:
        """Return the standard output of a piped child."""
        assert self._process.stdout is not None, f'{self.name} was started without a pipe'
        return self._process.stdout

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def check(self, may_end: bool = False) -> None:
        """Raise ChildError if it has failed, or has ended although `may_end` is false."""
        code = self.exit_code
        if code is None or (code == 0 and may_end):
            return
        how = f'was killed by {signal.Signals(-code).name}' if code < 0 else (
            f'ended with exit code {code}')
        raise ChildError(f'the {self.name} {how}; {self.last_words()}')

    def last_words(self) -> str:
        """Return the end of the log, for an error message."""
        lines = self.log.read_text(errors='replace').strip().splitlines()[-LOG_LINES:]
        if not lines:
            return 'its log is empty'
        return 'the end of its log:\n' + '\n'.join(f'  | {line}' for line in lines)

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for its end; return whether it has ended."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, patience: float = 10.0) -> None:
        """End it by SIGINT; after `patience` seconds by SIGTERM; after 3 more by SIGKILL."""
        for number, timeout in ((signal.SIGINT, patience), (signal.SIGTERM, 3.0),
                                (signal.SIGKILL, 3.0)):
            if self.exit_code is not None:
                return
            self._process.send_signal(number)
            if self.wait(timeout):
                return


def end_all(children: Sequence[Child], patience: float = 10.0) -> None:
    """End the children one after the other, each as `Child.end` does."""
    for child in children:
        child.end(patience)


PROFILE = 'config/fastdds_large_images.xml'


def profile_environment() -> dict[str, str]:
    """
    Return the environment variable with the path of Fast DDS's profile, for the images' publisher.

    Raises FileNotFoundError if the profile is not installed.
    """
    return {profile_variable(): str(find_share(PROFILE))}


def profile_variable() -> str:
    """
    Return the name of the variable, which was changed after Jazzy.

    Kilted accepts both names; if both are set, it loads the file twice, with errors.
    """
    distribution = os.environ.get('ROS_DISTRO')
    if distribution is None:
        # From wheels: Jazzy's rclpy is 7, Kilted's 9.
        try:
            distribution = 'jazzy' if int(metadata.version('rclpy').split('.')[0]) < 8 else ''
        except metadata.PackageNotFoundError:
            distribution = ''
    prefix = 'FASTRTPS' if distribution == 'jazzy' else 'FASTDDS'
    return f'{prefix}_DEFAULT_PROFILES_FILE'


# From the start of the processes to the first frame. Importing torch from a slow disk, and warming
# up, take long.
START_S = 180.0
# Between two frames of a running camera, and from the camera's end to the recorder's.
SILENCE_S = 60.0
FINISH_S = 60.0
POLL_S = 0.1

# People mostly use lower domains; above 101 the ports collide with ephemeral ones.
FIRST_DOMAIN, DOMAINS = 52, 50


@dataclass(frozen=True)
class DemoOptions:
    """The settings of a demo."""

    video: str  #: Video file, folder of images or V4L2 device
    rate: float = 0.0  #: Frames per second; 0 is the video's own
    transport: str = 'raw'  #: `raw` or `compressed`
    #: Parameters of the detector, name -> value as in `-p name:=value`.
    detector: Mapping[str, str] = field(default_factory=dict)
    domain: int | None = None  #: ROS_DOMAIN_ID; None chooses one that is unlikely to be in use


def environment(folder: Path, domain: int | None = None) -> dict[str, str]:
    """Return the environment of the processes: own ROS domain, local, large shared memory."""
    if domain is None:
        domain = FIRST_DOMAIN + os.getpid() % DOMAINS
    return {
        **os.environ,
        'ROS_DOMAIN_ID': str(domain),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'ROS_LOG_DIR': str(folder / 'logs' / 'ros'),
        'PYTHONUNBUFFERED': '1',
        **profile_environment(),
    }


def node_command(module: str, parameters: Mapping[str, object]) -> list[str]:
    """Return the command that starts the node of a module of the package, with parameters."""
    command = [sys.executable, '-m', f'forecast_detector_ros.node.{module}', '--ros-args']
    for key, value in parameters.items():
        command += ['-p', f'{key}:={value}']
    return command


def yaml_text(text: object) -> str:
    """Quote a text, such as a path, as the value of a parameter in `-p name:=value`."""
    return "'" + str(text).replace("'", "''") + "'"


class DemoGraph:
    """The running processes; a context manager that leaves none of them behind."""

    def __init__(self, options: DemoOptions, folder: Path) -> None:
        """Prepare a run whose recording and logs go to the existing `folder`."""
        self._options = options
        self._folder = folder
        self.report = folder / 'logs' / 'camera.json'
        self._records: queue.SimpleQueue[RecordedFrame | None] = queue.SimpleQueue()
        self._children: list[Child] = []

    def __enter__(self) -> DemoGraph:
        """Start the three processes."""
        logs = self._folder / 'logs'
        logs.mkdir()
        variables = environment(self._folder, self._options.domain)
        transport = self._options.transport
        parameters = {
            'recorder': {
                'output': yaml_text(self._folder), 'image_transport': transport,
                'rate': repr(self._options.rate), 'frame_log': "'-'", 'stop_with_camera': 'true'},
            'detector': {
                'autostart': 'true', 'image_transport': transport, **self._options.detector},
            'camera': {
                'source': yaml_text(self._options.video), 'rate': repr(self._options.rate),
                'image_transport': transport, 'wait_for_subscribers': '2',
                'report': yaml_text(self.report)},
        }
        try:
            for name, values in parameters.items():
                self._children.append(Child(name, node_command(f'{name}_node', values),
                                            logs / f'{name}.log', variables,
                                            piped=name == 'recorder'))
        except BaseException:
            end_all(self._children)
            raise
        self._recorder, self._detector, self._camera = self._children
        threading.Thread(target=self._read_records, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        """End the processes that still run: the camera first, the detector last."""
        # A second Ctrl-C must not leave processes behind; each child is killed if necessary.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            end_all([self._camera, self._recorder, self._detector])
        finally:
            signal.signal(signal.SIGINT, before)

    def frames(self) -> Iterator[RecordedFrame]:
        """
        Yield the frames as they are recorded, until the recorder has finished.

        Raises ChildError if a process fails, or if no frame comes for too long.
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

    def warnings(self) -> list[str]:
        """Return the warnings in the logs, each with the name of its process."""
        return [f'{child.name}: {line.partition("]: ")[2] or line}'
                for child in self._children
                for line in child.log.read_text(errors='replace').splitlines()
                if line.startswith('[WARN]')]

    def _check(self) -> None:
        # The camera first: if it cannot read the video, the error is not that of another process.
        self._camera.check(may_end=True)
        self._detector.check()
        self._recorder.check(may_end=self._camera.exit_code is not None)

    def _read_records(self) -> None:
        for line in self._recorder.output:
            self._records.put(RecordedFrame.from_line(line.decode()))
        self._records.put(None)
