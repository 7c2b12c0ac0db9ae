# SPDX-License-Identifier: Apache-2.0
"""What is installed, by pip as well as by colcon's ament_python; the rest is in pyproject.toml."""
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'forecast_detector_ros'
SHARE = f'share/{PACKAGE}'

NODES = ('detector_node', 'camera_node', 'recorder_node')
# With a dash for a shell; as `ros2 run` wants names.
PROGRAMS = ('forecast-detector', 'forecast_detector')


def data_tree(folder, pattern='**/*'):
    """Return (target folder, files) pairs that install a folder with its subfolders."""
    targets = {}
    for path in sorted(Path(folder).glob(pattern)):
        if path.is_file() and not path.name.startswith('.'):
            targets.setdefault(f'{SHARE}/{path.parent.as_posix()}', []).append(path.as_posix())
    return list(targets.items())


setup(
    name=PACKAGE,
    version='0.2.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    python_requires='>=3.10',
    package_data={PACKAGE: ['report/templates/*.j2']},
    zip_safe=True,
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (SHARE, ['package.xml']),
        *data_tree('launch', '*.launch.py'),
        *data_tree('config'),
        *data_tree('checkpoints', '*'),
    ],
    entry_points={
        'console_scripts': [
            *(f'{node} = {PACKAGE}.node.{node}:main' for node in NODES),
            *(f'{program} = {PACKAGE}.cli.program:main' for program in PROGRAMS),
        ],
    },
)
