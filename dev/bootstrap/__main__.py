# SPDX-License-Identifier: Apache-2.0
"""Set up a virtual environment for the checkout: `python3 -m dev.bootstrap ENVIRONMENT`."""
from __future__ import annotations

import argparse
import fcntl
import os
from pathlib import Path
import sys

from dev.bootstrap import machine, vision_msgs
from dev.bootstrap.environment import Environment
from dev.bootstrap.machine import SetupError
from dev.bootstrap.stages import run_stages, Stage

ROOT = Path(__file__).resolve().parents[2]
DEV = ROOT / 'dev'
BUILD_DESCRIPTION = ('setup.py', 'setup.cfg', 'pyproject.toml', 'package.xml')


def planned_stages(environment: Environment, distro: str, with_tests: bool) -> list[Stage]:
    """
    Return the steps in their order; those for running precede those for testing.

    :param distro: name of the sourced ROS 2 distribution, empty if there is none.
    """
    # Without a ROS 2 distribution the constraints set all versions. A robot keeps NumPy and OpenCV
    # of its system, because its other packages were compiled with them.
    constraints = () if distro else (DEV / 'constraints.txt',)

    def install(name: str, title: str, requirements: str, *options: str) -> Stage:
        path = DEV / requirements
        return Stage(
            name, title, (path, *constraints),
            lambda: environment.install(path, constraints, *options))

    def create() -> None:
        if not environment.is_usable():
            machine.require_disk(ROOT)
            environment.create(with_system_packages=bool(distro))

    stages = [
        Stage('environment', 'Creating the virtual environment',
              (str(environment.folder), sys.version, distro), create),
        install('requirements', 'Installing torch and others (minutes)', 'requirements.txt'),
    ]
    if not distro:
        stages += [
            install('ros', 'Installing ROS 2 Kilted', 'requirements-ros.txt'),
            install('generators', 'Installing rosidl', 'requirements-generate.txt'),
            Stage('vision_msgs', 'Generating vision_msgs',
                  (DEV / 'vision_msgs', DEV / 'bootstrap' / 'vision_msgs.py',
                   DEV / 'requirements-ros.txt', DEV / 'requirements-generate.txt'),
                  lambda: vision_msgs.generate(environment)),
        ]
    stages += [
        install('clip', 'Installing the demo clip', 'requirements-clip.txt', '--no-deps'),
        Stage('package', 'Installing forecast_detector_ros',
              (*(ROOT / name for name in BUILD_DESCRIPTION), DEV / 'bootstrap' / 'environment.py'),
              lambda: environment.install_editable(ROOT)),
    ]
    if with_tests:
        stages += [
            install('tests', 'Installing test tools', 'requirements-dev.txt'),
            install('docs', 'Installing Sphinx', 'requirements-docs.txt'),
            install('tracking', 'Installing TrackEval', 'requirements-tracking.txt', '--no-deps'),
        ]
    return stages


def jazzy_stages(environment: Environment, base: Environment) -> list[Stage]:
    """
    Return the steps to an environment with Jazzy's packages before those of another.

    :param base: has all other packages, such as PyTorch and the test tools.
    """
    requirements = DEV / 'requirements-jazzy.txt'

    def create() -> None:
        if not environment.is_usable():
            environment.create(with_system_packages=False)
        paths = [environment.evaluate('sysconfig.get_path("purelib")', 'sysconfig'),
                 base.evaluate('sysconfig.get_path("purelib")', 'sysconfig')]
        # Folders in a .pth file come after the environment's own packages.
        (Path(paths[0]) / 'zz_base.pth').write_text(f'{paths[1]}\n{ROOT}\n')

    return [
        Stage('environment', 'Creating the environment of Jazzy',
              (str(environment.folder), str(base.folder), sys.version), create),
        Stage('jazzy', 'Installing ROS 2 Jazzy, OpenCV 4.6, NumPy 1.26', (requirements,),
              lambda: environment.install(requirements, (), '--no-deps', '--ignore-installed')),
        Stage('vision_msgs', 'Generating vision_msgs',
              (DEV / 'vision_msgs', DEV / 'bootstrap' / 'vision_msgs.py', requirements),
              lambda: vision_msgs.generate(environment)),
    ]


def set_up_jazzy(folder: Path, base: Path) -> None:
    """
    Bring the environment of Jazzy up to date.

    :param base: the environment of Kilted, which must be up to date.
    :raises SetupError: if a step fails, or a ROS 2 distribution is sourced.
    """
    if os.environ.get('ROS_DISTRO'):
        raise SetupError('the wheels of Jazzy are for a shell in which no ROS 2 is sourced')
    environment = Environment(folder)
    if run_stages(jazzy_stages(environment, Environment(base)), environment.work / 'stamps'):
        environment.drop_downloads()


def set_up(folder: Path, with_tests: bool) -> None:
    """
    Bring the environment up to date with the checkout.

    :raises SetupError: if the machine lacks something or a step fails.
    """
    distro = os.environ.get('ROS_DISTRO', '')
    machine.require_python()
    if distro:
        machine.require_ros_modules(distro)
    else:
        machine.require_wheel_platform()
        machine.require_compilers()
    environment = Environment(folder)
    ran = run_stages(planned_stages(environment, distro, with_tests), environment.work / 'stamps')
    if ran:
        environment.drop_downloads()


def main() -> int:
    """Run the set-up; print one line if it fails."""
    parser = argparse.ArgumentParser(prog='python3 -m dev.bootstrap', description=__doc__)
    parser.add_argument('environment', type=Path, help='folder of the virtual environment')
    parser.add_argument('--tests', action='store_true', help='install the test tools, too')
    parser.add_argument('--jazzy-on', type=Path, metavar='ENVIRONMENT',
                        help='Jazzy with the oldest OpenCV and NumPy, on top of this environment')
    arguments = parser.parse_args()
    # Two runs at the same time would conflict, so the second waits.
    checkout = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(checkout, fcntl.LOCK_EX)
        if arguments.jazzy_on:
            set_up_jazzy(arguments.environment.absolute(), arguments.jazzy_on.absolute())
        else:
            set_up(arguments.environment.absolute(), arguments.tests)
    except SetupError as error:
        print(f'Error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nInterrupted; the next run continues from here.', file=sys.stderr)
        return 130
    finally:
        os.close(checkout)
    return 0


if __name__ == '__main__':
    sys.exit(main())
