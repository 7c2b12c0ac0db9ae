# SPDX-License-Identifier: Apache-2.0
"""Generate vision_msgs into a virtual environment that has the rosidl wheels."""
from __future__ import annotations

import json
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

from dev.bootstrap.environment import Environment
from dev.bootstrap.machine import python_headers, SetupError

SOURCES = Path(__file__).resolve().parent.parent / 'vision_msgs'

#: Type hash (REP 2016) of vision_msgs/msg/Detection2DArray in vision_msgs 4.1.1. It covers every
#: message in the type. Messages can be exchanged with the real package if the hash is the same.
TYPE_NAME = 'vision_msgs/msg/Detection2DArray'
TYPE_HASH = 'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968'

#: The wheels' CMake files name include folders of the machine that built them.
BUILDER_INCLUDE = re.compile(r'/opt/python/[^;"]*?/include/python3\.\d+')
BUILDER_NUMPY_INCLUDE = re.compile(r'/opt/python/[^;"]*?/site-packages/numpy/_core/include')


def mend_cmake_files(share: Path, python_include: Path, numpy_include: Path) -> int:
    """
    Point the include folders in the wheels' CMake files to this machine's.

    :param share: folder `share` of the environment.
    :returns: the number of files that were changed.
    """
    changed = 0
    for path in sorted(share.glob('*/cmake/*.cmake')):
        text = path.read_text()
        mended = BUILDER_INCLUDE.sub(str(python_include), text)
        mended = BUILDER_NUMPY_INCLUDE.sub(str(numpy_include), mended)
        if mended != text:
            # A new file, because the old one may be a hard link to pip's cache.
            unfinished = path.with_suffix('.part')
            unfinished.write_text(mended)
            os.replace(unfinished, path)
            changed += 1
    return changed


def type_hash(share: Path) -> str:
    """
    Return the hash of Detection2DArray that rosidl computed when it generated the package.

    :param share: folder `share` of the environment.
    """
    description = json.loads((share / 'vision_msgs/msg/Detection2DArray.json').read_text())
    hashes = {entry['type_name']: entry['hash_string'] for entry in description['type_hashes']}
    return str(hashes[TYPE_NAME])


def run_logged(command: list[str], log: Path, environment: dict[str, str]) -> None:
    """Run a command with its output in a file; if it fails, print the output's end and raise."""
    with log.open('a') as output:
        result = subprocess.run(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False)
    if result.returncode:
        print('\n'.join(log.read_text().splitlines()[-30:]), file=sys.stderr)
        raise SetupError(f'vision_msgs was not built, see {log}')


def generate(environment: Environment) -> None:
    """
    Build vision_msgs and install it into an environment.

    :raises SetupError: if the build fails or gives another type hash.
    """
    prefix = environment.folder
    build = environment.work / 'vision_msgs'
    log = environment.work / 'vision_msgs.log'
    shutil.rmtree(build, ignore_errors=True)
    log.unlink(missing_ok=True)

    python_include = python_headers(environment.work / 'python-headers')
    numpy_include = Path(environment.evaluate('numpy.get_include()', imports='numpy'))
    site_packages = Path(environment.evaluate('sysconfig.get_path("purelib")', 'sysconfig'))
    mend_cmake_files(prefix / 'share', python_include, numpy_include)
    variables = {
        **os.environ,
        'AMENT_PREFIX_PATH': str(prefix),
        'CMAKE_PREFIX_PATH': str(prefix),
        'PATH': f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}",
        # Debian's pyconfig.h includes another file by its path below usr/include.
        'CPATH': str(python_include.parent),
    }
    cmake = str(prefix / 'bin' / 'cmake')
    run_logged([
        cmake, '-S', str(SOURCES), '-B', str(build), '-G', 'Unix Makefiles',
        '-DCMAKE_BUILD_TYPE=Release', '-DBUILD_TESTING=OFF',
        f'-DCMAKE_INSTALL_PREFIX={prefix}',
        f'-DPython3_EXECUTABLE={environment.python}',
        f'-DPython3_INCLUDE_DIR={python_include}',
        f'-DPYTHON_INSTALL_DIR={site_packages.relative_to(prefix)}',
    ], log, variables)
    jobs = str(os.cpu_count() or 1)
    run_logged([cmake, '--build', str(build), '--parallel', jobs], log, variables)
    run_logged([cmake, '--install', str(build)], log, variables)
    shutil.rmtree(build)

    found = type_hash(prefix / 'share')
    if found != TYPE_HASH:
        raise SetupError(
            f'{TYPE_NAME} has the type hash {found}, vision_msgs 4.1.1 has {TYPE_HASH}: '
            f'the definitions in {SOURCES} differ from it')
