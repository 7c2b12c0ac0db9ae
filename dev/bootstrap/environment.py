# SPDX-License-Identifier: Apache-2.0
"""A virtual environment and its packages."""
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
    """A virtual environment in a folder, which need not exist yet."""

    #: Absolute path.
    folder: Path

    @property
    def python(self) -> Path:
        """Return the environment's interpreter."""
        return self.folder / 'bin' / 'python'

    @property
    def work(self) -> Path:
        """Return its folder for files of the set-up."""
        return self.folder / 'bootstrap'

    @property
    def downloads(self) -> Path:
        """Return the folder of pip's wheels, so that a download is not repeated."""
        return self.work / 'downloads'

    def is_usable(self) -> bool:
        """Return whether it is complete, has the running Python, and was not moved."""
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
        Make the environment, and delete the previous content of its folder.

        :raises SetupError: if Python's venv fails.
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
        Install the packages of a requirements file.

        :raises SetupError: if pip fails.
        """
        limits = [argument for path in constraints for argument in ('-c', str(path))]
        self._pip(f'installing {requirements.name}', '-r', str(requirements), *limits, *options)

    def install_editable(self, project: Path) -> None:
        """
        Install a project in editable mode, so that Python imports its checkout.

        :raises SetupError: if pip fails.
        """
        # By its path: the import hook of setuptools comes last, after a folder of the same name,
        # such as the checkout in a script's folder.
        self._pip(f'installing {project}', '--no-deps', '--no-build-isolation',
                  '--config-settings', 'editable_mode=compat', '-e', str(project))

    def evaluate(self, expression: str, imports: str) -> str:
        """
        Return the text of an expression's value in the environment's Python.

        :param imports: the modules that it needs, separated by commas.
        :raises SetupError: if the expression fails.
        """
        result = subprocess.run(
            [self.python, '-c', f'import {imports}; print({expression})'],
            capture_output=True, text=True, check=False)
        if result.returncode:
            reason = result.stderr.strip().splitlines()[-1:]
            raise SetupError(f'{self.python} cannot evaluate {expression}: {reason}')
        return result.stdout.strip()

    def drop_downloads(self) -> None:
        """Delete pip's wheels and the files of its interrupted runs."""
        shutil.rmtree(self.downloads, ignore_errors=True)
        shutil.rmtree(self.work / 'tmp', ignore_errors=True)

    def drop_half_installed(self) -> None:
        """Delete the metadata of half-copied packages: pip writes RECORD last."""
        for description in self.folder.glob('lib/python3*/site-packages/*.dist-info'):
            if not (description / 'RECORD').is_file():
                shutil.rmtree(description)

    def _pip(self, task: str, *arguments: str) -> None:
        self.drop_half_installed()
        # pip unpacks gigabytes into its temporary folder, for which /tmp may be too small, and
        # does not delete them if it is killed.
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
            # A pip that the kernel killed for lack of memory prints no message.
            how = 'failed, see above' if result.returncode > 0 else (
                f'was ended by {signal.Signals(-result.returncode).name}')
            raise SetupError(f'{task} {how}; the next run continues from here')
