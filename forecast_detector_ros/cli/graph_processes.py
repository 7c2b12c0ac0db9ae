# SPDX-License-Identifier: Apache-2.0
"""Start the processes of a graph, that never outlive their parent and carry large images."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
import ctypes
from importlib import metadata
import os
from pathlib import Path
import shutil
import signal
import subprocess
from typing import IO

from ..files import find_share

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_LIBC = ctypes.CDLL(None)

LOG_LINES = 15


class ChildError(RuntimeError):
    """A child that ended when it should not have; the message says which, and its last words."""


class Child:
    """A program with its own log file."""

    def __init__(self, name: str, command: Sequence[str], log: Path,
                 environment: Mapping[str, str], piped: bool = False) -> None:
        """
        Start `command`; its standard error, and its output unless `piped`, go to `log`.

        It gets its own process group, so that Ctrl-C in the terminal reaches only the parent,
        which then ends the children in order. Should the parent be killed, the kernel sends
        the child a SIGTERM. Must be called from the main thread.
        """
        self.name = name
        self.log = log
        # A process that is full of native threads may crash where Python code runs behind a fork,
        # so that util-linux's setpriv asks for the signal where it is installed.
        setpriv = shutil.which('setpriv')
        if setpriv is not None:
            # A shell's background job ignores SIGINT; its children are to be ended with it.
            command = ['env', '--default-signal=INT', setpriv, '--pdeathsig', 'TERM', '--',
                       *command]
        with log.open('wb') as sink:
            self._process = subprocess.Popen(
                command, env=dict(environment), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else sink, stderr=sink,
                start_new_session=True,
                preexec_fn=_end_with_parent if setpriv is None else None)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

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
        """Raise ChildError when it has failed, or has ended though it may not (`may_end`)."""
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
        """Wait at most `timeout` seconds for its end; tell whether it came."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, patience: float = 10.0) -> None:
        """End it: SIGINT, after `patience` seconds SIGTERM, after 3 more SIGKILL."""
        for number, timeout in ((signal.SIGINT, patience), (signal.SIGTERM, 3.0),
                                (signal.SIGKILL, 3.0)):
            if self.exit_code is not None:
                return
            self._process.send_signal(number)
            if self.wait(timeout):
                return


def end_all(children: Sequence[Child], patience: float = 10.0) -> None:
    """End the children one after the other; one that does not obey is killed."""
    for child in children:
        child.end(patience)


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # A shell's background job ignores SIGINT; its children are to be ended with it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


PROFILE = 'config/fastdds_large_images.xml'
BEFORE_RENAMING = ('humble', 'iron', 'jazzy')


def profile_environment() -> dict[str, str]:
    """
    Return the variable that points Fast DDS at the profile, for the images' publisher.

    Raises FileNotFoundError when the profile is not installed.
    """
    return {profile_variable(): str(find_share(PROFILE))}


def profile_variable() -> str:
    """
    Return the name of the variable: it was renamed after Jazzy.

    Kilted knows both names but loads the file twice, with errors, when both are set.
    """
    distribution = os.environ.get('ROS_DISTRO')
    if distribution is None:
        # From wheels: Jazzy's rclpy is 7, Kilted's 9.
        try:
            distribution = 'jazzy' if int(metadata.version('rclpy').split('.')[0]) < 8 else ''
        except metadata.PackageNotFoundError:
            distribution = ''
    prefix = 'FASTRTPS' if distribution in BEFORE_RENAMING else 'FASTDDS'
    return f'{prefix}_DEFAULT_PROFILES_FILE'
