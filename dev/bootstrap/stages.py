# SPDX-License-Identifier: Apache-2.0
"""Run steps once, and again only if their inputs have changed."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
import hashlib
import os
from pathlib import Path
import time


@dataclass(frozen=True)
class Stage:
    """One step of the set-up."""

    name: str
    #: Shown while the step runs.
    title: str
    #: Files, folders and texts on which the result depends.
    inputs: tuple[Path | str, ...]
    run: Callable[[], None]


def files_below(path: Path) -> Iterator[Path]:
    """Yield a file itself, or the files of a folder without Python's caches, in a fixed order."""
    if path.is_file():
        yield path
        return
    for child in sorted(path.rglob('*')):
        if child.is_file() and '__pycache__' not in child.parts:
            yield child


def fingerprint(inputs: Iterable[Path | str]) -> str:
    """Return a hexadecimal digest of file contents and texts, in their order."""
    digest = hashlib.sha256()
    for item in inputs:
        if isinstance(item, str):
            digest.update(b'text\0' + item.encode() + b'\0')
            continue
        for path in files_below(item):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f'file\0{path.name}\0{content}\0'.encode())
    return digest.hexdigest()


def run_stages(stages: Iterable[Stage], stamps: Path) -> list[str]:
    """
    Run the stages whose inputs differ from those of their last completed run.

    A finished stage writes a stamp into the folder `stamps`, so an interrupted one runs again. The
    folder is in the environment, and is deleted with it.

    :returns: the names of the stages that ran.
    """
    ran = []
    for stage in stages:
        key = fingerprint(stage.inputs)
        stamp = stamps / stage.name
        if stamp.is_file() and stamp.read_text() == key:
            continue
        stamp.unlink(missing_ok=True)
        # Flushed, so that it comes before the output of the step's own programs.
        print(f'{stage.title} ...', flush=True)
        start = time.monotonic()
        stage.run()
        stamps.mkdir(parents=True, exist_ok=True)
        unfinished = stamp.with_suffix('.part')
        unfinished.write_text(key)
        os.replace(unfinished, stamp)
        print(f'{stage.title}: done in {time.monotonic() - start:.0f} s', flush=True)
        ran.append(stage.name)
    return ran
