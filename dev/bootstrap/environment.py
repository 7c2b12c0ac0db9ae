# SPDX-License-Identifier: Apache-2.0
"""A virtual environment and what is installed in it."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys

from dev.bootstrap.machine import SetupError


@dataclass(frozen=True)
class Environment:
    """A virtual environment in a folder, existing or still to be made."""

    #: Absolute path.
    folder: Path

    @property
    def python(self) -> Path:
        """Return the environment's interpreter."""
        return self.folder / 'bin' / 'python'

    @property
    def work(self) -> Path:
        """Return the folder in it for what the set-up itself keeps."""
        return self.folder / 'bootstrap'

    @property
    def downloads(self) -> Path:
        """Return where pip keeps wheels, so that an interrupted download is not repeated."""
        return self.work / 'downloads'

    def is_usable(self) -> bool:
        """Tell whether the environment is whole, of the running Python and was not moved."""
        try:
            shebang = (self.folder / 'bin' / 'pip').read_text().splitlines()[0]
            result = subprocess.run(
                [self.python, '-c', 'import pip, sys; print(sys.version)'],
                capture_output=True, text=True, check=False)
        except (OSError, UnicodeDecodeError, IndexError):
            return False
        return result.stdout.strip() == sys.version and shebang.startswith(f'#!{self.folder}/')

    def create(self, with_system_packages: bool) -> None:
        """
        Make the environment anew, in place of what is in its folder.

        :raises SetupError: when Python's venv fails.
        """
        command = [sys.executable, '-m', 'venv', '--clear']
        if with_system_packages:
            command.append('--system-site-packages')
        if subprocess.run([*command, self.folder], check=False).returncode:
            raise SetupError(
                f'{self.folder} could not be made: sudo apt-get install python3-venv')
        # colcon must not look for packages in it.
        (self.folder / 'COLCON_IGNORE').touch()

    def install(self, requirements: Path, constraints: Iterable[Path], *options: str) -> None:
        """
        Install what a requirements file lists.

        :raises SetupError: when pip fails.
        """
        limits = [argument for path in constraints for argument in ('-c', str(path))]
        self._pip(f'installing {requirements.name}', '-r', str(requirements), *limits, *options)

    def install_editable(self, project: Path) -> None:
        """
        Install a project so that its checkout is what is imported.

        :raises SetupError: when pip fails.
        """
        # By its path: what setuptools would ask last finds a folder of the same name first, such
        # as the checkout beside a script.
        self._pip(f'installing {project}', '--no-deps', '--no-build-isolation',
                  '--config-settings', 'editable_mode=compat', '-e', str(project))

    def evaluate(self, expression: str, imports: str) -> str:
        """
        Return the text of an expression's value in the environment's Python.

        :param imports: the modules that it needs, separated by commas.
        :raises SetupError: when it has none.
        """
        result = subprocess.run(
            [self.python, '-c', f'import {imports}; print({expression})'],
            capture_output=True, text=True, check=False)
        if result.returncode:
            reason = result.stderr.strip().splitlines()[-1:]
            raise SetupError(f'{self.python} cannot tell {expression}: {reason}')
        return result.stdout.strip()

    def drop_downloads(self) -> None:
        """Delete what pip kept and what it left when it was interrupted."""
        shutil.rmtree(self.downloads, ignore_errors=True)
        shutil.rmtree(self.work / 'tmp', ignore_errors=True)

    def drop_half_installed(self) -> None:
        """Make pip forget what an interruption left half-copied: it writes RECORD last."""
        for description in self.folder.glob('lib/python3*/site-packages/*.dist-info'):
            if not (description / 'RECORD').is_file():
                shutil.rmtree(description)

    def _pip(self, task: str, *arguments: str) -> None:
        self.drop_half_installed()
        # pip unpacks gigabytes in its temporary folder, which /tmp may not hold, and leaves them
        # there when it is killed.
        temporary = self.work / 'tmp'
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        environment = {
            'PIP_CACHE_DIR': str(self.downloads), **os.environ, 'TMPDIR': str(temporary)}
        result = subprocess.run(
            [self.python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check',
             *arguments],
            env=environment, check=False)
        if result.returncode:
            # A killed pip (by the kernel, when memory is short) has said nothing.
            how = 'failed, see above' if result.returncode > 0 else (
                f'was ended by {signal.Signals(-result.returncode).name}')
            raise SetupError(f'{task} {how}; the next run goes on from here')
