# SPDX-License-Identifier: Apache-2.0
"""Check the set-up of a machine: stages, error messages and the package of ROS messages."""
from collections.abc import Callable
import os
from pathlib import Path
import subprocess
import sys

from dev.bootstrap import machine, vision_msgs
from dev.bootstrap.environment import Environment
from dev.bootstrap.machine import SetupError
from dev.bootstrap.stages import run_stages, Stage
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., Stage]:
    """Return a function that makes stages; a stage notes its runs in `runs`."""
    def make(name: str, run: Callable[[], None] | None = None) -> Stage:
        source = tmp_path / f'{name}.txt'
        if not source.exists():
            source.write_text('first')
        runs = tmp_path / 'runs'

        def note() -> None:
            with runs.open('a') as output:
                output.write(f'{name}\n')

        return Stage(name, name, (source,), run or note)
    return make


def test_stages_run_once(tmp_path: Path, stage: Callable[..., Stage]) -> None:
    stages = [stage('a'), stage('b')]
    assert run_stages(stages, tmp_path / 'stamps') == ['a', 'b']
    assert run_stages(stages, tmp_path / 'stamps') == []
    assert (tmp_path / 'runs').read_text() == 'a\nb\n'


def test_stage_runs_again_when_its_input_changes(
    tmp_path: Path, stage: Callable[..., Stage],
) -> None:
    stages = [stage('a'), stage('b')]
    run_stages(stages, tmp_path / 'stamps')
    (tmp_path / 'b.txt').write_text('second')
    assert run_stages(stages, tmp_path / 'stamps') == ['b']


def test_interrupted_stage_is_resumed(tmp_path: Path, stage: Callable[..., Stage]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    stamps = tmp_path / 'stamps'
    with pytest.raises(KeyboardInterrupt):
        run_stages([stage('a'), stage('b', interrupt), stage('c')], stamps)
    assert run_stages([stage('a'), stage('b'), stage('c')], stamps) == ['b', 'c']


def test_failed_run_forgets_the_earlier_success(
    tmp_path: Path, stage: Callable[..., Stage],
) -> None:
    def fail() -> None:
        raise SetupError('no network')

    stamps = tmp_path / 'stamps'
    run_stages([stage('a')], stamps)
    (tmp_path / 'a.txt').write_text('second')
    with pytest.raises(SetupError):
        run_stages([stage('a', fail)], stamps)
    (tmp_path / 'a.txt').write_text('first')
    assert run_stages([stage('a')], stamps) == ['a']


def run_bootstrap(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up into a folder with the system's Python, as a user does."""
    python = Path(sys.base_prefix) / 'bin' / 'python3'
    return subprocess.run(
        [python, '-m', 'dev.bootstrap', folder], cwd=ROOT, env={**os.environ, **variables},
        capture_output=True, text=True, check=False)


@pytest.mark.skipif('ROS_DISTRO' in os.environ, reason='nothing is compiled where ROS 2 is')
def test_missing_compiler_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    result = run_bootstrap(tmp_path / 'environment', PATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == (
        'Error: cc, c++, make not found: sudo apt-get install build-essential\n')
    assert not (tmp_path / 'environment').exists()


def test_half_sourced_ros_is_one_line(tmp_path: Path) -> None:
    result = run_bootstrap(tmp_path / 'environment', ROS_DISTRO='nowhere', PYTHONPATH='')
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert 'nowhere' in line


def test_missing_ros_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        machine, 'ROS_MODULES', {'rclpy': 'rclpy', 'no_such_messages': 'no-such-messages'})
    with pytest.raises(SetupError, match='apt-get install ros-jazzy-no-such-messages$'):
        machine.require_ros_modules('jazzy')


def test_missing_venv_module_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.importlib.util, 'find_spec', lambda module: None)
    with pytest.raises(SetupError, match='sudo apt-get install python3-venv'):
        machine.require_python()


def test_missing_python_is_one_line_with_the_remedy() -> None:
    result = subprocess.run(
        ['make', 'setup', 'PYTHON=no-such-python'], cwd=ROOT, capture_output=True, text=True,
        check=False)
    assert result.returncode != 0
    line, _make = result.stderr.splitlines()
    assert line == ('Error: no-such-python not found: '
                    'sudo apt-get install python3 python3-venv')


@pytest.mark.parametrize('code, words', [
    ('raise SystemExit(1)', 'failed, see above'),
    ('import os; os.kill(os.getpid(), 9)', 'was ended by SIGKILL')])
def test_failed_and_killed_pip_have_different_messages(
    tmp_path: Path, code: str, words: str,
) -> None:
    python = tmp_path / 'bin' / 'python'
    python.parent.mkdir()
    python.write_text(f'#!{sys.executable}\n{code}\n')
    python.chmod(0o755)
    with pytest.raises(SetupError, match=f'installing some.txt {words}; the next run continues'):
        Environment(tmp_path).install(tmp_path / 'some.txt', ())


@pytest.mark.parametrize('version', [(3, 9, 0), (3, 14, 0)])
def test_unsupported_python_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int],
) -> None:
    monkeypatch.setattr(sys, 'version_info', version)
    with pytest.raises(SetupError, match=r'Python 3\.10 to 3\.13 is needed'):
        machine.require_python()


def test_other_processors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.platform, 'machine', lambda: 'aarch64')
    with pytest.raises(SetupError, match='this is Linux on aarch64'):
        machine.require_wheel_platform()


def test_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, 'NEEDED_DISK_BYTES', 10**18)
    with pytest.raises(SetupError, match='GB free'):
        machine.require_disk(tmp_path)


def test_missing_headers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sysconfig, 'get_paths', lambda: {'include': str(tmp_path)})
    monkeypatch.setattr(machine.shutil, 'which', lambda program: None)
    with pytest.raises(SetupError, match='apt-get install python3-dev'):
        machine.python_headers(tmp_path / 'scratch')


def test_half_copied_package_is_forgotten(tmp_path: Path) -> None:
    site_packages = tmp_path / 'lib/python3.11/site-packages'
    whole, half = site_packages / 'whole-1.dist-info', site_packages / 'half-1.dist-info'
    for description in (whole, half):
        description.mkdir(parents=True)
        (description / 'METADATA').touch()
    (whole / 'RECORD').touch()
    Environment(tmp_path).drop_half_installed()
    assert whole.is_dir()
    assert not half.exists()


@pytest.mark.slow
def test_moved_environment_is_not_usable(tmp_path: Path) -> None:
    made = Environment(tmp_path / 'made')
    assert not made.is_usable()
    made.create(with_system_packages=False)
    assert made.is_usable()
    made.folder.rename(tmp_path / 'moved')
    assert not Environment(tmp_path / 'moved').is_usable()


def test_builder_paths_in_cmake_files_are_mended(tmp_path: Path) -> None:
    folder = tmp_path / 'share/std_msgs/cmake'
    folder.mkdir(parents=True)
    export = folder / 'export.cmake'
    export.write_text(
        'DIRS "${_IMPORT_PREFIX}/include;/opt/python/cp312-cp312/include/python3.12;'
        '/opt/python/cp312-cp312/lib/python3.12/site-packages/numpy/_core/include"\n')
    share, python, numpy = tmp_path / 'share', Path('/usr/include/python3.12'), Path('/np/include')
    assert vision_msgs.mend_cmake_files(share, python, numpy) == 1
    assert export.read_text() == (
        'DIRS "${_IMPORT_PREFIX}/include;/usr/include/python3.12;/np/include"\n')
    assert vision_msgs.mend_cmake_files(share, python, numpy) == 0


def test_requirements_are_pinned() -> None:
    lines = [
        line for path in (ROOT / 'dev').glob('*.txt') if not path.name.startswith('apt')
        for line in path.read_text().splitlines() if line and not line.startswith('#')
    ]
    assert lines
    assert [line for line in lines if '==' not in line.split(';')[0]] == []


def test_detection_messages_have_the_type_hash_of_the_real_package(ros_domain: int) -> None:
    import rclpy
    from vision_msgs.msg import Detection2DArray

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    try:
        node = rclpy.create_node('talker', context=context)
        node.create_publisher(Detection2DArray, 'detections', 10)
        (endpoint,) = node.get_publishers_info_by_topic('detections')
        found = endpoint.topic_type_hash
        node.destroy_node()
    finally:
        context.try_shutdown()
    assert f'RIHS{found.version:02d}_{bytes(found.value).hex()}' == vision_msgs.TYPE_HASH
