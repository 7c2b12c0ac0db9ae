# SPDX-License-Identifier: Apache-2.0
"""Check the machine, and report in one line what it lacks."""
from __future__ import annotations

import importlib.util
from pathlib import Path
import platform
import shutil
import subprocess
import sys
import sysconfig

OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 13)

#: torch with its CUDA libraries takes 5.5 GB, and its wheels up to 3 GB more.
NEEDED_DISK_BYTES = 9 * 10**9

#: Programs that generate vision_msgs, all from Debian's and Ubuntu's build-essential.
COMPILERS = ('cc', 'c++', 'make')

#: Modules of a ROS 2 installation that the package uses, and the names of their packages without
#: the leading ros-<distro>-.
ROS_MODULES = {
    'rclpy': 'rclpy',
    'cv_bridge': 'cv-bridge',
    'diagnostic_msgs': 'diagnostic-msgs',
    'lifecycle_msgs': 'lifecycle-msgs',
    'sensor_msgs': 'sensor-msgs',
    'std_srvs': 'std-srvs',
    'vision_msgs': 'vision-msgs',
}


class SetupError(Exception):
    """The set-up cannot continue; the message is one line with the reason and the remedy."""


def require_python() -> None:
    """Refuse interpreters for which there are no wheels."""
    version = sys.version_info[:2]
    if not OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        raise SetupError(
            f'{sys.executable} is Python {version[0]}.{version[1]}; Python 3.10 to 3.13 is '
            'needed: name one, as in make PYTHON=python3.12')
    if any(importlib.util.find_spec(module) is None for module in ('venv', 'ensurepip')):
        raise SetupError(
            'Python has no venv module: sudo apt-get install python3-venv '
            f'(or python{version[0]}.{version[1]}-venv)')


def require_wheel_platform() -> None:
    """Refuse machines for which PyPI has no ROS 2 wheels."""
    system, processor = platform.system(), platform.machine()
    if (system, processor) != ('Linux', 'x86_64'):
        raise SetupError(
            f'the ROS 2 wheels are for Linux on x86_64, this is {system} on {processor}: '
            'install ROS 2, source its setup.bash and run make again')


def require_compilers() -> None:
    """Refuse machines that cannot compile."""
    missing = [program for program in COMPILERS if shutil.which(program) is None]
    if missing:
        raise SetupError(
            f"{', '.join(missing)} not found: sudo apt-get install build-essential")


def require_disk(folder: Path) -> None:
    """Refuse file systems with too little space for the installation."""
    free = shutil.disk_usage(folder).free
    if free < NEEDED_DISK_BYTES:
        raise SetupError(
            f'{folder} has {free / 1e9:.1f} GB free, {NEEDED_DISK_BYTES / 1e9:.0f} GB are '
            'needed while torch is installed')


def require_ros_modules(distro: str) -> None:
    """Refuse a sourced ROS 2 installation that lacks packages, or is for another Python."""
    missing = [
        package for module, package in ROS_MODULES.items()
        if importlib.util.find_spec(module) is None
    ]
    if len(missing) == len(ROS_MODULES):
        raise SetupError(
            f'ROS_DISTRO is {distro} but {sys.executable} finds no package of it: source '
            f'/opt/ros/{distro}/setup.bash and use the Python that it was built for')
    if missing:
        names = ' '.join(f'ros-{distro}-{package}' for package in missing)
        raise SetupError(f'ROS 2 {distro} lacks packages: sudo apt-get install {names}')


def python_headers(scratch: Path) -> Path:
    """
    Return the folder that holds Python.h.

    If the interpreter has no headers and the system is Debian or Ubuntu, their package is unpacked
    below `scratch`, which needs no administrator.

    :raises SetupError: if there are no headers.
    """
    installed = Path(sysconfig.get_paths()['include'])
    if (installed / 'Python.h').is_file():
        return installed
    version = f'{sys.version_info[0]}.{sys.version_info[1]}'
    unpacked = scratch / 'usr' / 'include' / f'python{version}'
    if not (unpacked / 'Python.h').is_file():
        unpack_debian_package(f'libpython{version}-dev', scratch)
    if not (unpacked / 'Python.h').is_file():
        raise SetupError(
            f'Python.h of Python {version} not found: sudo apt-get install python3-dev '
            f'(or python{version}-dev)')
    return unpacked


def unpack_debian_package(name: str, target: Path) -> None:
    """Download a package with apt and unpack it below a folder; ignore a failure."""
    if shutil.which('apt-get') is None or shutil.which('dpkg-deb') is None:
        return
    target.mkdir(parents=True, exist_ok=True)
    run_quietly(['apt-get', 'download', name], target)
    for archive in target.glob(f'{name}_*.deb'):
        run_quietly(['dpkg-deb', '-x', archive.name, '.'], target)
        archive.unlink()


def run_quietly(command: list[str], folder: Path) -> None:
    """Run a command; its caller checks the files that it makes in the folder."""
    subprocess.run(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
