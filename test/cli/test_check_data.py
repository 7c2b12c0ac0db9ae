# SPDX-License-Identifier: Apache-2.0
"""The command `check_data`: its lines and exit codes."""

import json
from pathlib import Path
import re

from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.cli import check_data
import pytest

RECIPE = Path(__file__).parents[2] / 'config/training/synthetic.yaml'


@pytest.fixture
def data(tmp_path):
    """Write three synthetic videos; return the annotation file."""
    return write_synthetic_videos(tmp_path, seed=2, videos=3, frames=6, objects=4)


def change(path, function):
    document = json.loads(path.read_text())
    function(document)
    path.write_text(json.dumps(document))


def test_a_clean_recipe(data, capsys):
    assert check_data.main([str(RECIPE), '--data', str(data.parent)]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[0] == 'class     videos  frames  boxes  cut-outs  median side'
    assert [line.split()[0] for line in output[2:5]] == list(CLASSES)
    assert output[-1] == '0 problems, 0 remarks'
    document = json.loads(data.read_text())
    boxes = [sum(entry['category_id'] == key for entry in document['annotations'])
             for key in (1, 2, 3)]
    assert [int(line.split()[3]) for line in output[2:5]] == boxes


def test_exact_lines_for_one_file(data, capsys):
    def spoil(document):
        document['annotations'][0]['bbox'] = [3, 4, 0, 9]
        document['annotations'][1]['bbox'] = [130, 4, 60, 50]
        document['annotations'][2]['category_id'] = 8
        document['categories'].append({'id': 4, 'name': 'star'})

    change(data, spoil)
    root = data.parent
    (root / 'synthetic-001/000003.jpg').unlink()
    (root / 'synthetic-002/000002.jpg').write_bytes(b'')
    code = check_data.main(['--annotations', str(data), '--images', str(root)])
    output = capsys.readouterr().out.splitlines()
    assert code == 1
    assert output[:output.index('')] == [
        f'problem: missing file: {data}: images[8]: no file {root}/synthetic-001/000003.jpg',
        f'problem: broken picture: {root}/synthetic-002/000002.jpg: not a picture (or its header '
        'is broken)',
        f'problem: unknown category: {data}: annotations[2]: category_id 8 is not in categories',
        f'problem: box without area: {data}: annotations[0]: box without area, 0 x 9',
        'remark: class without boxes: star: no box in any source',
        f'remark: box beyond the picture: {data}: annotations[1]: box from (130, 4) to (190, 54) '
        'reaches beyond the 160x120 picture and is cut']
    assert output[-1] == '4 problems, 2 remarks'


def test_classes_can_be_named(data, capsys):
    assert check_data.main(['--annotations', str(data), '--images', str(data.parent),
                            '--classes', 'disc']) == 0
    output = capsys.readouterr().out
    assert re.search(r'^remark: category not trained: .* square is no class to train; its \d+ '
                     'boxes are ignored$', output, re.MULTILINE)


def test_true_boxes_are_laid_over(data, tmp_path, capsys):
    document = json.loads(data.read_text())
    picture = document['images'][0] | {'labels': ['disc', 'square', 'triangle']}
    gone = sum(entry['image_id'] == picture['id'] for entry in document['annotations'])
    truth = tmp_path / 'truth.json'
    truth.write_text(json.dumps({
        'images': [picture], 'categories': document['categories'],
        'annotations': [{'image_id': picture['id'], 'category_id': 1, 'bbox': [9, 9, 50, 40]}]}))
    arguments = ['--annotations', str(data), '--images', str(data.parent), '--truth', str(truth)]
    assert check_data.main(arguments) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if ' + ' in line)
    assert row.startswith(f'{data} + {truth}')
    assert int(row.split()[8]) == len(document['annotations']) - gone + 1
    truth.write_text(truth.read_text().replace('"disc", ', '"dsic", '))
    assert check_data.main(arguments) == 1
    assert f'problem: broken entry: {truth}: ' in capsys.readouterr().out


def test_decoding_finds_what_the_header_hides(data, capsys):
    picture = data.parent / 'synthetic-000/000001.jpg'
    content = picture.read_bytes()
    arguments = ['--annotations', str(data), '--images', str(data.parent)]
    # The file keeps its header and loses its image data.
    picture.write_bytes(content[:content.index(b'\xff\xda')])
    assert check_data.main(arguments) == 0
    capsys.readouterr()
    assert check_data.main([*arguments, '--decode']) == 1
    assert f'problem: broken picture: {picture}: not a picture' in capsys.readouterr().out


def test_lines_are_capped(data, capsys):
    def spoil(document):
        for entry in document['annotations'][:5]:
            entry['bbox'][2] = 0

    change(data, spoil)
    arguments = ['--annotations', str(data), '--images', str(data.parent), '--max-lines', '3']
    assert check_data.main(arguments) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if 'without area' in line]
    assert len(lines) == 4 and lines[-1] == 'problem: box without area: 2 more'


def test_a_missing_source_is_exit_code_2(tmp_path, capsys):
    assert check_data.main([str(RECIPE), '--data', str(tmp_path)]) == 2
    output = capsys.readouterr().out.splitlines()
    assert output[0] == (f'unreadable: source: {tmp_path}/annotations.json: cannot be read: No '
                         'such file or directory')
    assert output[1:] == ['', '1 unreadable, 0 problems, 0 remarks']


@pytest.mark.parametrize('recipe, words', [
    (None, 'recipe.yaml: no such file'), ('name: [', 'cannot be read as YAML'),
    ('name: a', 'classes is missing')])
def test_an_invalid_recipe_is_one_line(tmp_path, capsys, recipe, words):
    path = tmp_path / 'recipe.yaml'
    if recipe is not None:
        path.write_text(recipe)
    assert check_data.main([str(path), '--data', str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'check-data: {path}: ') and words in error
    assert error.count('\n') == 1


def test_an_invalid_annotation_file_is_one_line(tmp_path, capsys):
    assert check_data.main(['--annotations', str(tmp_path / 'a.json'), '--images', '.']) == 2
    assert capsys.readouterr().err == (f'check-data: {tmp_path}/a.json: cannot be read: No such '
                                       'file or directory\n')


@pytest.mark.parametrize('arguments', [
    [], ['recipe.yaml'], ['--annotations', 'a.json'], ['--images', 'b'],
    ['recipe.yaml', '--data', 'a', '--images', 'b'],
    ['--data', 'a', '--annotations', 'a.json', '--images', 'b']])
def test_arguments_that_exclude_each_other(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        check_data.main(arguments)
    assert caught.value.code == 2
    assert 'check-data: error: ' in capsys.readouterr().err


def test_without_a_terminal_there_is_no_bar(data, capsys):
    check_data.main([str(RECIPE), '--data', str(data.parent)])
    assert capsys.readouterr().err == ''


def test_the_bar_passes_its_items_on(capsys):
    pytest.importorskip('rich')
    assert list(check_data._progress(True)(iter('abc'), 3, 'letters')) == ['a', 'b', 'c']
    assert 'letters' in capsys.readouterr().err


def test_recipe_of_motion_needs_a_track(data, tmp_path, capsys):
    adapt = RECIPE.with_name('adapt.yaml')
    recipe = tmp_path / 'motion.yaml'
    recipe.write_text(f"""
extends: {adapt}
classes: [disc, square, triangle]
sources: [{{annotations: {data.name}, images: ., kind: video}}]
""")
    assert check_data.main([str(recipe), '--data', str(data.parent)]) == 1
    assert 'needs videos with a track_id' in capsys.readouterr().out
    assert check_data.main([str(RECIPE), '--data', str(data.parent)]) == 0
    change(data, lambda document: document['annotations'][0].update(track_id=3))
    assert check_data.main([str(recipe), '--data', str(data.parent)]) == 0
    data.unlink()
    capsys.readouterr()
    assert check_data.main([str(recipe), '--data', str(data.parent)]) == 2
    assert 'track_id' not in capsys.readouterr().out


def test_sources_of_the_validation_are_checked_too(data, tmp_path, capsys):
    recipe = tmp_path / 'validated.yaml'
    recipe.write_text(f"""
extends: {RECIPE}
validation: {{sources: [{{annotations: gone.json, images: ., kind: video}}]}}
""")
    assert check_data.main([str(recipe), '--data', str(data.parent)]) == 2
    assert 'gone.json' in capsys.readouterr().out


@pytest.mark.parametrize('option', [('--classes', 'cat'), ('--min-score', '0.5'), ('--outside',),
                                    ('--list', 'x.txt'), ('--split', 'val')])
def test_options_of_one_source_are_refused_beside_a_recipe(data, capsys, option):
    with pytest.raises(SystemExit) as ended:
        check_data.main([str(RECIPE), '--data', str(data.parent), *option])
    assert ended.value.code == 2 and f'{option[0]} is for one source' in capsys.readouterr().err
