# SPDX-License-Identifier: Apache-2.0
"""The program: its verbs, their common options, and the libraries that they import."""
import argparse
from collections.abc import Callable
import errno
import os
from pathlib import Path
import re
import signal
import subprocess
import sys

from dev import command_help
from forecast_detector_ros.cli import options, program
from forecast_detector_ros.cli.shell import (
    BAD_INPUT,
    command_line,
    DONE,
    FAILURE,
    INTERRUPTED,
    print_result,
    run_verb,
    verb_parser,
    VerbFailedError,
)
from forecast_detector_ros.errors import InputError
import pytest

from ..helpers.slow_import import make_slow, signalled_while_importing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def helps() -> dict[str, str]:
    """Return the help text of every command, by the command."""
    return dict(command_help.helps())


def test_every_help_fits_a_screen(helps: dict[str, str]) -> None:
    assert {f'forecast-detector {verb}' for verb in program.VERBS} <= set(helps)
    for columns, texts in ((command_help.COLUMNS, helps), (80, dict(command_help.helps(80)))):
        for command, text in texts.items():
            lines = text.splitlines()
            assert len(lines) <= 50 and max(map(len, lines)) <= columns, command


def test_documentation_quotes_every_help(helps: dict[str, str]) -> None:
    assert command_help.PAGE.read_text() == command_help.page(helps), \
        'docs/reference/commands.md is behind: python -m dev.command_help'


def test_options_of_one_name_are_equal() -> None:
    """A common option has the same type, help text and default in all commands."""
    alike = ('--checkpoint', '--policy', '--policies', '--score-threshold',
             '--max-consecutive-forecasts', '--max-detections', '--device', '--backend',
             '--precision', '--threads', '--engine', '--jobs', '--latencies', '--quiet', '--json')
    # Help and default of these options depend on the verb, but the type does not.
    checked = ('--nms-threshold', '--min-score', '--ignore-score', '--seed')
    seen: dict[str, set[str]] = {}
    for parser in command_help.parsers():
        for action in parser._actions:
            for option in {*action.option_strings} & {*alike, *checked}:
                kind = action.type if option != '--checkpoint' and option != '--latencies' else ''
                what = re.sub(r' \(default: .*\)| \(the default\)', '', action.help or '')
                default = action.default if action.default != argparse.SUPPRESS else False
                seen.setdefault(option, set()).add(
                    f'{kind} {what} {default}' if option in alike else str(kind))
    assert set(seen) == {*alike, *checked}
    assert {option: texts for option, texts in seen.items() if len(texts) > 1} == {}


def test_every_command_can_be_quiet_and_print_json() -> None:
    for parser in command_help.parsers():
        assert {'--quiet', '--json'} <= set(parser._option_string_actions), parser.prog


def test_every_number_is_checked() -> None:
    """The types `int` and `float` would accept values out of range, such as -1 or NaN."""
    bare = [f'{parser.prog} {action.dest}' for parser in command_help.parsers()
            for action in parser._actions if action.type in (int, float)]
    assert bare == []


@pytest.mark.parametrize(('kind', 'good', 'bad', 'wanted'), [
    (options.fraction, '0.5', ('-0.1', '1.1', 'nan', 'x'), 'must be a number from 0 to 1'),
    (options.positive, '1', ('0', '1.5', 'x'), 'must be an integer of at least 1'),
    (options.seconds, '0', ('-1', 'inf', 'x'), 'must be a number of at least 0'),
    (options.frame_rate, '30', ('0', '1001'), 'must be a number from 0.001 to 1000')])
def test_numbers_of_options(
    kind: Callable[[str], float], good: str, bad: tuple[str, ...], wanted: str,
) -> None:
    assert kind(good) == float(good)
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^is '{text}', {wanted}$"):
            kind(text)


MISTAKES = {
    'demo': ['--video', 'absent.mp4'],
    'replay': ['absent'],
    'report': ['absent.json'],
    'export': ['--checkpoint', 'absent.safetensors'],
    'summary': ['--preset', 'absent'],
    'label': ['.', '--teacher', 'absent.onnx', '--output', 'labels.json'],
    'check-data': ['absent.yaml', '--data', '.'],
    'train': ['absent.yaml', '--data', '.', '--output', 'run'],
    **{f'evaluate {what}': ['--davis', '.', '--checkpoint', 'absent.safetensors']
       for what in ('accuracy', 'horizons', 'streaming', 'static')},
    'benchmark': ['--load', 'absent.json'],
    'compare designs': ['absent.yaml', 'designs.yaml', '--data', '.', '--output', 'run',
                        '--annotations', 'a.json', '--images', '.', '--sequences', 'a'],
    'compare detectors': ['--annotations', 'absent.json', '--checkpoints', 'a=absent.safetensors',
                          '--output', 'run'],
    'figures': ['fig4', '--checkpoint', 'absent.safetensors', '--davis', '.', '--output', 'x'],
    'reproduce': ['absent.yaml', '--data', '.', '--output', 'run', '--annotations', 'a.json',
                  '--images', '.', '--sequences', 'a'],
}


@pytest.mark.parametrize('verb', program.VERBS)
def test_bad_input_of_every_verb_is_one_line_and_exit_code_2(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if verb in MISTAKES:
        assert program.main([*verb.split(), *MISTAKES[verb]]) == BAD_INPUT
        out, err = capsys.readouterr()
        assert out == '' and err.startswith(f'{verb}: ') and err.count('\n') == 1
        assert 'absent' in err
    with pytest.raises(SystemExit) as stop:
        program.main([*verb.split(), '--no-such-option'])
    assert stop.value.code == BAD_INPUT


def test_help_names_every_verb_and_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(['--help']) == DONE
    lines = capsys.readouterr().out.splitlines()
    for name, verb in program.VERBS.items():
        first, _, second = name.partition(' ')
        about = program.FIRST_WORDS.get(first, verb.about)
        assert any(line.split()[:1] == [first] and about in line and second in line
                   for line in lines)
    assert len(lines) <= 40 and max(map(len, lines)) <= 99


@pytest.mark.parametrize('word', program.FIRST_WORDS)
def test_help_of_a_first_word_names_its_verbs(
    word: str, capsys: pytest.CaptureFixture[str],
) -> None:
    assert program.main([word, '--help']) == DONE
    lines = capsys.readouterr().out.splitlines()
    verbs = [name for name in program.VERBS if name.startswith(f'{word} ')]
    assert len(verbs) > 1
    for name in verbs:
        assert any(line.strip().startswith(name) for line in lines)


@pytest.mark.parametrize(('arguments', 'words'), [
    ([], ''), (['tarin'], "no verb 'tarin'"), (['compare'], 'compare designs, compare detectors'),
    (['compare', 'apples'], "no verb 'compare apples'"),
    (['evaluate', 'apples'], 'horizons, evaluate streaming, evaluate static')])
def test_without_a_verb_is_bad_input(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str],
) -> None:
    assert program.main(arguments) == BAD_INPUT
    assert words in capsys.readouterr().err


def test_a_verb_gets_the_arguments_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:

        @staticmethod
        def main(arguments: list[str]) -> int:
            return len(arguments)

    seen = []
    monkeypatch.setattr(program, 'load', lambda verb: seen.append(verb) or Module)
    assert program.main(['train', 'a', '--b']) == 2
    assert program.main(['compare', 'designs', 'a']) == 1
    assert program.main(['evaluate', '--davis', 'x']) == 2
    assert program.main(['evaluate', 'static', 'x']) == 1
    assert program.main(['evaluate']) == 0
    assert seen == ['train', 'compare designs', 'evaluate accuracy', 'evaluate static',
                    'evaluate accuracy']


@pytest.mark.parametrize(('library', 'install'), [
    ('torch', 'forecast_detector_ros[torch]'), ('matplotlib', 'matplotlib'), ('PIL', 'pillow')])
def test_a_library_that_is_missing_is_one_line(
    library: str, install: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load(verb: str) -> None:
        raise ModuleNotFoundError(name=library)

    monkeypatch.setattr(program, 'load', load)
    assert program.main(['replay', 'bag']) == BAD_INPUT
    assert capsys.readouterr() == (
        '', f'replay: needs {library}, which is not installed: pip install {install}\n')


def test_help_imports_nothing_heavy() -> None:
    code = ('import sys; from forecast_detector_ros.cli.program import main; '
            'assert main(["--help"]) == 0; heavy = {"torch", "cv2", "numpy"} & set(sys.modules); '
            'assert not heavy, heavy')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def run(work: object, quiet: bool = False) -> int:
    return run_verb('paint', argparse.Namespace(quiet=quiet), work)  # type: ignore[arg-type]


def raising(error: BaseException) -> object:
    def work(options: argparse.Namespace) -> None:
        raise error
    return work


@pytest.mark.parametrize(('error', 'code', 'line'), [
    (InputError('colour is 7, must be a name'), BAD_INPUT, 'colour is 7, must be a name'),
    (VerbFailedError('it is not dry'), FAILURE, 'it is not dry'),
    (FileNotFoundError(errno.ENOENT, 'No such file', 'x.png'), BAD_INPUT, 'x.png: No such file'),
    (OSError(errno.ENOSPC, 'No space', 'x.png'), FAILURE, 'x.png: No space'),
    (OSError('of its own'), BAD_INPUT, 'of its own'),
    (KeyboardInterrupt(), INTERRUPTED, 'interrupted'),
])
def test_exit_codes_and_lines(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(raising(error)) == code
    assert capsys.readouterr() == ('', f'paint: {line}\n')


def test_work_gives_the_code_or_none() -> None:
    assert run(lambda options: None) == DONE
    assert run(lambda options: FAILURE) == FAILURE
    assert run_verb('paint', argparse.Namespace(quiet=False), raising(ArithmeticError('spilt')),
                    failures=(ArithmeticError,)) == FAILURE


@pytest.mark.parametrize('quiet', [False, True])
def test_one_format_of_the_log_and_quiet(quiet: bool) -> None:
    code = ('import argparse, logging; from forecast_detector_ros.cli.shell import run_verb; '
            'log = logging.getLogger("some"); run_verb("paint", argparse.Namespace('
            f'quiet={quiet}), lambda _: (log.info("how far"), log.warning("wet"), None)[2])')
    told = subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, capture_output=True,
                          text=True).stderr.splitlines()
    assert told[-1].endswith(' WARNING: wet')
    assert [line.partition(' INFO: ')[2] for line in told[:-1]] == ([] if quiet else ['how far'])


def test_common_options_of_all_verbs() -> None:
    parser = verb_parser('paint', 'WALL', 'Paint.\n\nIn colour.')
    assert parser.prog == 'forecast-detector paint'
    assert parser.format_help().startswith(
        'usage: forecast-detector paint WALL [options]\n\nPaint.\n\noptions:')
    assert parser.parse_args(['--quiet']).quiet and not parser.parse_args([]).quiet
    assert parser.parse_args(['--json']).json
    assert command_line('compare designs', ['a b']) == "forecast-detector compare designs 'a b'"


@pytest.mark.parametrize(('json', 'printed'), [
    (True, '{"colour": null, "walls": 2}\n'), (False, 'two walls\n')])
def test_a_result_is_text_or_json(
    json: bool, printed: str, capsys: pytest.CaptureFixture[str],
) -> None:
    print_result(argparse.Namespace(json=json), {'colour': None, 'walls': 2}, 'two walls')
    assert capsys.readouterr() == (printed, '')


def test_shell_completion_has_the_verbs(tmp_path: Path) -> None:
    pytest.importorskip('argcomplete')
    answer = tmp_path / 'answer'
    line = 'forecast-detector re'
    subprocess.run(
        [sys.executable, '-m', 'forecast_detector_ros.cli'], cwd=ROOT, check=True,
        env={**os.environ, '_ARGCOMPLETE': '1', 'COMP_LINE': line, 'COMP_POINT': str(len(line)),
             '_ARGCOMPLETE_IFS': ' ', '_ARGCOMPLETE_STDOUT_FILENAME': str(answer)})
    assert set(answer.read_text().split()) == {'replay', 'report', 'reproduce'}


def test_ctrl_c_works_during_imports(tmp_path: Path) -> None:
    code, said = signalled_while_importing(
        ['-m', 'forecast_detector_ros.cli', 'train'], make_slow(tmp_path, 'torch'), signal.SIGINT)
    assert code == -signal.SIGINT
    assert 'Traceback' not in said


def test_ctrl_c_has_pythons_handler_after_the_imports() -> None:
    before = signal.getsignal(signal.SIGINT)
    program.load('summary')
    assert signal.getsignal(signal.SIGINT) is before
