# SPDX-License-Identifier: Apache-2.0
"""Compare the package's metadata files with each other and with the built package."""
import ast
from importlib.metadata import Distribution, distribution, version
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import venv
import zipfile

from catkin_pkg.package import Package, parse_package
import cv2
import numpy as np
from packaging.requirements import Requirement
import pytest

from .helpers.bags import jpeg_message, write_bag

ROOT = Path(__file__).resolve().parents[1]
NAME = 'forecast_detector_ros'
SOURCES = (
    'LICENSE', 'README.md', 'package.xml', 'pyproject.toml', 'setup.cfg', 'setup.py',
    'checkpoints', 'config', 'dev', 'launch', 'resource', NAME,
)

#: Rooms that nodes and launch files import from, modules beside the rooms, and launch files.
ROBOT = ('node', 'recording', 'detector', 'images', 'model', '*.py', '../launch')

#: rosdep keys of modules whose key differs from their name. None: there is no key, or the module
#: is an extra that is imported where it is used; its absence is an error of one line.
ROSDEP_KEYS = {
    'cv2': 'python3-opencv',
    'numpy': 'python3-numpy',
    'onnx': None,
    'onnxruntime': None,
    'openvino': None,
    'rosbags': 'python3-rosbags-pip',
    'safetensors': None,
    'torch': 'python3-pytorch-pip',
    'torchvision': 'python3-torchvision-pip',
    'trackeval': None,
    'yaml': 'python3-yaml',
}


@pytest.fixture(scope='module')
def manifest() -> Package:
    """Return the parsed package.xml."""
    return parse_package(str(ROOT / 'package.xml'))


@pytest.fixture
def source_copy(tmp_path: Path) -> Path:
    """Copy the package into a new workspace, so that builds leave the checkout unchanged."""
    package = tmp_path / 'src' / NAME
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, package / name, ignore=shutil.ignore_patterns('__pycache__'))
        elif source.is_file():
            package.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, package)
    return package


def imported_modules() -> set[str]:
    """Return the top-level names of the modules that nodes or launch files import."""
    names = set()
    for place in ROBOT:
        folder = ROOT / NAME / place
        for path in (ROOT / NAME).glob(place) if '*' in place else folder.rglob('*.py'):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split('.')[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    names.add(node.module.split('.')[0])
    return names - sys.stdlib_module_names - {NAME}


def test_manifest_is_valid_ament_python(manifest: Package) -> None:
    warnings: list[str] = []
    manifest.validate(warnings=warnings)
    assert warnings == []
    assert manifest.name == NAME
    assert manifest.package_format == 3
    assert manifest.get_build_type() == 'ament_python'
    assert manifest.licenses[0] == 'Apache-2.0' and manifest.licenses[1].startswith('Weights')
    assert all((ROOT / licence.file).is_file() for licence in manifest.licenses)
    assert 'example.com' not in (ROOT / 'package.xml').read_text()


def test_versions_agree(manifest: Package) -> None:
    assert version(NAME) == manifest.version
    assert f'\n{manifest.version} (' in (ROOT / 'CHANGELOG.rst').read_text()


def test_pip_installs_pytorch_only_on_request() -> None:
    tomllib = pytest.importorskip('tomllib')
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    extras = project['optional-dependencies']
    heavy = {'torch', 'torchvision'}
    for light in (project['dependencies'], extras['openvino'], extras['onnxruntime']):
        assert light and not heavy & {*light}
    for extra in ('torch', 'train'):
        assert heavy <= {*extras[extra]}


def test_manifest_names_what_the_robot_imports(manifest: Package) -> None:
    declared = {dependency.name for dependency in manifest.exec_depends}
    needed = {ROSDEP_KEYS.get(module, module) for module in imported_modules()} - {None}
    assert needed == declared


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the package's wheel in a folder and return its path."""
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
         '--wheel-dir', folder, source], check=True)
    (wheel,) = folder.glob('*.whl')
    return wheel


def required(package: Distribution, extras: set[str]) -> set[str]:
    """Return the direct and indirect dependencies of a package with some extras."""
    found, waiting = set(), [(package, extras)]
    while waiting:
        one, its_extras = waiting.pop()
        for line in one.requires or []:
            need = Requirement(line)
            wanted = need.marker is None or any(
                need.marker.evaluate({'extra': extra}) for extra in {'', *its_extras})
            if wanted and need.name not in found:
                found.add(need.name)
                waiting.append((distribution(need.name), set(need.extras)))
    return found


@pytest.mark.slow
def test_wheel_brings_what_the_first_example_needs(source_copy: Path, tmp_path: Path) -> None:
    """The example runs in an environment of only the wheel and its declared dependencies."""
    wheel = build_wheel(source_copy, tmp_path)
    place = tmp_path / 'environment'
    venv.create(place, symlinks=True)
    python = place / 'bin' / 'python'
    subprocess.run([sys.executable, '-m', 'pip', '--python', python, 'install', '--quiet',
                    '--no-deps', '--no-index', wheel], check=True)
    (packages,) = place.glob('lib/*/site-packages')
    (metadata,) = packages.glob(f'{NAME}-*.dist-info')
    names = required(Distribution.at(metadata), {'openvino'})
    assert 'openvino' in names and 'torch' not in names
    # Links replace a download. Undeclared packages are not linked, so they cannot be imported.
    for name in names:
        here = distribution(name)
        for top in {file.parts[0] for file in here.files or []} - {'..', '__pycache__'}:
            if not (packages / top).exists():
                (packages / top).symlink_to(here.locate_file(top))
    writer = cv2.VideoWriter(str(tmp_path / 'clip.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 10.0,
                             (64, 48))
    for _ in range(6):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    page = (ROOT / 'docs' / 'guide' / 'python.md').read_text()
    example = page.partition('```python\n')[2].partition('```')[0]
    environment = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}

    def run(code: str) -> str:
        result = subprocess.run([python, '-c', code], cwd=tmp_path, env=environment,
                                capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert 'torch' not in run('import pkgutil; print([m.name for m in pkgutil.iter_modules()])')
    assert str(packages) in run(f'import {NAME}; print({NAME}.__file__)')
    lines = run(example).splitlines()
    assert len(lines) == 6 and lines[0].startswith('read ')

    def verb(*arguments: object) -> str:
        result = subprocess.run([place / 'bin' / 'forecast-detector', *map(str, arguments)],
                                cwd=tmp_path, env=environment, capture_output=True, text=True,
                                check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert verb('--help').startswith('usage: forecast-detector VERB')
    write_bag(tmp_path / 'bag', {'/camera': [jpeg_message(0), jpeg_message(1)]})
    assert 'images: 2, of which ' in verb('replay', 'bag')
    sequence = tmp_path / 'davis' / 'walk'
    sequence.mkdir(parents=True)
    cv2.imwrite(str(sequence / '0.png'), np.zeros((48, 64, 3), np.uint8))
    (sequence / 'boxes.json').write_text(json.dumps({
        'category': 'person', 'width': 64, 'height': 48,
        'frames': [{'file': '0.png', 'box_xywh': [9, 9, 20, 30]}] * 2}))
    result = json.loads(verb('evaluate', 'accuracy', '--davis', 'davis', '--json'))
    assert result['frames'] == 2 and result['machine']['backend'] == 'openvino'


def test_wheel_holds_what_is_used_at_run_time(source_copy: Path, tmp_path: Path) -> None:
    wheel = build_wheel(source_copy, tmp_path)
    share = f"{wheel.name.split('-py3')[0]}.data/data/share"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        programs = archive.read(
            f"{wheel.name.split('-py3')[0]}.dist-info/entry_points.txt").decode().splitlines()
    expected = {
        path.relative_to(ROOT).as_posix()
        for folder in ('checkpoints', 'config', 'launch') for path in (ROOT / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts and not path.name.startswith('.')
    } | {'package.xml'}
    assert {f'{share}/{NAME}/{name}' for name in expected} <= names
    assert f'{share}/ament_index/resource_index/packages/{NAME}' in names
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / NAME).rglob('*.py')}
    modules |= {path.relative_to(ROOT).as_posix() for path in (ROOT / NAME).rglob('*.j2')}
    assert modules <= names
    assert {line.split(' = ')[0] for line in programs if ' = ' in line} == {
        'detector_node', 'camera_node', 'recorder_node', 'forecast-detector', 'forecast_detector'}
    targets = [line.split(' = ')[1] for line in programs if ' = ' in line]
    assert targets
    for target in targets:
        module, function = target.split(':')
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        assert function in {
            node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, target


@pytest.mark.slow
def test_colcon_builds_it_as_ament_python(source_copy: Path) -> None:
    workspace = source_copy.parents[1]
    environment = {
        **os.environ,
        'PATH': f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        'COLCON_HOME': str(workspace / 'colcon'),
    }

    def colcon(*arguments: str) -> str:
        result = subprocess.run(
            ['colcon', *arguments], cwd=workspace, env=environment, capture_output=True,
            text=True, check=False)
        assert result.returncode == 0, f'{result.stdout}\n{result.stderr}'
        return result.stdout

    # `ros2 launch` finds the package only with this type; vision_msgs must stay hidden.
    assert colcon('list').split() == [NAME, f'src/{NAME}', '(ros.ament_python)']
    colcon('build')

    installed = workspace / 'install' / NAME
    share = installed / 'share' / NAME
    assert (installed / 'share/ament_index/resource_index/packages' / NAME).is_file()
    assert (share / 'package.xml').is_file()
    for folder in ('config', 'launch'):
        built = {path.name for path in (share / folder).rglob('*') if path.is_file()}
        assert built == {
            path.name for path in (source_copy / folder).rglob('*') if path.is_file()}
    for program in ('detector_node', 'forecast_detector'):
        assert os.access(installed / 'lib' / NAME / program, os.X_OK)
