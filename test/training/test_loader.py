# SPDX-License-Identifier: Apache-2.0
"""Training data of a recipe: formats of sources, and the cache of decoded frames."""

from dataclasses import replace
import re

import cv2
from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.training.config import load_recipe
from forecast_detector_ros.training.loader import ClipLoader, load_sources, picture_weights
import numpy as np
import pytest
import yaml


@pytest.fixture
def vid_root(tmp_path):
    """Write two snippets of 6 frames, 64x64 pixels: one with a dog, the other with a horse."""
    for name, wnid in (('dogs', 'n02084071'), ('horses', 'n02374451')):
        for folder in ('Data', 'Annotations'):
            (tmp_path / folder / 'train' / name).mkdir(parents=True)
        for number in range(6):
            stem = f'train/{name}/{number:06d}'
            picture = tmp_path / 'picture.jpg'
            cv2.imwrite(str(picture), np.full((64, 64, 3), 40 * number, np.uint8))
            picture.rename(tmp_path / f'Data/{stem}.JPEG')
            (tmp_path / f'Annotations/{stem}.xml').write_text(
                '<annotation><size><width>64</width><height>64</height></size><object>'
                f'<trackid>0</trackid><name>{wnid}</name><bndbox><xmin>4</xmin><ymin>8</ymin>'
                '<xmax>43</xmax><ymax>47</ymax></bndbox></object></annotation>')
    (tmp_path / 'list.txt').write_text('train/dogs 1 1 6\ntrain/horses 1 1 6\ntrain/dogs 1 4 6\n')
    return tmp_path


@pytest.fixture
def load(tmp_path, recipe_values):
    """Return a function that makes a recipe with one source of VID."""
    def function(cache='none', **source):
        path = tmp_path / 'recipe.yaml'
        path.write_text(yaml.safe_dump({
            **recipe_values, 'classes': ['dog', 'horse'], 'cache': cache,
            'sources': [{'annotations': 'Annotations', 'images': 'Data',
                         'format': 'imagenet_vid', **source}]}))
        return load_recipe(path)
    return function


def test_clips_of_whole_snippets_and_single_frames_of_the_list(vid_root, load):
    recipe = load(list_file='list.txt')
    sources = load_sources(recipe, vid_root)
    assert [len(video.frames) for video in sources.videos] == [6, 6]
    batch = next(ClipLoader(sources, recipe, recipe.stages[1]).epoch(0))
    assert batch.images.shape == (4, 4, 3, 64, 64)
    recipe = load(list_file='list.txt', frames='listed')
    sources = load_sources(recipe, vid_root)
    assert [len(video.frames) for video in sources.videos] == [2, 1]
    batch = next(ClipLoader(sources, recipe, recipe.stages[0]).epoch(0))
    assert batch.images.shape == (4, 1, 3, 64, 64)


@pytest.mark.parametrize('cache, kept', [('memory', True), ('none', False)])
def test_frames_are_kept_or_not(vid_root, load, cache, kept, caplog):
    with caplog.at_level('INFO'):
        sources = load_sources(load(cache), vid_root)
    frame = sources.videos[0].frames[0]
    assert f'2 videos with 12 frames, 0 stills, 0 cut-outs; {0:.1f} GB' in caplog.text
    first, second = sources.reader.read(frame), sources.reader.read(frame)
    np.testing.assert_array_equal(first, second)
    assert (first is second) == kept


def test_unused_cutouts_are_logged(recipe_file, data_root, tmp_path, caplog):
    (tmp_path / 'yellow').mkdir()
    cv2.imwrite(str(tmp_path / 'yellow/one.png'), np.full((8, 8, 4), 255, np.uint8))
    recipe = replace(load_recipe(recipe_file), cutouts=str(tmp_path))
    assert len(load_sources(recipe, data_root).cutouts) == 1 and not caplog.messages
    load_sources(replace(recipe, cache='device'), data_root)
    assert caplog.messages == [
        f'cutouts: {tmp_path} is not used: with cache: device nothing is pasted']


@pytest.mark.parametrize('workers', [0, 1])
def test_a_frame_that_cannot_be_read_is_one_line(vid_root, load, workers):
    recipe = replace(load(), workers=workers)
    sources = load_sources(recipe, vid_root)
    for name in ('dogs', 'horses'):
        (vid_root / f'Data/train/{name}/000003.JPEG').write_bytes(b'no picture')
    with pytest.raises(DataError) as caught:
        list(ClipLoader(sources, recipe, recipe.stages[1]).epoch(0))
    assert re.fullmatch(rf'{re.escape(str(vid_root))}/Data/train/(dogs|horses)/000003\.JPEG: '
                        'not a picture that OpenCV can decode', str(caught.value))


def test_without_balance_no_annotation_is_read_for_the_weights(vid_root, load):
    sources = load_sources(load(), vid_root)
    (vid_root / 'Annotations/train/dogs/000003.xml').unlink()
    assert picture_weights(sources.videos, 2, 0.0) == [6.0, 6.0]


def test_weights_are_those_of_a_plain_count(vid_root, load):
    dogs, horses = load_sources(load(), vid_root).videos
    # There are 12 frames with dogs and 6 with horses; the count adds one to each class.
    assert picture_weights([dogs, horses, dogs], 2, 0.5) == pytest.approx(
        [6 * 13 ** -0.5, 6 * 7 ** -0.5, 6 * 13 ** -0.5])
