# SPDX-License-Identifier: Apache-2.0
"""Write a video that can be read at any moment, also after the process was killed."""
from __future__ import annotations

from contextlib import suppress
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import cv2

from .video_writer import VideoError, VideoWriter

_BLOCK = 65536  #: Bytes that are taken out of the pipe at once; it holds no more (man 7 pipe)


class StreamedVideoWriter(VideoWriter):
    """
    A Matroska file of which no more than the last second is ever missing.

    OpenCV's FFmpeg keeps 256 KiB of a regular file to itself, and a minute of a calm scene takes
    less; into a pipe it writes at once, and makes clusters of a second. So it gets a pipe, and a
    thread carries what comes out of it to the file. The price: a stream has no index, and players
    find a place in it by reading.
    """

    def __init__(self, path: str | Path, rate: float) -> None:
        """Plan a video, as VideoWriter does; `path` ends in ``.mkv``."""
        super().__init__(path, rate)
        self._thread: Thread | None = None
        self._problem: OSError | None = None

    def _encoder(self, path: Path, size: tuple[int, int]) -> cv2.VideoWriter:
        try:
            target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError as error:
            raise VideoError(f'{self.path}: cannot write: {error.strerror}') from None
        with TemporaryDirectory() as folder:
            pipe = Path(folder) / path.name
            os.mkfifo(pipe)
            # Not waiting for the other side, which may never come.
            source = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            try:
                writer = super()._encoder(pipe, size)
            except VideoError:
                os.close(source)
                os.close(target)
                raise
        os.set_blocking(source, True)
        self._thread = Thread(target=self._carry, args=(source, target), daemon=True)
        self._thread.start()
        return writer

    def _carry(self, source: int, target: int) -> None:
        """Copy until the encoder is done; after a failure only keep the pipe from filling."""
        while block := os.read(source, _BLOCK):
            try:
                while block and self._problem is None:
                    block = block[os.write(target, block):]
            except OSError as error:
                self._problem = error
        try:
            os.fsync(target)
        except OSError as error:
            self._problem = self._problem or error
        with suppress(OSError):
            os.close(target)
        os.close(source)

    def _check(self) -> None:
        if self._problem is not None:
            raise VideoError(f'{self.path}: cannot be written: '
                             f'{self._problem.strerror or self._problem}')

    def _verify(self) -> None:
        if self._thread is not None:
            self._thread.join()
        self._check()
