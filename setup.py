# SPDX-License-Identifier: Apache-2.0
"""Build description, for pip as well as for colcon's ament_python."""
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'forecast_detector_ros'
SHARE = f'share/{PACKAGE}'

PROGRAMS = {
    'node': ('detector_node', 'camera_node', 'recorder_node'),
    'cli': ('demo', 'train', 'evaluate', 'replay_bag', 'report', 'label', 'check_data',
            'export', 'model_summary', 'reproduce', 'paper_figures', 'benchmark',
            'benchmark_evaluator', 'compare_designs', 'compare_detectors'),
}


def data_tree(folder, pattern='**/*'):
    """Return (target folder, files) pairs that install a folder with its subfolders."""
    targets = {}
    for path in sorted(Path(folder).glob(pattern)):
        if path.is_file() and not path.name.startswith('.'):
            targets.setdefault(f'{SHARE}/{path.parent.as_posix()}', []).append(path.as_posix())
    return list(targets.items())


setup(
    name=PACKAGE,
    version='0.1.0',
    description='Object detection in video that forecasts features instead of reading every frame',
    license='Apache-2.0',
    author='forecast_detector_ros developers',
    author_email='forecast_detector_ros@example.com',
    maintainer='forecast_detector_ros developers',
    maintainer_email='forecast_detector_ros@example.com',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['report/templates/*.j2']},
    python_requires='>=3.10',
    install_requires=['setuptools'],
    # `test` tells colcon which test runner to take.
    extras_require={
        'evaluation': ['hotcoco', 'scipy'], 'onnxruntime': ['onnx', 'onnxruntime'],
        'openvino': ['onnx', 'openvino'], 'tensorboard': ['tensorboard'], 'test': ['pytest'],
        'tracking': ['scipy', 'trackeval']},
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
            f'{program} = {PACKAGE}.{room}.{program}:main'
            for room, programs in PROGRAMS.items()
            for program in programs
        ],
    },
)
