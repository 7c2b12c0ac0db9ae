# SPDX-License-Identifier: Apache-2.0
"""Results on a Ray cluster of two nodes stay the same if one node is killed during the work."""

from contextlib import suppress
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
from threading import Thread
from time import monotonic, sleep

from forecast_detector_ros.annotations.synthetic import CLASSES
from forecast_detector_ros.cli import evaluate_accuracy, label, replay
import numpy as np
import pytest

from ..helpers.bags import jpeg_message, truth_message, write_bag
from ..helpers.clusters import add_node, started_cluster

pytestmark = pytest.mark.slow

BAGS = 5
COMMON = ('--latency', 'read=20,forecast=4', '--policy', 'alternate(1)', '--truth-topic', '/truth',
          '--backend', 'torch')


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    """Write a folder with annotated bags that are long enough to be interrupted."""
    root = tmp_path_factory.mktemp('bags')
    for seed in range(BAGS):
        write_bag(root / f'bag{seed}', {
            '/camera/compressed': [jpeg_message(n, seed=seed) for n in range(60)],
            '/truth': [truth_message(n, [[4, 4, 60, 40]], [CLASSES[n % 2]])
                       for n in range(0, 60, 10)]})
    return root


@pytest.fixture
def cluster():
    """Start a cluster of two nodes with room for one job each."""
    with started_cluster() as cluster:
        add_node(cluster, cpus=1)
        yield cluster, add_node(cluster, cpus=1)


def run_on(cluster, verb, *arguments):
    """Run a verb on a cluster, in a process of its own; return its stderr."""
    done = subprocess.run(
        [sys.executable, '-m', 'forecast_detector_ros.cli', *verb.split(), *map(str, arguments),
         '--engine', f'ray={cluster.address}'], capture_output=True, text=True, timeout=800)
    assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
    return done.stderr


def figures(folder):
    """Return the figures that must not depend on the engine."""
    document = json.loads((folder / 'summary.json').read_text())
    return {key: document[key] for key in ('bags', 'images', 'read_ratio', 'reasons', 'boxes',
                                           'latencies_ms', 'accuracy', 'results')}


def stopped_in_the_middle(node, bags):
    """Stop a worker that has a bag open; return its pid and the names of its open bags."""
    (raylet,) = node.all_processes['raylet']
    # Threads and processes may end during the search.
    with suppress(OSError):
        for path in Path('/proc').glob(f'{raylet.process.pid}/task/*/children'):
            for worker in map(int, path.read_text().split()):
                if not open_bags(worker, bags):
                    continue
                os.kill(worker, signal.SIGSTOP)
                while 'State:\tT' not in Path(f'/proc/{worker}/status').read_text():
                    sleep(0.001)
                # The worker may have closed the bag before it stopped.
                names = open_bags(worker, bags)
                if names:
                    return [(worker, *names)]
                os.kill(worker, signal.SIGCONT)
    return []


def open_bags(process, bags):
    """Return the names of the bags that a process has open."""
    names = set()
    for link in Path(f'/proc/{process}/fd').glob('*'):
        with suppress(OSError):
            names |= {path.name for path in link.readlink().parents if path.parent == bags}
    return names


def test_killed_node_changes_no_number(
        bags, checkpoint, cluster, tmp_path):
    cluster, doomed = cluster
    one, two = tmp_path / 'one', tmp_path / 'two'
    common = [str(bags), '--checkpoint', str(checkpoint), *COMMON, '--output']
    assert replay.main([*common, str(one)]) == 0
    lost, done_at_kill = [], set()

    def kill():
        deadline = monotonic() + 600
        results = tmp_path / 'two.part/bags'
        while not lost and monotonic() < deadline:
            sleep(0.02)
            if any(results.glob('*')):
                lost.extend(stopped_in_the_middle(doomed, bags))
        done_at_kill.update(path.name for path in results.glob('*'))
        cluster.remove_node(doomed, allow_graceful=False)
        for worker, _ in lost:
            os.kill(worker, signal.SIGKILL)

    killer = Thread(target=kill)
    killer.start()
    try:
        run_on(cluster, 'replay', *common, two)
    finally:
        killer.join()
    # The killed node had not finished this bag, so another node processed the bag again.
    (_, bag), = lost
    assert done_at_kill and bag not in done_at_kill
    assert figures(two) == figures(one)
    assert figures(two)['accuracy']['ap50'] is not None
    for name in ('detections.json', 'bags/bag3/frames.jsonl'):
        assert (two / name).read_bytes() == (one / name).read_bytes()


def test_results_of_other_verbs_equal_those_of_one_process(
        videos, checkpoint, cluster, tmp_path, write_onnx):
    cluster, _ = cluster
    common = ['--checkpoint', str(checkpoint), '--annotations', str(videos), '--policy',
              'alternate(1)', '--backend', 'torch', '--output']
    outputs = [tmp_path / 'one.json', tmp_path / 'two.json']
    assert evaluate_accuracy.main([*common, str(outputs[0])]) == 0
    run_on(cluster, 'evaluate accuracy', *common, outputs[1])
    keys = ('mean_recall', 'ap50', 'read_ratio', 'frames')
    results = [json.loads(path.read_text()) for path in outputs]
    assert [results[0][key] for key in keys] == [results[1][key] for key in keys]
    assert list(results[0]['sequences']) == list(results[1]['sequences'])

    teacher = write_onnx({'boxes': np.array([[2, 3, 20, 30]], np.float32),
                          'labels': np.array([18], np.int64),
                          'scores': np.array([0.9], np.float32)}, [1, 3, 'H', 'W'])
    bags = [write_bag(tmp_path / name, {'/c': [jpeg_message(n) for n in range(4)]})
            for name in 'ab']
    documents = []
    for name in ('here', 'there'):
        path, frames = tmp_path / f'{name}.json', tmp_path / name
        options = [*map(str, bags), '--teacher', str(teacher), '--frames', str(frames),
                   '--output', str(path)]
        if name == 'here':
            assert label.main(options) == 0
        else:
            run_on(cluster, 'label', *options)
        documents.append(path.read_bytes())
        shutil.rmtree(frames / 'a')
    assert documents[0] == documents[1] and (tmp_path / 'there/b/000003.jpg').is_file()
